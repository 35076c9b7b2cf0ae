// An upload endpoint with database/sql, see README.md: upload_server PORT FOLDER CONNECTION_URL
package main

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	_ "github.com/lib/pq" // pgx works, too: github.com/jackc/pgx/v5/stdlib and the name "pgx"
)

const piece = 4 << 20 // of what a client sends at a time, less than that is lost with a process
const session = `SELECT upload_id, uploaded_bytes, total_size, status, provider_data->>'folder', owner,
	coalesce(to_char(expires_at AT TIME ZONE 'GMT', 'Dy, DD Mon YYYY HH24:MI:SS "GMT"'), '') FROM get_upload($1, $2)`
const start = `SELECT upload_id, provider_data->>'folder', status FROM (
	SELECT jsonb_object_agg(split_part(pair, ' ', 1), convert_from(decode(split_part(pair, ' ', 2), 'base64'), 'UTF8')) AS pairs
	FROM regexp_split_to_table($1, ' *, *') AS pair WHERE pair <> '') AS metadata,
	start_upload(coalesce(pairs->>'filename', 'unnamed'), $2, content_type => pairs->>'filetype', metadata => pairs,
		provider_data => jsonb_build_object('folder', gen_random_uuid()), owner => $3, upload_id => $4::text, or_resume => $4::text IS NOT NULL)`

var answers = map[string]int{ // to outcomes, SQLSTATEs and classes of these; tus wants 409 for all but the current offset
	"replayed": 409, "replaced": 409, "conflict": 409, "too_large": 413, "fenced": 423, "locked": 423,
	"ended": 410, "expired": 410, "not_found": 404, "VB001": 404, "VB003": 410, "VB004": 410, "VB009": 413,
	"23505": 409, "55P03": 423, "22": 400, "0A": 503, "25": 503, "40": 503, "53": 503, "57": 503}
