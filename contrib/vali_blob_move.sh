#!/usr/bin/env bash
# contrib/vali_blob_move.sh
#
# Moves partitions of a router (vali_blob_router.sql) to a new server, while uploads go on.
# See "Adding a server" in the manual.
#
#     vali_blob_move.sh --router CONNECTION --server NAME --partitions 3[,5...]
#         --from CONNECTION --to CONNECTION [--source CONNECTION] [--target CONNECTION]
#         [--lock-within SECONDS] [--locked-for SECONDS] [--grace SECONDS]
#
# CONNECTION is a connection string of libpq.  --router, --from and --to are those that this
# script uses, of a superuser; --source is the one by which the new server reaches the old one
# (else --from), --target the partition that the router gets (else --to), which names no user.
# --lock-within: how long to try to lock the old server's tables (600); --locked-for: how long
# they may be locked until the router is told, else nothing is moved (60); --grace: how long
# transactions at the router that have begun before may go on then (5).

set -euo pipefail

usage() {
	sed -n 's/^#  *\(vali_blob_move.sh .*\|  [-[]-.*\)/\1/p' "$0" >&2
	exit 2
}

fail() {
	echo "vali_blob_move.sh: $*" >&2
	exit 1
}

router='' server=uploads partitions='' from='' to='' source='' target='' lock_within=600 locked_for=60 grace=5
while (($# > 0)); do
	case $1 in
		--router | --server | --partitions | --from | --to | --source | --target | --lock-within | --locked-for | --grace)
			(($# > 1)) || usage
			option=${1#--}
			printf -v "${option//-/_}" %s "$2"
			shift 2
			;;
		*) usage ;;
	esac
done
[[ -n $router && -n $from && -n $to && $partitions =~ ^[0-9]+(,[0-9]+)*$ && $lock_within$locked_for$grace =~ ^[0-9]+$ ]] || usage
# PL/Proxy adds to a partition's connection string the user that a role is mapped to, unless
# there is one: then every role is that one.
[[ -n $target || ! $to =~ (user|password|passfile)' '*= ]] || fail "--to names a user; say with --target by which string the router reaches that database"
: "${source:=$from}" "${target:=$to}"
[[ $target != *://* ]] || fail "PL/Proxy cannot add a user to the URI \"$target\"; write it as keywords and values"
export PGAPPNAME=vali_blob_move

# on CONNECTION: runs the commands on standard input, with the variables below.
on() {
	psql -X -q -A -t -v ON_ERROR_STOP=1 -v server="$server" -v partitions="$partitions" -v target="$target" \
		-v source="$source" -v schema="${schema-}" -v moved="${moved-}" "${@:2}" -d "$1"
}

# wait_until SENTENCE CONNECTION [SECONDS]: waits until the query on standard input says true.
wait_until() {
	local query answer begun=$SECONDS
	query=$(cat)
	while :; do
		# Its failure must be ours: where this function is part of a condition, set -e is not in force.
		answer=$(on "$2" <<<"$query") || fail "could not wait for $1"
		[[ $answer != t ]] || return 0
		[[ -z ${old-} ]] || kill -0 "$old" 2>/dev/null || fail "the connection to the old server broke while waiting for $1"
		[[ -z ${subscribed-} ]] || follows
		((SECONDS - begun < ${3-1000000000})) || fail "waited for $1 for $3 s"
		sleep 0.1
	done
}

# Fails if the new server has met errors again and again: it would try for ever.
follows() {
	local errors
	errors=$(on "$to" <<<"SELECT coalesce(sum(sync_error_count + apply_error_count), 0) FROM pg_stat_subscription_stats WHERE subname = '$name'") ||
		fail "could not look at the new server"
	((errors < 3)) || fail "the new server cannot take the rows over: see its log"
}

# --- what must be so

# same SENTENCE QUERY: both servers give the same answer, which must be so.
same() {
	local old_one new_one
	old_one=$(on "$from" <<<"$2")
	new_one=$(on "$to" <<<"$2")
	[[ $old_one == "$new_one" ]] || fail "$1 differ: on the old server $old_one, on the new one $new_one"
}

encoding="SELECT current_setting('server_encoding')"
same "the encodings" "$encoding"
[[ $(on "$router" <<<"$encoding") == "$(on "$from" <<<"$encoding")" ]] || fail "the encoding of the router is another one; its hash of an id is not theirs"
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
same "the versions of vali_blob" "SELECT extversion FROM pg_extension WHERE extname = 'vali_blob'"
tables=("$schema".upload_{session,part,reclaim,live})
in_literal=${schema//\'/\'\'}
# The same as an array in SQL, and that of the limits with them
printf -v relations ", '$in_literal.upload_%s'" session part reclaim live quota
relations="ARRAY[${relations#, }]::regclass[]"
for connection in "$from" "$to"; do
	[[ $(on "$connection" <<<"SELECT bool_and(relkind = 'r') FROM pg_class WHERE oid = ANY ($relations)") == t ]] ||
		fail "a table of vali_blob is partitioned; such a table cannot be moved"
done
same "the columns of the tables" "SET search_path = pg_catalog; SELECT string_agg(format('%s.%I %s', relname, attname, format_type(atttypid, atttypmod)), ', ' ORDER BY relname, attname)
	FROM pg_class AS c JOIN pg_attribute ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped WHERE c.oid = ANY ($relations)"
# What is moved has to live by the same rules there: the queue by its retention, above all.
same "the settings" "LOAD 'vali_blob'; SELECT string_agg(name || ' = ' || setting, ', ' ORDER BY name) FROM pg_settings
	WHERE name LIKE 'vali_blob.%' AND name NOT IN ('vali_blob.node', 'vali_blob.sweep', 'vali_blob.sweep_interval', 'vali_blob.sweep_batch_size') AND setting <> boot_val"
same "the policies" "SELECT concat_ws(', ', (SELECT string_agg(relname || CASE WHEN relforcerowsecurity THEN ' forced' ELSE '' END, ', ' ORDER BY relname) FROM pg_class WHERE oid = ANY ($relations) AND relrowsecurity),
	(SELECT string_agg(concat_ws(' ', policyname, 'on', tablename, permissive, cmd, roles, qual, with_check), ', ' ORDER BY tablename, policyname) FROM pg_policies WHERE quote_ident(schemaname) = '$in_literal'))"
[[ $(on "$to" <<<"LOAD 'vali_blob'; SELECT current_setting('vali_blob.sweep')") == on ]] || fail "vali_blob.sweep is off on the new server, so that nothing would expire there"
foreign_keys=$(on "$from" <<<"SELECT string_agg(format('%I of %s', conname, conrelid::regclass), ', ') FROM pg_constraint WHERE contype = 'f' AND confrelid = ANY ($relations) AND conrelid <> ALL ($relations)")
[[ -z $foreign_keys ]] || fail "other tables of the old server reference the sessions ($foreign_keys); drop these foreign keys first"
[[ $(on "$from" <<<"SELECT current_setting('wal_level')") == logical ]] || fail "the old server does not have wal_level = logical"
# Plain ids of the old server would meet those of the new one.
old_node=$(on "$from" <<<"LOAD 'vali_blob'; SELECT current_setting('vali_blob.node')")
[[ $old_node != 0 ]] || fail "the old server has no vali_blob.node; set it as \"Adding a server\" in the manual says"
new_node=$(on "$to" <<<"LOAD 'vali_blob'; SELECT current_setting('vali_blob.node')")
[[ $new_node != 0 && $new_node != "$old_node" ]] || fail "the new server does not have a vali_blob.node of its own"
[[ $(on "$to" <<<"SELECT EXISTS (SELECT FROM $schema.upload_session) OR EXISTS (SELECT FROM $schema.upload_reclaim)") == f ]] ||
	fail "the new server has sessions already"

# What a client meets in a partition, and in that of the new server when the router has it

this_database="SELECT system_identifier || ' ' || (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) FROM pg_catalog.pg_control_system()"
this_node="SELECT COALESCE(pg_catalog.current_setting('vali_blob.node', true), '0')"
callable="SELECT pg_catalog.string_agg(proname, ' ' ORDER BY proname) FROM pg_catalog.pg_proc JOIN pg_catalog.pg_namespace AS n ON n.oid = pronamespace
	WHERE pg_catalog.quote_ident(nspname) = '$in_literal' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_function_privilege(pg_proc.oid, 'EXECUTE')"

# ask CLIENT QUERY PARTITION [TARGET]: what a role is answered in a partition, or would be if that were TARGET.
ask() {
	on "$router" -v client="$1" -v query="$2" -v partition="$3" -v new_target="${4-}" <<-'END'
		BEGIN;
		SELECT format('ALTER SERVER %I OPTIONS (SET p%s %L)', :'server', :'partition', :'new_target') WHERE :'new_target' <> '' \gexec
		SELECT format('CREATE FUNCTION pg_temp.ask() RETURNS SETOF text LANGUAGE plproxy AS %L', format('CLUSTER %L; RUN ON %s; %s;', :'server', :'partition', :'query')) \gexec
		SET LOCAL SESSION AUTHORIZATION :"client";
		SELECT pg_temp.ask();
		ROLLBACK;
	END
}

# The role of a mapping for all is the one that runs this script.
clients=$(on "$router" <<<"SELECT DISTINCT CASE umuser WHEN 0 THEN current_user ELSE usename END FROM pg_user_mappings WHERE srvname = :'server' AND (umuser = 0 OR has_server_privilege(umuser, srvid, 'USAGE')) ORDER BY 1")
[[ -n $clients ]] || fail "no role may use the server \"$server\" and is mapped to a user there"
old_database=$(on "$from" <<<"$this_database")
new_database=$(on "$to" <<<"$this_database")
while IFS= read -r client; do
	[[ $(ask "$client" "$this_database" "${partitions%%,*}") == "$old_database" ]] || fail "partition ${partitions%%,*} is not in the database of --from, as role \"$client\" sees it"
	[[ $(ask "$client" "$this_database" "${partitions%%,*}" "$target") == "$new_database" ]] || fail "\"$target\" does not lead role \"$client\" to the database of --to"
	old_one=$(ask "$client" "$callable" "${partitions%%,*}")
	new_one=$(ask "$client" "$callable" "${partitions%%,*}" "$target")
	[[ $old_one == "$new_one" ]] || fail "the functions that role \"$client\" may call differ: on the old server $old_one, on the new one $new_one"
done <<<"$clients"
for partition in $(on "$router" <<<"SELECT min(substr(option_name, 2)::integer) FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = :'server' AND option_name ~ '^p\d+\$' GROUP BY option_value"); do
	node=$(ask "${clients%%$'\n'*}" "$this_node" "$partition")
	[[ $node != "$new_node" ]] || fail "the server of partition $partition has vali_blob.node = $new_node, too"
done

# --- copy, and follow

# Sessions whose id the router maps to these partitions
moved="abs(pg_catalog.hashtext(upload_id::text) % $count) IN ($partitions)"
name=vali_blob_move_${partitions//,/_}
# What the old server has no longer then.  They are not deleted but moved: no trigger fires,
# so that the parts, too, go by name.
deletes=("SET LOCAL session_replication_role = replica")
for table in upload_{live,reclaim,part,session}; do
	deletes+=("DELETE FROM $schema.$table WHERE $moved")
done
drop_publication="DROP PUBLICATION IF EXISTS $name"
reset_sweep="$(on "$to" <<<"SELECT format('ALTER DATABASE %I RESET vali_blob.sweep', current_database())")"
told_router=

# Does the router know of the new server?  What this script has sent it before has ended then.
router_knows() {
	on "$router" <<<"SELECT count(pg_terminate_backend(pid, 10000)) >= 0 AND (SELECT count(*) > 0 FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE srvname = :'server' AND option_value = :'target')
		FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'vali_blob_move' AND pid <> pg_backend_pid()"
}

# However the script ends: says what is so, and what is left to do.
give_up() {
	trap '' INT TERM HUP
	[[ -z ${finished-} ]] || return 0
	[[ -z ${old-} ]] || kill "$old" 2>/dev/null || true
	[[ -z ${behind-} ]] || kill "$behind" 2>/dev/null || true
	{
		if [[ -n $told_router ]]; then
			told_router=$(router_knows) || told_router=unknown
		fi
		if [[ $told_router == unknown ]]; then
			echo "vali_blob_move.sh: the router does not answer; if it has \"$target\" as a partition, the first holds, else the second:"
		fi
		if [[ $told_router == t || $told_router == unknown ]]; then
			echo "vali_blob_move.sh: moved, as the router knows; to end it, run on the old server"
			printf '    %s;\n' BEGIN "${deletes[@]}" COMMIT "$drop_publication"
			printf 'and on the new one\n    %s;\n' "$reset_sweep"
		fi
		if [[ $told_router != t ]]; then
			echo "vali_blob_move.sh: not moved; to begin again, run on the new server"
			printf '    %s;\n' "DROP SUBSCRIPTION IF EXISTS $name" "TRUNCATE $(printf '%s, ' "${tables[@]}")$schema.upload_quota" "$reset_sweep"
			printf 'and on the old one\n    %s;\n' "$drop_publication"
		fi
	} >&2
}
trap give_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

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
on "$to" <<<"SELECT format('CREATE SUBSCRIPTION %I CONNECTION %L PUBLICATION %I', '$name', :'source', '$name') \gexec"
subscribed=yes
echo "copying"
wait_until "the copy" "$to" <<<"SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel JOIN pg_subscription AS s ON s.oid = srsubid WHERE subname = '$name'"

# Waits until the new server has all that was committed on the old one, for [SECONDS].
catch_up() {
	local lsn
	lsn=$(on "$from" <<<"SELECT pg_current_wal_insert_lsn()")
	wait_until "the lag" "$from" "$@" <<<"SELECT bool_or(confirmed_flush_lsn >= '$lsn') FROM pg_replication_slots WHERE slot_name = '$name'"
}
catch_up

# --- switch

# What is asked here need not be asked while calls wait.
columns=$(on "$from" <<<"SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid = '$in_literal.upload_quota'::regclass AND attnum > 0 AND NOT attisdropped")
numbered="ARRAY['$in_literal.upload_session', '$in_literal.upload_reclaim']"

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

# Tries to lock the tables there.  Calls wait behind it, so it does not wait for long.
lock_tables() {
	local answer
	begun=$SECONDS
	in_lock "BEGIN"
	in_lock "DO \$\$ BEGIN
			-- in a deadlock with a call, this gives way: it waits for less than the second after which a call looks for one
			SET LOCAL lock_timeout = '500ms';
			SET LOCAL deadlock_timeout = '10ms';
			LOCK TABLE $(IFS=,; echo "${tables[*]}");
			LOCK TABLE $schema.upload_quota IN EXCLUSIVE MODE;
		EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
		END \$\$"
	answer=$(in_lock "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = '$in_literal.upload_quota'::regclass AND mode = 'ExclusiveLock'") || fail "$answer"
	[[ $answer == 0 ]] || return 0
	in_lock "ROLLBACK"
	return 1
}

# A session that waits without doing anything, and whose commands may take their time
no_timeouts="SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
	WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_session_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')"
in_lock "$no_timeouts" >/dev/null
pid=$(in_lock "SELECT pg_backend_pid()")
tried=$SECONDS
until lock_tables; do
	((SECONDS - tried < lock_within)) || fail "the old server's tables could not be locked for $lock_within s; look for long transactions there"
	sleep 3
done

# The seconds that the lock may last until the router is told
remaining() {
	local seconds=$((locked_for - SECONDS + begun))
	echo $((seconds > 0 ? seconds : 1))
}
# What was written before the lock is there ...
catch_up "$(remaining)"
on "$to" <<<"DROP SUBSCRIPTION $name"
subscribed=
in_lock "SET LOCAL statement_timeout = '$(remaining)s'"
rows=$(in_lock "SELECT count(*) FROM $schema.upload_session WHERE $moved")
there=$(on "$to" <<<"SELECT count(*) FROM $schema.upload_session")
[[ $rows == "$there" ]] || fail "the new server has $there sessions, the old one $rows"
# New ids begin above those that came: plain ones that the old server gave before it had a
# vali_blob.node are not given again, and listings, which go by id, stay in the order of time.
values=$(on "$from" <<<"SELECT format('(%L, %s)', t, coalesce(pg_sequence_last_value(pg_get_serial_sequence(t, 'id')::regclass), 1)) FROM unnest($numbered) AS t")
on "$to" -o /dev/null <<<"SELECT setval(s, greatest(last, pg_sequence_last_value(s))) FROM (VALUES ${values//$'\n'/, }) AS t (name, last), CAST(pg_get_serial_sequence(name, 'id') AS regclass) AS s"
# The limits of owners hold on each server.
on "$from" <<<"COPY $schema.upload_quota ($columns) TO STDOUT" |
	on "$to" -1 -c "DELETE FROM $schema.upload_quota" -c "COPY $schema.upload_quota ($columns) FROM STDIN"
# ... and is no longer here when the lock ends, for no server may show a session of another's.
for command in "${deletes[@]}"; do
	in_lock "SET LOCAL statement_timeout = '$(remaining)s'"
	in_lock "$command"
done
in_lock "SET LOCAL statement_timeout = 0"

# Who comes to the lock before the deletion is committed may see the rows still once it is.
# So this one waits first in the row, and has the lock next: it cuts off all who were there
# before, with what the router may have sent before it was told and nobody waits for.
psql -X -q -v ON_ERROR_STOP=1 -d "$from" >/dev/null <<<"
	$no_timeouts;
	BEGIN;
	LOCK TABLE $schema.upload_session;
	DO \$\$
	DECLARE
		since timestamptz := clock_timestamp();
	BEGIN
		LOOP
			PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND backend_type = 'client backend' AND backend_start <= since AND application_name <> 'vali_blob_move';
			EXIT WHEN NOT FOUND;
			PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
		END LOOP;
	END \$\$;
	COMMIT;" &
behind=$!
waiting="FROM pg_stat_activity WHERE backend_type = 'client backend' AND $pid = ANY (pg_blocking_pids(pid)) AND application_name"
wait_until "its turn" "$from" "$(remaining)" <<<"SELECT count(*) > 0 $waiting = 'vali_blob_move'"
queued=$(on "$from" <<<"SELECT clock_timestamp()")

# Cuts off the calls that wait for the lock.  Prints how many may be before us in the row.
cut_off() {
	on "$from" <<<"SELECT count(*) FILTER (WHERE xact_start <= '$queued') FROM (SELECT xact_start, pg_terminate_backend(pid) $waiting <> 'vali_blob_move') AS t"
}

told_router=perhaps
on "$router" <<<"SET lock_timeout = '10s';
	SELECT format('ALTER SERVER %I OPTIONS (%s)', :'server', string_agg(format('SET p%s %L', p, :'target'), ', ')) FROM unnest(string_to_array(:'partitions', ',')) AS p \gexec"
# Who has begun a transaction at the router before that may not have heard of it.
told=$SECONDS
since=$(on "$router" <<<"SELECT clock_timestamp()")
begun_before="FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND xact_start <= '$since' AND pid <> pg_backend_pid()"
left=1
while ((left > 0)); do
	cut_off >/dev/null
	impatient=$((SECONDS - told >= grace))
	on "$router" <<<"SELECT count(pg_terminate_backend(pid)) $begun_before AND ($impatient = 1 OR state LIKE 'idle in transaction%')" >/dev/null
	left=$(on "$router" <<<"SELECT count(*) $begun_before")
done
left=1
while ((left > 0)); do
	left=$(cut_off)
done
in_lock "COMMIT"
wait "$behind"
behind=
echo "$rows sessions moved; the old server was locked for about $((SECONDS - begun)) s"

# --- clear up

echo '\q' >&$to_old
wait "$old" || true
old=
on "$from" <<<"$drop_publication"
on "$to" <<<"$reset_sweep"
finished=yes
