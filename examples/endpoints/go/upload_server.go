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
	"runtime"
	"strconv"
	"syscall"
	"time"
)

const piece = 4 << 20 // of what a client sends at a time, less than that is lost with a process

var answers = map[string]int{ // to outcomes, SQLSTATEs and classes of these; tus wants 409 for all but the current offset
	"replayed": 409, "replaced": 409, "conflict": 409, "too_large": 413, "fenced": 423, "locked": 423,
	"ended": 410, "expired": 410, "not_found": 404, "VB001": 404, "VB003": 410, "VB004": 410, "VB009": 413,
	"23505": 409, "55P03": 423, "22": 400, "0A": 503, "25": 503, "40": 503, "53": 503, "57": 503}
var tus = map[string]string{"Tus-Resumable": "1.0.0", "Tus-Version": "1.0.0", "Tus-Extension": "creation,termination,expiration"}

func handle(w http.ResponseWriter, r *http.Request) {
	defer func() { refuse(w, recover()) }()
	for name, value := range tus {
		w.Header().Set(name, value)
	}
	method := r.Header.Get("X-HTTP-Method-Override")
	if method == "" {
		method = r.Method
	}
	demand(len(r.TransferEncoding) == 0, 411, "Transfer-Encoding is not supported")
	demand(method != "OPTIONS", 204, "")
	demand(r.Header.Get("Tus-Resumable") == "1.0.0", 412, "Tus-Resumable is not 1.0.0")
	match := path.FindStringSubmatch(r.URL.EscapedPath())
	demand(match != nil, 404, "no such upload")
	u := upload{id: match[1], owner: r.Header.Get("X-Remote-User")}
	switch {
	case u.id == "" && method == "POST":
		post(w, r, u)
	case u.id != "" && method == "HEAD":
		state(w, find(u), 200)
	case u.id != "" && method == "PATCH":
		patch(w, r, find(u))
	case u.id != "" && method == "DELETE": // its folder is in the reclaim queue then
		var found bool
		check(db.QueryRow("SELECT delete_upload($1, $2, reclaim_complete => true)", u.id, u.owner).Scan(&found))
		demand(found, 404, "no such upload")
		w.WriteHeader(204)
	default:
		demand(false, 405, "no such method here")
	}
}

// Answers whatever has gone wrong: a refusal, an error of the database or of the file system.
func refuse(w http.ResponseWriter, failure interface{}) {
	if failure == nil {
		return
	}
	status, text := 503, "try again later" // if the connection to the database is lost: then there is no SQLSTATE
	switch err := failure.(type) {
	case refusal:
		status, text = err.status, err.text
	case interface{ SQLState() string }:
		if status = answers[err.SQLState()]; status == 0 {
			status = answers[err.SQLState()[:2]]
		}
		text = fmt.Sprint(err)
	case *fs.PathError, *os.LinkError:
		if err := err.(error); errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			status, text = 507, "the storage is full"
		} else if !errors.Is(err, fs.ErrNotExist) { // then another process has just completed, or freed, the upload
			status = 0
		}
	case runtime.Error:
		status = 0
	}
	if _, ok := failure.(refusal); !ok {
		log.Print(failure)
	}
	if status == 0 {
		status, text = 500, "internal error"
	} else if status == 423 || status == 503 {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	fmt.Fprint(w, text)
}

func state(w http.ResponseWriter, u upload, status int) {
	w.Header().Set("Upload-Offset", strconv.FormatInt(u.bytes, 10))
	w.Header().Set("Upload-Length", strconv.FormatInt(u.size, 10))
	w.Header().Set("Upload-Expires", u.until)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
}

func number(r *http.Request, header string) int64 {
	demand(digits.MatchString(r.Header.Get(header)), 400, header+" is not a number of bytes")
	value, err := strconv.ParseInt(r.Header.Get(header), 10, 64)
	check(err)
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
		var stored int64
		name := store(u.home, func(file *os.File) { stored = receive(file, r.Body, length) })
		// the file stays if this call fails: its answer may be lost, and the bytes confirmed
		var outcome, status string // all columns but outcome and ready are null after not_found
		check(db.QueryRow("SELECT outcome, coalesce(status::text, '') FROM try_advance_upload($1, $2, $3, etag => $4, owner => $5)",
			u.id, u.bytes, stored, filepath.Base(name), u.owner).Scan(&outcome, &status))
		// replaced: this file counts from now on; replayed: it may, if a driver has repeated the call
		if outcome != "advanced" && outcome != "replaced" && outcome != "replayed" || status == "complete" {
			os.Remove(name)
		}
		demand(outcome == "advanced", answers[outcome], outcome)
		demand(stored == length, 400, "the body is incomplete")
		u.bytes, left = u.bytes+stored, left-stored
	}
	state(w, find(u), 204)
}

// Copies so many bytes, or what comes before the connection breaks; returns how many.
func receive(file *os.File, body io.Reader, length int64) int64 {
	stored, err := io.CopyN(file, body, length)
	var failure *fs.PathError
	if errors.As(err, &failure) { // of the file: any other error means that the client has gone
		panic(failure)
	}
	return stored
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
