// An upload endpoint with JDBC, see README.md: UploadServer PORT FOLDER JDBC_URL

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.*;
import java.net.InetSocketAddress;
import java.nio.file.*;
import java.sql.*;
import java.util.*;
import java.util.concurrent.Executors;

public class UploadServer {
	static final int PIECE = 4 << 20; // of what a client sends at a time, less than that is lost with a process
	static final Map<String, Integer> ANSWERS = new HashMap<>(); // to outcomes, SQLSTATEs and classes of these
	static {
		// tus wants 409 for all but the current offset
		String[] answers = ("replayed 409 replaced 409 conflict 409 too_large 413 fenced 423 locked 423 ended 410 expired 410 "
				+ "not_found 404 VB001 404 VB003 410 VB004 410 VB009 413 23505 409 55P03 423 "
				+ "disk_full 507 22 400 08 503 0A 503 25 503 40 503 53 503 57 503").split(" ");
		for (int i = 0; i < answers.length; i += 2)
			ANSWERS.put(answers[i], Integer.valueOf(answers[i + 1]));
	}
	@SuppressWarnings("serial")
	static class Answer extends Exception {
		final int status;

		Answer(int status, String text) {
			super(text);
			this.status = status;
		}
	}

	static void demand(boolean condition, int status, String text) throws Answer {
		if (!condition)
			throw new Answer(status, text);
	}

	/** Answers a request; whatever goes wrong has its answer, too. */
	static void handle(HttpExchange http) throws IOException {
		var headers = http.getResponseHeaders();
		headers.set("Tus-Resumable", "1.0.0");
		headers.set("Tus-Version", "1.0.0");
		headers.set("Tus-Extension", "creation,termination,expiration");
		int status;
		String text = "";
		try {
			status = answer(http, Objects.requireNonNullElse(header(http, "X-Remote-User"), ""));
		} catch (Answer answer) {
			status = answer.status;
			text = answer.getMessage();
		} catch (Exception error) {
			String state = sqlState(error);
			status = ANSWERS.getOrDefault(state, ANSWERS.getOrDefault(state.substring(0, 2), 500));
			text = status == 500 ? "internal error" : error instanceof SQLException ? error.getMessage().split("\n")[0] : "try again later";
			System.err.println(error);
		}
		if (status == 423 || status == 503)
			headers.set("Retry-After", "1");
		boolean empty = status == 204 || http.getRequestMethod().equals("HEAD") || text.isEmpty();
		http.sendResponseHeaders(status, empty ? -1 : text.getBytes().length);
		if (!empty)
			http.getResponseBody().write(text.getBytes());
		http.close();
	}

	/** Returns the SQLSTATE of an error; errors of files have one, too. */
	static String sqlState(Exception error) {
		String state = error instanceof SQLException ? ((SQLException) error).getSQLState() : "XX000";
		if (state == null || error instanceof SQLTransientConnectionException)
			return "08000"; // the pool has no connection
		// Java has no code for it, and takes the words of the locale: run it with LC_ALL=C.UTF-8
		if (error instanceof IOException && error.toString().matches("(?s).*(No space left on device|Disk quota exceeded).*"))
			return "disk_full";
		if (error instanceof NoSuchFileException || error instanceof FileNotFoundException)
			return "40001"; // another process has just completed, or freed, the upload
		return state;
	}

	static String header(HttpExchange http, String name) {
		return http.getRequestHeaders().getFirst(name);
	}

	static long number(HttpExchange http, String name) throws Answer {
		String value = header(http, name);
		demand(value != null && value.matches("[0-9]{1,18}"), 400, name + " is not a number of bytes");
		return Long.parseLong(value);
	}

	/** Answers a request, but for its end: returns the status. */
	static int answer(HttpExchange http, String owner) throws Exception {
		String method = Objects.requireNonNullElse(header(http, "X-HTTP-Method-Override"), http.getRequestMethod());
		String path = http.getRequestURI().getRawPath();
		demand(header(http, "Transfer-Encoding") == null, 411, "Transfer-Encoding is not supported");
		demand(!method.equals("OPTIONS"), 204, "");
		demand("1.0.0".equals(header(http, "Tus-Resumable")), 412, "Tus-Resumable is not 1.0.0");
		demand(path.matches("/uploads(/" + Uploads.UUIDS + ")?"), 404, "no such upload");
		String id = path.equals("/uploads") ? null : path.substring("/uploads/".length());
		if (id == null && method.equals("POST"))
			return post(http, owner);
		if (id != null && method.equals("HEAD"))
			return state(http, find(id, owner), 200);
		if (id != null && method.equals("PATCH"))
			return patch(http, id, owner);
		demand(id != null && method.equals("DELETE"), 405, "no such method here");
		// forgets the upload, complete or not; its Uploads.folder is in the reclaim queue then
		Object found = Uploads.query("SELECT delete_upload(?, ?, reclaim_complete => true) AS found", id, owner).get(0).get("found");
		demand((Boolean) found, 404, "no such upload");
		return 204;
	}

