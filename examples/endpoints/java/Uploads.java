// What the endpoint does with files and with the database.

import com.zaxxer.hikari.HikariDataSource;
import java.io.*;
import java.nio.channels.FileChannel;
import java.nio.file.*;
import java.sql.*;
import java.util.*;

class Uploads {
	static final String UUIDS = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}";
	static final String SESSION = "SELECT *, provider_data->>'folder' AS folder,"
			+ " to_char(expires_at AT TIME ZONE 'GMT', 'Dy, DD Mon YYYY HH24:MI:SS \"GMT\"') AS until FROM ";
	// in FROM: SELECT (start_upload(...)).* would start a session for each column
	static final String START = SESSION + "(SELECT jsonb_object_agg(split_part(pair, ' ', 1),"
			+ " convert_from(decode(split_part(pair, ' ', 2), 'base64'), 'UTF8')) AS pairs"
			+ " FROM regexp_split_to_table(?, ' *, *') AS pair WHERE pair <> '') AS metadata,"
			+ " start_upload(coalesce(pairs->>'filename', 'unnamed'), ?, content_type => pairs->>'filetype', metadata => pairs,"
			+ " provider_data => jsonb_build_object('folder', gen_random_uuid()), owner => ?, upload_id => ?, or_resume => ?)";
	static HikariDataSource pool = new HikariDataSource();
	static Path folder;

	/** Runs a statement in a transaction of its own; returns its rows.  No connection is held while bytes move. */
	static List<Map<String, Object>> query(String sql, Object... arguments) throws SQLException {
		try (Connection connection = pool.getConnection(); PreparedStatement statement = connection.prepareStatement(sql)) {
			for (int i = 0; i < arguments.length; i++)
				statement.setObject(i + 1, arguments[i]);
			List<Map<String, Object>> rows = new ArrayList<>();
			ResultSet result = statement.executeQuery();
			while (result.next()) {
				rows.add(new HashMap<>());
				for (int i = 1; i <= result.getMetaData().getColumnCount(); i++)
					rows.get(rows.size() - 1).put(result.getMetaData().getColumnLabel(i), result.getObject(i));
			}
			return rows;
		}
	}

	/** Returns once a file, or the names in a folder, would survive a crash. */
	static void sync(Path path) throws IOException {
		try (FileChannel channel = FileChannel.open(path)) {
			channel.force(true);
		}
	}

	interface Content {
		/** Writes it; returns its size. */
		long writeTo(OutputStream file) throws SQLException, IOException;
	}

	/** Writes a new file, which would survive a crash then; returns its size.  If anything fails the file goes: on a
	 *  disk that is full it would be in the way. */
	static long write(Path path, Content content) throws SQLException, IOException {
		boolean written = false;
		try (FileOutputStream file = new FileOutputStream(path.toFile())) {
			long size = content.writeTo(file);
			file.getFD().sync();
			sync(path.getParent());
			written = true;
			return size;
		} finally {
			if (!written)
				Files.deleteIfExists(path);
		}
	}

	/** Reads so many bytes, or what comes before the connection breaks; returns how many. */
	static int receive(InputStream body, OutputStream file, int length) throws IOException {
		byte[] data = new byte[65536];
		int stored = 0;
		while (stored < length) {
			int count;
			try {
				count = body.read(data, 0, Math.min(length - stored, data.length));
			} catch (IOException error) {
				break; // the client has gone
			}
			if (count <= 0)
				break;
			file.write(data, 0, count);
			stored += count;
		}
		return stored;
	}

	/** Makes one file of all pieces, then completes.  Two processes may do so at the same time. */
	static void complete(Map<String, Object> upload, Path home) throws SQLException, IOException {
		if (!Files.exists(home.resolve("file"))) {
			Path whole = home.resolve(UUID.randomUUID().toString());
			write(whole, file -> {
				long size = 0;
				for (var part : query("SELECT etag FROM list_parts(?, ?, 2147483647)", upload.get("upload_id"), upload.get("owner")))
					size += Files.copy(home.resolve((String) part.get("etag")), file);
				return size;
			});
			Files.move(whole, home.resolve("file"), StandardCopyOption.ATOMIC_MOVE);
		}
		sync(home);
		for (String name : home.toFile().list((parent, name) -> !name.equals("file")))
			Files.deleteIfExists(home.resolve(name));
		query("SELECT status FROM complete_upload(?, jsonb_build_object('file', ?::text), ?)",
				upload.get("upload_id"), upload.get("folder") + "/file", upload.get("owner"));
	}

	/** Frees what ended uploads have left, for ever. */
	static void reclaim() {
		for (;;) {
			try {
				Thread.sleep(1000);
				for (var row : query("SELECT id, provider_data->>'folder' AS name FROM claim_reclaims(10)"))
					try {
						String name = (String) row.get("name");
						if (name == null || !name.matches(UUIDS))
							throw new IOException("provider_data has no folder of an upload");
						String[] files = folder.resolve(name).toFile().list();
						for (String file : files == null ? new String[0] : files)
							Files.deleteIfExists(folder.resolve(name).resolve(file));
						Files.deleteIfExists(folder.resolve(name));
						query("SELECT finish_reclaim(?)", row.get("id"));
					} catch (IOException error) {
						query("SELECT fail_reclaim(?, ?)", row.get("id"), error.toString());
					}
			} catch (Exception error) {
				System.err.println("reclaim: " + error);
			}
		}
	}

	static Path home(Map<String, Object> upload) {
		return folder.resolve((String) upload.get("folder"));
	}
}
