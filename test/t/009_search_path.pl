# Nothing in the caller's search_path can get between the extension and its
# objects: look-alikes of its tables and types, and of PostgreSQL's operators and
# functions, wait there to be called by mistake, ahead of pg_catalog or in the
# temporary schema.  An empty search_path is as good as any.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $node = upload_node('main');

$node->safe_psql(
	'postgres', q{
	CREATE ROLE client;
	SELECT grant_upload_access('client');
	CREATE SCHEMA trap AUTHORIZATION client;
	CREATE FUNCTION trap.spring() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;

	-- every operator and function of pg_catalog that could be of use, for its very types
	DO $$
	DECLARE
		types constant text[] := '{text, varchar, bigint, integer, boolean, name, oid, regclass,
			timestamptz, interval, jsonb, "text[]", "bigint[]", public.upload_status, public.chunk_outcome}';
		type text;
		other text;
		op text;
		f record;
	BEGIN
		FOREACH type IN ARRAY types LOOP
			FOREACH other IN ARRAY types LOOP
				EXECUTE format('CREATE FUNCTION trap.op(%s, %s) RETURNS boolean LANGUAGE sql
					AS ''SELECT trap.spring(); SELECT false''', type, other);
				FOREACH op IN ARRAY '{=,<>,<,<=,>,>=,+,-,*,/,||,~~,~,?,^@,->,->>}'::text[] LOOP
					EXECUTE format('CREATE OPERATOR trap.%s (FUNCTION = trap.op, LEFTARG = %s, RIGHTARG = %s)',
						op, type, other);
				END LOOP;
			END LOOP;
		END LOOP;

		FOR f IN
			SELECT DISTINCT ON (proname, proargtypes) proname,
				(SELECT coalesce(string_agg(format_type(t, NULL), ', '), '') FROM unnest(proargtypes) t) AS arguments,
				format_type(prorettype, NULL) AS result
			FROM pg_proc
			WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset
				AND prorettype NOT IN ('internal'::regtype, 'trigger'::regtype)
				AND NOT 'internal'::regtype = ANY (proargtypes)
				AND proname ~ '^(now|clock_timestamp|statement_timestamp|transaction_timestamp|timestamptz.*|interval.*|jsonb?_.*|starts_with|array_.*|cardinality|current_setting|set_config|gen_random_uuid|length|lower|left|substr.*|least|text.*|like.*|int8.*|int4.*|date_.*|quote_.*|format|pg_.*|has_.*|varchar|bpchar|lpad|repeat|concat.*|enum_.*)$'
				AND NOT (prorettype IN (2276, 2277, 2283, 3500, 3831, 2776) OR prorettype::regtype::text ~ '^any')
		LOOP
			BEGIN
				EXECUTE format('CREATE FUNCTION trap.%I(%s) RETURNS %s LANGUAGE plpgsql
					AS ''BEGIN RAISE $m$trapped$m$; END''', f.proname, f.arguments, f.result);
			EXCEPTION WHEN OTHERS THEN
				NULL;	-- an argument that PL/pgSQL cannot take
			END;
		END LOOP;
	END $$;

	CREATE TYPE trap.upload_status AS ENUM ('trapped');
	CREATE TYPE trap.chunk_outcome AS ENUM ('trapped');
	CREATE TYPE trap.chunk_result AS (trapped text);
	CREATE TABLE trap.upload_session (LIKE public.upload_session INCLUDING DEFAULTS);
	CREATE TABLE trap.upload_reclaim (LIKE public.upload_reclaim INCLUDING DEFAULTS);
	CREATE DOMAIN trap.int8 AS text;
	CREATE DOMAIN trap.text AS pg_catalog.int4;
	CREATE DOMAIN trap.jsonb AS pg_catalog.int4;
	CREATE DOMAIN trap.timestamptz AS pg_catalog.int4;
	CREATE DOMAIN trap.interval AS pg_catalog.int4;
	GRANT ALL ON ALL TABLES IN SCHEMA trap TO client;
});

cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM pg_proc WHERE pronamespace = 'trap'::regnamespace}),
	'>', 500, 'the traps are set');
is(sqlstate_of($node, q{SET search_path = trap, pg_catalog; SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text}),
	'P0001', 'and they work');

# All that a client does, with arguments whose types leave nothing to resolve
# in the caller's own query.
my $life = q{
	SELECT uploaded_bytes, total_size, status FROM public.start_upload('dir/file', '100', 'text/plain', '{"a": 1}',
		'{"part": 1}', 'ann', 'bucket', '1 hour', 'u');
	SELECT outcome, uploaded_bytes, ready FROM public.advance_upload('u', '0', '10', 'f', '{"etag": 1}', 'ann', 't');
	SELECT outcome, uploaded_bytes, ready FROM public.try_advance_upload('u', '5', '50');
	SELECT outcome, uploaded_bytes, ready FROM public.advance_uploads('{u,nobody,u}', '{10,0,20}', '{10,1,80}');
	SELECT metadata, provider_data FROM public.merge_upload_data('u', '{"a": null, "b": 2}', '{"part": null}', 'ann');
	SELECT total_size FROM public.declare_upload_size('u', '100', 'ann');
	SELECT upload_id, status FROM public.get_upload('u', 'ann');
	SELECT upload_id, status FROM public.get_uploads('{u,nobody,u}', 'ann');
	SELECT upload_id, status FROM public.list_uploads('ann', 'dir/', 'in_progress', '0 s', '10', '1000');
	SELECT status, result FROM public.complete_upload('u', '{"etag": "e"}', 'ann');
	SELECT public.delete_upload('u', 'ann');
	SELECT status FROM public.start_upload('dir/file', provider_data => '{"part": 1}', upload_id => 'v');
	SELECT status, abort_reason FROM public.abort_upload('v', 'reason');
	SELECT * FROM public.sweep_uploads('10');
	SELECT upload_id, attempts FROM public.claim_reclaims('10', '1 hour');
	SELECT public.fail_reclaim(:'row', 'no');
	SELECT public.finish_reclaim(:'row');
	SELECT public.delete_upload('v');
};
my $expected = join "\n",
  '0|100|pending', 'advanced|10|f', 'conflict|10|f',
  'advanced|20|f', 'not_found||f', 'advanced|100|t',
  '{"b": 2}|{"etag": 1}', '100', 'u|in_progress',
  'u|in_progress', 'u|in_progress', 'u|in_progress',
  'complete|{"etag": "e"}', 't', 'pending', 'aborted|reason', '0|0|0',
  'v|0', 't', 't', 't';
