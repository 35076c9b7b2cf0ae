# The clusters of this major version on this machine, for the maintainer scripts

major=PGVERSION
package=postgresql-$major-vali-blob

# Says of each cluster: its name, its status, its owner
clusters() {
	! command -v pg_lsclusters >/dev/null ||
		pg_lsclusters --no-header | awk -v major="$major" '$1 == major { print $2, $4, $5 }'
}

# ask CLUSTER OWNER DATABASE QUERY
# A server that does not answer must not stop apt.
ask() {
	PGDATABASE=$3 PGOPTIONS='-c search_path=pg_catalog' timeout 60 \
		runuser -u "$2" -- psql --cluster "$major/$1" -XAtwq -c "$4" </dev/null
}

# databases CLUSTER OWNER CONDITION
# The databases of a running cluster that have the extension, in a version for which the
# condition holds
databases() {
	ask "$1" "$2" postgres 'SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1' |
		while IFS= read -r database; do
			found=$(ask "$1" "$2" "$database" \
				"SELECT 1 FROM pg_extension WHERE extname = 'vali_blob' AND ($3)") || continue
			[ -z "$found" ] || printf '%s\n' "$database"
		done
}

# Whether a running server has the library in memory for all its life: preloaded, or in
# the process that start_sweeper() starts
is_loaded() {
	ask "$1" "$2" postgres "SELECT current_setting('shared_preload_libraries')" | names_library ||
		[ -n "$(ask "$1" "$2" postgres \
			"SELECT 1 FROM pg_stat_activity WHERE backend_type LIKE 'vali\\_blob%' LIMIT 1")" ]
}

# Whether a list of libraries, on standard input, has ours
names_library() {
	tr ',' '\n' | tr -d "\"' " | grep -qxE '(.*/)?vali_blob(\.so)?'
}

# psql_command CLUSTER OWNER DATABASE COMMAND
# The command, quoted for a shell, which executes one of SQL
psql_command() {
	echo "    runuser -u $2 -- psql --cluster $major/$1 -d $(quote "$3") -c $(quote "$4")"
}

quote() {
	printf "'%s'\n" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
}
