// What the endpoint does with files and with the database.
package main

import (
	"database/sql"
	"errors"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"time"

	_ "github.com/lib/pq" // pgx works, too: github.com/jackc/pgx/v5/stdlib and the name "pgx"
)

const session = `SELECT upload_id, uploaded_bytes, total_size, status, provider_data->>'folder', owner,
	coalesce(to_char(expires_at AT TIME ZONE 'GMT', 'Dy, DD Mon YYYY HH24:MI:SS "GMT"'), '') FROM get_upload($1, $2)`
const start = `SELECT upload_id, provider_data->>'folder', status FROM (
	SELECT jsonb_object_agg(split_part(pair, ' ', 1), convert_from(decode(split_part(pair, ' ', 2), 'base64'), 'UTF8')) AS pairs
	FROM regexp_split_to_table($1, ' *, *') AS pair WHERE pair <> '') AS metadata,
	start_upload(coalesce(pairs->>'filename', 'unnamed'), $2, content_type => pairs->>'filetype', metadata => pairs,
		provider_data => jsonb_build_object('folder', gen_random_uuid()), owner => $3, upload_id => $4::text, or_resume => $4::text IS NOT NULL)`

const uuids = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

var uuid = regexp.MustCompile("^" + uuids + "$")
var path = regexp.MustCompile("^/uploads(?:/(" + uuids + "))?$")
var digits = regexp.MustCompile("^[0-9]{1,18}$")
var db *sql.DB
var folder string

type upload struct {
	id, owner, status, home, until string
	bytes, size                    int64
}

type refusal struct {
	status int
	text   string
}

// Goes back to the handler, with a refusal, unless the condition holds.
func demand(condition bool, status int, text string) {
	if !condition {
		panic(refusal{status, text})
	}
}

// Goes back to the handler with the first error, if there is one.
func check(errs ...error) {
	for _, err := range errs {
		if err != nil {
			panic(err)
		}
	}
}

// Returns once a file, or the names in a folder, would survive a crash.
func sync(path string) {
	file, err := os.Open(path)
	check(err)
	defer file.Close()
	check(file.Sync())
}

// Writes a file, which would survive a crash then, under a name that no other attempt has.  If
// anything fails it goes: on a disk that is full it would be in the way.
func store(home string, fill func(file *os.File)) string {
	file, err := os.CreateTemp(home, "")
	check(err)
	stored := false
	defer func() {
		file.Close()
		if !stored {
			os.Remove(file.Name())
		}
	}()
	fill(file)
	check(file.Sync(), file.Close())
	sync(home)
	stored = true
	return file.Name()
}

// Makes one file of all pieces, then completes.  Two processes may do so at the same time.
func complete(u upload) {
	if _, err := os.Stat(filepath.Join(u.home, "file")); err != nil {
		assemble(u)
	}
	sync(u.home)
	files, err := os.ReadDir(u.home)
	check(err)
	for _, file := range files {
		if file.Name() != "file" {
			os.Remove(filepath.Join(u.home, file.Name()))
		}
	}
	_, err = db.Exec("SELECT FROM complete_upload($1, jsonb_build_object('file', $2::text), $3)", u.id, filepath.Base(u.home)+"/file", u.owner)
	check(err)
}

func assemble(u upload) {
	whole := store(u.home, func(file *os.File) {
		parts, err := db.Query("SELECT etag FROM list_parts($1, $2, 2147483647)", u.id, u.owner)
		check(err)
		defer parts.Close()
		for parts.Next() {
			var name string
			check(parts.Scan(&name))
			data, err := os.ReadFile(filepath.Join(u.home, name))
			check(err)
			_, err = file.Write(data)
			check(err)
		}
		check(parts.Err())
	})
	check(os.Rename(whole, filepath.Join(u.home, "file")))
}

// Frees what an upload that has ended has left, and returns sql.ErrNoRows if there is none.
func free() error {
	var id int64
	var name string
	err := db.QueryRow("SELECT id, coalesce(provider_data->>'folder', '') FROM claim_reclaims(1)").Scan(&id, &name)
	if err != nil {
		return err
	}
	err = errors.New("provider_data has no folder of an upload")
	if uuid.MatchString(name) {
		err = os.RemoveAll(filepath.Join(folder, name))
	}
	if err == nil {
		_, err = db.Exec("SELECT finish_reclaim($1)", id)
	} else {
		_, err = db.Exec("SELECT fail_reclaim($1, $2)", id, err.Error())
	}
	return err
}

// Frees what there is, for ever.
func reclaim() {
	for {
		err := free()
		if err != nil && err != sql.ErrNoRows {
			log.Print("reclaim: ", err)
		}
		if err != nil {
			time.Sleep(time.Second)
		}
	}
}

// Finds the session.  For a client an upload is done once all bytes are confirmed: so what a
// process that was killed has left undone is done before it hears that.
func find(u upload) upload {
	err := db.QueryRow(session, u.id, u.owner).Scan(
		&u.id, &u.bytes, &u.size, &u.status, &u.home, &u.owner, &u.until)
	demand(err != sql.ErrNoRows, 404, "no such upload")
	check(err)
	demand(u.status != "aborted" && u.status != "expired", 410, "the upload is "+u.status)
	u.home = filepath.Join(folder, u.home)
	if u.bytes == u.size && u.status != "complete" {
		complete(u)
	}
	return u
}