var tus = map[string]string{"Tus-Resumable": "1.0.0", "Tus-Version": "1.0.0", "Tus-Extension": "creation,termination,expiration"}
var uuid = regexp.MustCompile("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
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

// Makes a file, whose name no other attempt has.
func create(home string) *os.File {
	file, err := os.CreateTemp(home, "")
	check(err)
	return file
}

// Makes one file of all pieces, then completes.  Two processes may do so at the same time.
func complete(u upload) {
	whole := create(u.home)
	defer whole.Close()
	parts, err := db.Query("SELECT etag FROM list_parts($1, $2, 2147483647)", u.id, u.owner)
	check(err)
	defer parts.Close()
	for parts.Next() {
		var name string
		check(parts.Scan(&name))
		data, err := os.ReadFile(filepath.Join(u.home, name))
		check(err)
		_, err = whole.Write(data)
		check(err)
	}
	check(parts.Err(), whole.Sync(), os.Rename(whole.Name(), filepath.Join(u.home, "file")))
	sync(u.home)
	_, err = db.Exec("SELECT FROM complete_upload($1, jsonb_build_object('file', $2::text), $3)", u.id, filepath.Base(u.home)+"/file", u.owner)
	check(err)
	files, _ := os.ReadDir(u.home)
	for _, file := range files {
		if file.Name() != "file" {
			os.Remove(filepath.Join(u.home, file.Name()))
		}
	}
}

// Frees what ended uploads have left, for ever.
func reclaim() {
	for ; ; time.Sleep(time.Second) {
		var id int64
		var name string
		for db.QueryRow("SELECT id, coalesce(provider_data->>'folder', '') FROM claim_reclaims(1)").Scan(&id, &name) == nil {
			err := errors.New("provider_data has no folder of an upload")
			if uuid.MatchString(name) {
				err = os.RemoveAll(filepath.Join(folder, name))
			}
			if err == nil {
				db.Exec("SELECT finish_reclaim($1)", id)
			} else {
				db.Exec("SELECT fail_reclaim($1, $2)", id, err.Error())
			}
		}
	}
}

func handle(w http.ResponseWriter, r *http.Request) {
	defer func() { refuse(w, recover()) }()
	for name, value := range tus {
		w.Header().Set(name, value)
	}
	method := r.Header.Get("X-HTTP-Method-Override")
	if method == "" {
		method = r.Method
	}
	u := upload{id: strings.TrimPrefix(r.URL.Path, "/uploads"), owner: r.Header.Get("X-Remote-User")}
	demand(method != "OPTIONS", 204, "")
	demand(r.Header.Get("Tus-Resumable") == "1.0.0", 412, "Tus-Resumable is not 1.0.0")
	demand(r.URL.Path == "/uploads" || uuid.MatchString(strings.TrimPrefix(u.id, "/")), 404, "no such upload")
	switch {
	case u.id == "" && method == "POST":
		post(w, r, u)
	case u.id != "" && method == "HEAD":
		state(w, find(u), 200)
	case u.id != "" && method == "PATCH":
		patch(w, r, find(u))
	case u.id != "" && method == "DELETE": // its folder is in the reclaim queue then
		var found bool
		check(db.QueryRow("SELECT delete_upload($1, $2, reclaim_complete => true)", u.id[1:], u.owner).Scan(&found))
		demand(found, 404, "no such upload")
		w.WriteHeader(204)
	default:
		demand(false, 405, "no such method here")
	}
}

// Answers whatever has gone wrong: a refusal, an error of the database or of the file system.
func refuse(w http.ResponseWriter, failure interface{}) {
	status, text := 503, "try again later" // also if the connection to the database is lost: then there is no SQLSTATE
	switch err := failure.(type) {
	case nil:
		return
	case refusal:
		status, text = err.status, err.text
	case interface{ SQLState() string }:
		if status = answers[err.SQLState()]; status == 0 {
			status = answers[err.SQLState()[:2]]
		}
		text = fmt.Sprint(err)
	case *fs.PathError, *os.LinkError, runtime.Error:
		if !errors.Is(err.(error), fs.ErrNotExist) { // another process has just completed, or freed, the upload
			status = 0
		}
	}
	if status == 0 {
		log.Print(failure)
		status, text = 500, "internal error"
	} else if status == 423 || status == 503 {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	fmt.Fprint(w, text)
}

// Finds the session.  For a client an upload is done once all bytes are confirmed: so what a
// process that was killed has left undone is done before it hears that.
func find(u upload) upload {
	err := db.QueryRow(session, strings.TrimPrefix(u.id, "/"), u.owner).Scan(
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

func state(w http.ResponseWriter, u upload, status int) {
	w.Header().Set("Upload-Offset", strconv.FormatInt(u.bytes, 10))
	w.Header().Set("Upload-Length", strconv.FormatInt(u.size, 10))
	w.Header().Set("Upload-Expires", u.until)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
}

func number(r *http.Request, header string) int64 {
	value, err := strconv.ParseInt(r.Header.Get(header), 10, 64)
	demand(err == nil && value >= 0, 400, header+" is not a number of bytes")
	return value
}

// Starts an upload.  With an Idempotency-Key, a UUID, the client may repeat that.
func post(w http.ResponseWriter, r *http.Request, u upload) {
	key := sql.NullString{String: r.Header.Get("Idempotency-Key"), Valid: r.Header.Get("Idempotency-Key") != ""}
	demand(!key.Valid || uuid.MatchString(key.String), 400, "Idempotency-Key is not a UUID")
	var home string
	check(db.QueryRow(start, r.Header.Get("Upload-Metadata"), number(r, "Upload-Length"), u.owner, key).Scan(&u.id, &home, &u.status))
	if u.status == "pending" || u.status == "in_progress" {
		check(os.MkdirAll(filepath.Join(folder, home), 0o700))
		sync(folder)
	}
	w.Header().Set("Location", "/uploads/"+u.id)
	state(w, find(u), 201)
}

// Takes bytes, piece by piece: into a file first, then it is confirmed.
func patch(w http.ResponseWriter, r *http.Request, u upload) {
	demand(r.Header.Get("Content-Type") == "application/offset+octet-stream", 415, "Content-Type is wrong")
	demand(r.ContentLength > 0 || r.Header.Get("Content-Length") == "0", 411, "Content-Length is missing")
	demand(number(r, "Upload-Offset") == u.bytes, 409, fmt.Sprint("the upload is at ", u.bytes))
	demand(r.ContentLength <= u.size-u.bytes, 413, fmt.Sprintf("the upload has %d bytes", u.size))
	for left := r.ContentLength; left > 0; {
		length := left
		if length > piece {
			length = piece
		}
		file := create(u.home)
		stored, _ := io.CopyN(file, r.Body, length) // or what comes before the connection breaks
		check(file.Sync(), file.Close())
		sync(u.home)
		var outcome string // the other columns are null after not_found
		check(db.QueryRow("SELECT outcome FROM try_advance_upload($1, $2, $3, etag => $4, owner => $5)",
			u.id, u.bytes, stored, filepath.Base(file.Name()), u.owner).Scan(&outcome))
		// replaced: this file counts from now on; replayed: it may, if a driver has repeated the call
		if outcome != "advanced" && outcome != "replaced" && outcome != "replayed" {
			os.Remove(file.Name())
		}
		demand(outcome == "advanced", answers[outcome], outcome)
		demand(stored == length, 400, "the body is incomplete")
		u.bytes, left = u.bytes+stored, left-stored
	}
	state(w, find(u), 204)
}

func main() {
	var err error
	folder = os.Args[2]
	db, err = sql.Open("postgres", os.Args[3])
	check(err)
	db.SetMaxOpenConns(8)
	go reclaim()
	server := http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: http.HandlerFunc(handle), ReadHeaderTimeout: time.Minute}
	log.Fatal(server.ListenAndServe())
}