my $row = 0;

foreach my $path ('trap, pg_catalog, public', 'trap', '', 'pg_temp, trap, pg_catalog')
{
	$row++;
	is( $node->safe_psql(
			'postgres', qq{
			\\set row $row
			SET ROLE client;
			CREATE TEMP TABLE upload_session (trapped pg_catalog.text);
			CREATE TEMP TABLE upload_reclaim (trapped pg_catalog.text);
			SET search_path = $path;
			$life
		} =~ s/= ;/= '';/r),
		$expected,
		"search_path = $path");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM trap.upload_session'),
	0, 'nothing went to the look-alikes');

is( sqlstate_of(
		$node, q{
		SET search_path = trap, pg_catalog;
		SELECT public.revoke_upload_access('client');
		SELECT public.grant_upload_access('client');
		SET ROLE client;
		SELECT public.get_upload('u');
	}),
	'00000', 'grants are safe, too');

# A function that pins its own search_path, called with any.
$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION chunk(bigint) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
	BEGIN
		RETURN (public.try_advance_upload('w', $1, 10)).outcome;
	END $$;
	SELECT start_upload('file', upload_id => 'w');
	ALTER FUNCTION chunk OWNER TO client;
});
is( $node->safe_psql(
		'postgres', q{
		SELECT outcome FROM try_advance_upload('w', 0, 10);
		SELECT chunk(10);
		SET search_path = trap, pg_catalog;
		SELECT public.chunk('20');
		RESET search_path;
		SELECT outcome FROM try_advance_upload('w', 30, 10);
	}),
	join("\n", ('advanced') x 4),
	'a function with an empty search_path');

# Planning evaluates what the owner has in an index, for upload_stats as that owner.
$node->safe_psql(
	'postgres', q{
	CREATE ROLE monitor;
	GRANT pg_monitor TO monitor;
	CREATE SCHEMA look_alike AUTHORIZATION monitor;
	CREATE FUNCTION plain(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT replace($1, lower('ABC'), '')$$;
	CREATE INDEX plain ON upload_session (plain(path));
	SET ROLE monitor;
	CREATE FUNCTION look_alike.who() RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		IF current_user <> 'monitor' THEN
			RAISE 'called as %', current_user;
		END IF;
		RETURN 'x';
	END $$;
	CREATE FUNCTION look_alike.lower(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
		$$ BEGIN RETURN look_alike.who(); END $$;
});
is_deeply(
	[ sqlstates_of($node, 'postgres', 'SET ROLE monitor', 'SET search_path = look_alike, pg_catalog',
		'SELECT sum(sessions) FROM public.upload_stats') ],
	[ '00000', '00000' ],
	'upload_stats runs nothing of the caller as the owner');

# Whose table it is, is judged once it is locked: it may have been swapped.
my $swap = $node->background_psql('postgres');
my $stats = $node->background_psql('postgres', on_error_stop => 0);
$node->safe_psql('postgres', q{
	CREATE ROLE bob;
	CREATE SCHEMA of_bob AUTHORIZATION bob;
	SET ROLE bob;
	CREATE FUNCTION of_bob.who() RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		IF current_user <> 'bob' THEN
			RAISE 'called as %', current_user USING ERRCODE = 'P0004';
		END IF;
		RETURN 'x';
	END $$;
	CREATE FUNCTION of_bob.f(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN of_bob.who(); END $$;
});
$swap->query_safe(q{
	BEGIN;
	ALTER EXTENSION vali_blob DROP TABLE upload_session;
	ALTER TABLE upload_session RENAME TO old_session;
	CREATE TABLE upload_session (LIKE old_session INCLUDING DEFAULTS);
	GRANT CREATE ON SCHEMA public TO bob;
	ALTER TABLE upload_session OWNER TO bob;
	SET ROLE bob;
	CREATE INDEX ON upload_session ((of_bob.f('x')));
	RESET ROLE});
$stats->query_until(qr/asked/, "\\echo asked\nSELECT sum(sessions) FROM upload_stats;\n\\echo :SQLSTATE\n");
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_locks WHERE NOT granted});
$swap->query_safe('COMMIT');
is($stats->query('SELECT 1'), "42501\n1", 'upload_stats runs nothing of whom the table belongs to by now');
$stats->quit;

# Nor does it look for a table that is gone.
$swap->query_safe('SET client_min_messages = warning; BEGIN; DROP EXTENSION vali_blob CASCADE');
$stats = $node->background_psql('postgres', on_error_stop => 0);
$stats->query_until(qr/asked/, "\\echo asked\nSELECT count(*) FROM read_upload_stats();\n\\echo :SQLSTATE\n");
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_locks WHERE NOT granted});
$swap->query_safe('COMMIT');
isnt($stats->query('SELECT 1'), "XX000\n1", 'an extension that was dropped meanwhile is no internal error');
$stats->quit;
$swap->quit;

done_testing();