	/** Finds the session.  For a client an upload is done once all bytes are confirmed: so what a process that was
	 *  killed has left undone is done before it hears that. */
	static Map<String, Object> find(String id, String owner) throws Exception {
		var rows = Uploads.query(Uploads.SESSION + "get_upload(?, ?)", id, owner);
		demand(!rows.isEmpty(), 404, "no such upload");
		Map<String, Object> upload = rows.get(0);
		Object status = upload.get("status");
		demand(!status.equals("aborted") && !status.equals("expired"), 410, "the upload is " + status);
		if (upload.get("uploaded_bytes").equals(upload.get("total_size")) && !status.equals("complete"))
			Uploads.complete(upload, Uploads.home(upload));
		return upload;
	}

	static int state(HttpExchange http, Map<String, Object> upload, int status) {
		var headers = http.getResponseHeaders();
		headers.set("Upload-Offset", upload.get("uploaded_bytes").toString());
		headers.set("Upload-Length", upload.get("total_size").toString());
		headers.set("Cache-Control", "no-store");
		if (upload.get("until") != null)
			headers.set("Upload-Expires", (String) upload.get("until"));
		return status;
	}

	/** Starts an upload.  With an Idempotency-Key, a UUID, the client may repeat that. */
	static int post(HttpExchange http, String owner) throws Exception {
		String key = header(http, "Idempotency-Key");
		String metadata = Objects.requireNonNullElse(header(http, "Upload-Metadata"), "");
		demand(key == null || key.matches(Uploads.UUIDS), 400, "Idempotency-Key is not a UUID");
		var upload = Uploads.query(Uploads.START, metadata, number(http, "Upload-Length"), owner, key, key != null).get(0);
		if (upload.get("status").equals("pending") || upload.get("status").equals("in_progress")) {
			Files.createDirectories(Uploads.home(upload));
			Uploads.sync(Uploads.folder);
		}
		http.getResponseHeaders().set("Location", "/uploads/" + upload.get("upload_id"));
		return state(http, find((String) upload.get("upload_id"), owner), 201);
	}

	/** Takes bytes, piece by piece: into a file first, then it is confirmed. */
	static int patch(HttpExchange http, String id, String owner) throws Exception {
		demand("application/offset+octet-stream".equals(header(http, "Content-Type")), 415, "Content-Type is wrong");
		demand(header(http, "Content-Length") != null, 411, "Content-Length is missing");
		long offset = number(http, "Upload-Offset"), end = offset + number(http, "Content-Length");
		var upload = find(id, owner);
		demand(offset == (Long) upload.get("uploaded_bytes"), 409, "the upload is at " + upload.get("uploaded_bytes"));
		demand(end <= (Long) upload.get("total_size"), 413, "the upload has " + upload.get("total_size") + " bytes");
		while (offset < end) {
			Path attempt = Uploads.home(upload).resolve(UUID.randomUUID().toString());
			int length = (int) Math.min(end - offset, PIECE);
			long stored = Uploads.write(attempt, file -> Uploads.receive(http.getRequestBody(), file, length));
			// the file stays if this call fails: its answer may be lost, and the bytes confirmed
			// as all columns but two are null after not_found, getLong would return 0
			var row = Uploads.query("SELECT * FROM try_advance_upload(?, ?, ?, etag => ?, owner => ?)",
					id, offset, stored, attempt.getFileName().toString(), owner).get(0);
			Object outcome = row.get("outcome");
			// replaced: this file counts from now on; replayed: it may, if a driver has repeated the call
			if (!Set.of("advanced", "replaced", "replayed").contains(outcome) || "complete".equals(row.get("status")))
				Files.deleteIfExists(attempt);
			demand(outcome.equals("advanced"), ANSWERS.getOrDefault(outcome, 500), outcome.toString());
			demand(stored == length, 400, "the body is incomplete");
			offset += stored;
		}
		return state(http, find(id, owner), 204);
	}

	public static void main(String[] arguments) throws IOException {
		Uploads.folder = Path.of(arguments[1]);
		Uploads.pool.setJdbcUrl(arguments[2]);
		Uploads.pool.setMaximumPoolSize(8);
		Uploads.pool.setConnectionTimeout(5000);
		Uploads.pool.setInitializationFailTimeout(-1);
		Executors.newSingleThreadExecutor().submit(Uploads::reclaim);
		HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 0);
		server.setExecutor(Executors.newCachedThreadPool());
		server.createContext("/", UploadServer::handle);
		server.start();
	}
}
