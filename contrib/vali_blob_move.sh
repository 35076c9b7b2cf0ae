#!/usr/bin/env bash
# contrib/vali_blob_move.sh
#
# Moves partitions of a router (vali_blob_router.sql) to a new server, while uploads go on.
# See "Adding a server" in the manual.
#
#     vali_blob_move.sh --router CONNECTION --server NAME --partitions 3[,5...]
#         --from CONNECTION --to CONNECTION [--source CONNECTION] [--target CONNECTION]
#
# CONNECTION is a connection string of libpq, of a superuser.  --from and --to are those that
# this script uses; --source is the one by which the new server reaches the old one (else
# --from), --target the one by which the router reaches the new one (else --to).

set -euo pipefail

usage() {
	sed -n 's/^#  *\(vali_blob_move.sh .*\|  --from.*\)/\1/p' "$0" >&2
	exit 2
}

fail() {
	echo "vali_blob_move.sh: $*" >&2
	exit 1
}

router='' server=uploads partitions='' from='' to='' source='' target=''
while (($# > 0)); do
	case $1 in
		--router | --server | --partitions | --from | --to | --source | --target)
			(($# > 1)) || usage
			printf -v "${1#--}" %s "$2"
			shift 2
			;;
		*) usage ;;
	esac
done
[[ -n $router && -n $from && -n $to && $partitions =~ ^[0-9]+(,[0-9]+)*$ ]] || usage
: "${source:=$from}" "${target:=$to}"
export PGAPPNAME=vali_blob_move

# on CONNECTION: runs the commands on standard input, with the variables below.
on() {
	psql -X -q -A -t -v ON_ERROR_STOP=1 -v server="$server" -v partitions="$partitions" -v target="$target" \
		-v source="$source" -v schema="${schema-}" -v moved="${moved-}" "${@:2}" -d "$1"
}

# wait_until SENTENCE CONNECTION: waits until the query on standard input says true.
wait_until() {
	local query
	query=$(cat)
	until [[ $(on "$2" <<<"$query") == t ]]; do
		[[ -z ${old-} ]] || kill -0 "$old" 2>/dev/null || fail "the connection to the old server broke while waiting: $1"
		sleep 0.1
	done
}

# --- what must be so

count=$(on "$router" <<<"SELECT count(*) FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = :'server' AND option_name ~ '^p\d+\$'")
((count > 0)) || fail "the router has no server \"$server\""
[[ $(on "$router" <<<"SELECT bool_or(option_name = 'modular_mapping' AND option_value::integer <> 0) FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = :'server'") == t ]] ||
	fail "server \"$server\" is without modular_mapping"
olds=$(on "$router" <<<"SELECT count(DISTINCT option_value) || ' ' || count(*) FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = :'server' AND option_name = ANY (ARRAY(SELECT 'p' || p FROM unnest(string_to_array(:'partitions', ',')) AS p))")
[[ $olds == "1 $(tr , '\n' <<<"$partitions" | wc -l)" ]] || fail "partitions $partitions are not partitions of one and the same database"
known=$(on "$router" <<<"SELECT count(*) FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = :'server' AND option_value = :'target'")
((known == 0)) || fail "the router has partitions in \"$target\" already; move to a database of its own"

schema=$(on "$from" <<<"SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace WHERE extname = 'vali_blob' AND extversion <> '1.0'")
[[ -n $schema ]] || fail "the old server has no vali_blob 1.1"
[[ $(on "$to" <<<"SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace WHERE extname = 'vali_blob' AND extversion <> '1.0'") == "$schema" ]] ||
	fail "the new server has no vali_blob 1.1 in schema $schema"
[[ $(on "$from" <<<"SELECT current_setting('wal_level')") == logical ]] || fail "the old server does not have wal_level = logical"
new_node=$(on "$to" <<<"LOAD 'vali_blob'; SELECT current_setting('vali_blob.node')")
[[ $new_node != 0 && $new_node != "$(on "$from" <<<"LOAD 'vali_blob'; SELECT current_setting('vali_blob.node')")" ]] ||
	fail "the new server does not have a vali_blob.node of its own"
[[ $(on "$to" <<<"SELECT EXISTS (SELECT FROM $schema.upload_session) OR EXISTS (SELECT FROM $schema.upload_reclaim)") == f ]] ||
	fail "the new server has sessions already"

# --- copy, and follow

# Sessions whose id the router maps to these partitions
moved="abs(pg_catalog.hashtext(upload_id::text) % $count) IN ($partitions)"
tables=("$schema".upload_{session,part,reclaim,live})
name=vali_blob_move_${partitions//,/_}
# What the old server has no longer then
deletes=()
for table in upload_{live,reclaim,session}; do
	deletes+=("DELETE FROM $schema.$table WHERE $moved")
done
drop_publication="DROP PUBLICATION $name"
told_router=

give_up() {
	local status=$?
	[[ -z ${old-} ]] || kill "$old" 2>/dev/null || true
	if ((status != 0)) && [[ -n $told_router ]]; then
		echo "vali_blob_move.sh: moved, as the router knows; to end it, run on the old server"
		printf '    %s;\n' "${deletes[@]}" "$drop_publication"
		echo "and on the new one ALTER DATABASE ... RESET vali_blob.sweep"
	elif ((status != 0)); then
		echo "vali_blob_move.sh: not moved; to begin again, run on the new server DROP SUBSCRIPTION $name, TRUNCATE the tables of vali_blob,"
		echo "and on the old one $drop_publication"
	fi >&2
}
trap give_up EXIT

# The worker of the new server leaves alone what is not there yet: both servers would
# expire the same session.
on "$to" <<<"SELECT format('ALTER DATABASE %I SET vali_blob.sweep = off', current_database()) \gexec"
on "$from" <<<"$(
	printf 'CREATE PUBLICATION %s FOR TABLE ' "$name"
	first=
	for table in "${tables[@]}"; do
		printf '%s%s WHERE (%s)' "$first" "$table" "$moved"
		first=', '
	done
)"
# The limits of owners hold on each server.
on "$from" <<<"COPY $schema.upload_quota TO STDOUT" | on "$to" -c "COPY $schema.upload_quota FROM STDIN"
on "$to" <<<"SELECT format('CREATE SUBSCRIPTION %I CONNECTION %L PUBLICATION %I', '$name', :'source', '$name') \gexec"
echo "copying"
wait_until "the copy" "$to" <<<"SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel JOIN pg_subscription AS s ON s.oid = srsubid WHERE subname = '$name'"

# --- switch

# A session that has the old server's tables locked, from here to the end.
coproc OLD { psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$from" 2>&1; }
old=$OLD_PID
exec {to_old}>&"${OLD[1]}" {from_old}<&"${OLD[0]}"

# Runs a command there, and waits for it.  Prints what it prints.
in_lock() {
	local line
	printf '%s;\n\\echo done\n' "$1" >&$to_old
	while IFS= read -r line <&$from_old; do
		[[ $line != *ERROR:* && $line != *FATAL:* ]] || fail "$line"
		[[ $line != "done" ]] || return 0
		echo "$line"
	done
	fail "the connection to the old server broke"
}

# It waits for us, without doing anything.
in_lock "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')" >/dev/null
in_lock "BEGIN"
pid=$(in_lock "SELECT pg_backend_pid()")
for table in "${tables[@]}"; do
	in_lock "LOCK TABLE $table"
done
begun=$SECONDS
# What was written before the lock is there ...
lsn=$(on "$from" <<<"SELECT pg_current_wal_insert_lsn()")
wait_until "the lag" "$from" <<<"SELECT bool_or(confirmed_flush_lsn >= '$lsn') FROM pg_replication_slots WHERE slot_name = '$name'"
on "$to" <<<"DROP SUBSCRIPTION $name"
rows=$(in_lock "SELECT count(*) FROM $schema.upload_session WHERE $moved")
there=$(on "$to" <<<"SELECT count(*) FROM $schema.upload_session")
[[ $rows == "$there" ]] || fail "the new server has $there sessions, the old one $rows"
# ... and is no longer here when the lock ends, for no server may show a session of another's.
for delete in "${deletes[@]}"; do
	in_lock "$delete"
done
on "$router" <<<"SELECT format('ALTER SERVER %I OPTIONS (%s)', :'server', string_agg(format('SET p%s %L', p, :'target'), ', ')) FROM unnest(string_to_array(:'partitions', ',')) AS p \gexec"
told_router=yes
# Calls that wait here, or that the router has sent here but that have not come yet, would not
# find their sessions.  Who has begun a transaction at the router before that may not have
# heard of it.
since=$(on "$router" <<<"SELECT clock_timestamp()")
begun_before="FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND xact_start <= '$since' AND pid <> pg_backend_pid()"
until [[ $(on "$router" <<<"SELECT count(*) $begun_before") == 0 ]]; do
	on "$router" <<<"SELECT count(pg_terminate_backend(pid)) $begun_before AND state LIKE 'idle in transaction%'" >/dev/null
	on "$from" <<<"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'client backend' AND $pid = ANY (pg_blocking_pids(pid))" >/dev/null
	sleep 0.02
done
in_lock "COMMIT"
echo "$rows sessions moved; the old server was locked for about $((SECONDS - begun)) s"

# --- clear up

echo '\q' >&$to_old
wait "$old" || true
old=
on "$from" <<<"$drop_publication"
on "$to" <<<"SELECT format('ALTER DATABASE %I RESET vali_blob.sweep', current_database()) \gexec"
