#!/usr/bin/env bash
# What a call costs through a router (contrib/vali_blob_router.sql), beside a direct one.
#
#     bench/router.sh [ROUNDS]
#
# Runs on a server of its own, which has vali_blob and plproxy and whose sockets are in PGHOST.
# Prints for each round: synchronous_commit, clients, kind of call, calls a second directly
# and through the router.  The databases stay.

set -euo pipefail
cd "$(dirname "$0")/.."
export PGDATABASE=postgres
rounds=${1-3}

# set_up: three shards and a router
set_up() {
	local shard
	psql -Xqc "CREATE ROLE app LOGIN; ALTER ROLE app SET client_min_messages = error"
	for shard in s0 s1 s2; do
		createdb $shard
		psql -Xq -o /dev/null -c "CREATE SCHEMA vb; CREATE EXTENSION vali_blob SCHEMA vb; SELECT vb.grant_upload_access('app');
			GRANT USAGE ON SCHEMA vb TO app" $shard
	done
	createdb router
	psql -Xq -c "CREATE SCHEMA vb; CREATE EXTENSION vali_blob SCHEMA vb; CREATE EXTENSION plproxy;
		CREATE SERVER uploads FOREIGN DATA WRAPPER plproxy OPTIONS (modular_mapping '1',
			p0 'dbname=s0 host=$PGHOST', p1 'dbname=s1 host=$PGHOST', p2 'dbname=s2 host=$PGHOST')" router
	psql -Xq -o /dev/null -f contrib/vali_blob_router.sql router
	psql -Xq -c "GRANT USAGE ON SCHEMA api, vb TO app; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA api TO app;
		GRANT USAGE ON FOREIGN SERVER uploads TO app; CREATE USER MAPPING FOR app SERVER uploads OPTIONS (user 'app')" router
	psql -Xq -U app -o /dev/null -c "SELECT count(api.start_upload('f', upload_id => 'u' || n)) FROM generate_series(1, 2400) AS n" router
	psql -Xq -U app -o /dev/null -c "SELECT count(vb.start_upload('f', upload_id => 'u' || n)) FROM generate_series(1, 2400) AS n
		WHERE NOT EXISTS (SELECT FROM vb.upload_session WHERE upload_id = 'u' || n)" s0
}

# script SCHEMA KIND
script() {
	echo '\set i :client_id * 300 + random(1, 200)'
	case $2 in
		one) echo "SELECT outcome FROM $1.try_advance_upload('u' || :i, 0, 0);" ;;
		batch)
			echo "SELECT count(*) FROM $1.advance_uploads((SELECT array_agg('u' || :i + k) FROM generate_series(0, 99) AS k),"
			echo "array_fill(0::bigint, '{100}'), array_fill(0::bigint, '{100}'));"
			;;
		outcome) echo "SELECT outcome FROM $1.try_advance_upload('u' || :i, 10, 10);" ;;
		raised)
			# shellcheck disable=SC2016 # a quoted string of SQL
			printf 'DO $$BEGIN PERFORM %s.advance_upload(%s, 10, 10); EXCEPTION WHEN SQLSTATE %s THEN NULL; END$$;\n' "$1" "'u' || :i" "'VB002'"
			;;
	esac
}

# calls DATABASE SCHEMA KIND CLIENTS
calls() {
	local mode=prepared
	[[ $3 != raised ]] || mode=simple
	pgbench -n -M $mode -U app -f <(script "$2" "$3") -c "$4" -j 2 -T 3 "$1" 2>/dev/null | sed -n 's/^tps = \([0-9.]*\).*/\1/p'
}

set_up
for ((round = 0; round < rounds; ++round)); do
	for sync in on off; do
		for shard in s0 s1 s2; do
			psql -Xqc "ALTER DATABASE $shard SET synchronous_commit = $sync"
		done
		for clients in 1 8; do
			for kind in one batch; do
				echo "$sync $clients $kind $(calls s0 vb $kind $clients) $(calls router api $kind $clients)"
			done
		done
	done
	for kind in outcome raised; do
		echo "- 1 $kind $(calls s0 vb $kind 1) $(calls router api $kind 1)"
	done
done
