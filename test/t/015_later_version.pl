# What a later version may append to the extension's objects is not in the way of
# this library, neither in a session that has loaded it before nor in a new one:
# enum labels, columns, attributes of chunk_result, arguments.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $node = upload_node('main', conf => 'vali_blob.sweep = off');
my %functions = extension_functions($node);

# Every function once, all but start_sweeper() with an answer that is the same
# each time.  What a client reads it names.
my @steps = (
	upload_life(),
	[ q{SELECT any_order FROM start_upload('dir/any', 20, upload_id => 'a', any_order => true)}, 't' ],
	[ q{SELECT outcome, uploaded_bytes FROM advance_upload('a', 10, 10, etag => 'e')}, 'advanced|10' ],
	[ q{SELECT outcome FROM try_advance_upload('a', 10, 10, etag => 'f')}, 'replaced' ],
	[ q{SELECT chunk_offset, etag FROM list_parts('a')}, '10|f' ],
	[ q{SELECT chunk_offset, chunk_length FROM missing_ranges('a')}, '0|10' ],
	[ q{SELECT held, epoch, uploaded_bytes FROM acquire_upload_lease('a', 'server')}, 't|1|10' ],
	[ q{SELECT outcome FROM try_advance_upload('a', 0, 10)}, 'fenced' ],
	[ q{SELECT held, requested FROM renew_upload_lease('a', 1)}, 't|f' ],
	[ q{SELECT held, holder FROM release_upload_lease('a', 1)}, 'f|' ],
	[ q{SELECT delete_upload('a')}, 't' ],
	[ q{SELECT max_live_uploads, max_live_bytes FROM set_upload_quota('bob', 1)}, '1|' ],
	[ q{SELECT status FROM start_upload('dir/limited', 0, owner => 'bob', upload_id => 'b', partial => true)}, 'pending' ],
	[ q{SELECT live_uploads, live_bytes, confirmed_bytes, max_live_uploads, max_live_bytes FROM upload_usage('bob')}, '1|0|0|1|' ],
	[ q{SELECT status, concatenated_from FROM concatenate_uploads('dir/whole', '{b}', 'c')}, 'complete|["b"]' ],
	[ q{SELECT delete_upload('b'), delete_upload('c')}, 't|t' ],
	[ q{SELECT finish_reclaim(id) FROM upload_reclaim}, 't' ],
	reclaim_life(),
	[ q{SELECT status, sessions, reclaim_backlog FROM upload_stats WHERE sessions > 0 ORDER BY status}, "aborted|1|0\nexpired|1|0" ],
	[ q{SELECT running FROM sweeper_status()}, 't' ],
	[ q{SELECT count(*) > 4 FROM read_upload_stats()}, 't' ],
	[ q{SELECT grant_upload_access('client'), revoke_upload_access('client')}, '|' ],
	[ q{SELECT delete_upload(upload_id) FROM upload_session}, "t\nt" ]);
my @life = statements(@steps);
my $expected = answers(@steps);

foreach my $function (sort keys %functions)
{
	ok($function eq 'start_sweeper' || grep({ /\b$function\(/ } @life), "$function is among the calls");
}

# A session of before, for each way to the rows.
my %old = map { $_ => $node->background_psql('postgres') } 'sql', 'auto';
$node->safe_psql('postgres', 'CREATE ROLE client; SELECT start_sweeper()');
foreach my $way (sort keys %old)
{
	$old{$way}->query_safe("SET vali_blob.row_access = $way");
	is(answer($old{$way}, join(';', @life)), $expected, "before, row_access = $way");
}

# Run the calls in all sessions, and in new ones.
sub lives
{
	my ($test_name) = @_;

	foreach my $way (sort keys %old)
	{
		is(answer($old{$way}, join(';', @life)), $expected, "$test_name: a session of before, row_access = $way");
		is($node->safe_psql('postgres', join(';', "SET vali_blob.row_access = $way", @life)),
			$expected, "$test_name: a new session, row_access = $way");
	}
	return;
}

# --- columns, labels, attributes

foreach (
	[ 'columns' => q{
		ALTER TABLE upload_session ADD later_flag boolean NOT NULL DEFAULT false, ADD later timestamptz, ADD gone text;
		ALTER TABLE upload_reclaim ADD later jsonb, ADD gone text} ],
	[ 'columns that were dropped' => q{
		ALTER TABLE upload_session DROP gone;
		ALTER TABLE upload_reclaim DROP gone} ],
	[ 'labels' => q{
		ALTER TYPE upload_status ADD VALUE 'paused' BEFORE 'complete';
		ALTER TYPE chunk_outcome ADD VALUE 'later';
		ALTER TYPE chunk_outcome ADD VALUE 'stopped' BEFORE 'advanced'} ],
	[ 'attributes' => q{
		ALTER TYPE chunk_result ADD ATTRIBUTE part integer, ADD ATTRIBUTE gone text;
		ALTER TYPE upload_lease ADD ATTRIBUTE later integer, ADD ATTRIBUTE gone text} ],
	[ 'attributes that were dropped' => q{
		ALTER TYPE chunk_result DROP ATTRIBUTE gone;
		ALTER TYPE upload_lease DROP ATTRIBUTE gone} ],
	[ 'another table with a foreign key' => q{
		CREATE TABLE upload_later (upload_id varchar REFERENCES upload_session (upload_id) ON DELETE CASCADE)} ])
{
	my ($test_name, $commands) = @$_;

	$node->safe_psql('postgres', $commands);
	lives($test_name);
}
is($node->safe_psql('postgres', q{SELECT (r).part IS NULL FROM (SELECT advance_upload((start_upload('file')).upload_id, 0, 1) AS r) AS call}),
	't', 'an attribute that is not known is null');

# --- a status that this library does not know

$node->safe_psql('postgres', q{
	DELETE FROM upload_session;
	INSERT INTO upload_session (upload_id, path, status, expires_at, provider_data)
	VALUES ('p', 'file', 'paused', '-infinity', '{"part": 1}')});
foreach my $way ('sql', 'auto')
{
	my $setup = "SET vali_blob.row_access = $way";
	is( $node->safe_psql(
			'postgres', qq{
			$setup;
			SELECT status FROM get_upload('p');
			SELECT upload_id FROM list_uploads(status => 'paused');
			SELECT count(*) FROM list_uploads(status => 'expired');
			SELECT outcome, status, ready FROM try_advance_upload('p', 0, 1);
			SELECT * FROM sweep_uploads();
		}),
		join("\n", 'paused', 'p', 0, 'ended|paused|f', '0|0|0'),
		"a session of another status is shown, and left alone, row_access = $way");
	is_deeply(
		[
			sqlstates_of(
				$node, 'postgres', $setup,
				map { "SELECT $_" } q{advance_upload('p', 0, 1)}, q{declare_upload_size('p', 1)}, q{merge_upload_data('p')},
				q{complete_upload('p')}, q{abort_upload('p')}, q{delete_upload('p')})
		],
		[ ('VB003') x 6 ],
		"nothing changes it, row_access = $way");
}
is($node->safe_psql('postgres', 'SELECT upload_id, status FROM upload_session'), 'p|paused', 'it is still there');
$node->safe_psql('postgres', 'DELETE FROM upload_session');

# --- rules that this library does not know

$node->safe_psql('postgres', 'ALTER TABLE upload_session ADD IF NOT EXISTS rules_version bigint');
lives('a column for the rules');
$node->safe_psql('postgres', q{
	DELETE FROM upload_session;
	INSERT INTO upload_session (upload_id, path, status, uploaded_bytes, total_size, expires_at, provider_data, rules_version)
	VALUES ('live', 'file', 'in_progress', 10, 10, 'infinity', '{"part": 1}', 1000),
		('overdue', 'file', 'in_progress', 5, 10, '-infinity', '{"part": 1}', 1000),
		('complete', 'file', 'complete', 10, 10, '-infinity', '{}', 1000),
		('aborted', 'file', 'aborted', 5, 10, '-infinity', '{}', 1000)});
foreach my $way ('sql', 'auto')
{
	my $setup = "SET vali_blob.row_access = $way";
	is( $node->safe_psql(
			'postgres', qq{
			$setup;
			SELECT id.*, s.status FROM unnest('{live,overdue,complete,aborted}'::text[]) AS id, get_upload(id) AS s;
			SELECT id.*, r.outcome, r.status, r.ready FROM unnest('{live,overdue,complete,aborted}'::text[]) AS id, try_advance_upload(id, 0, 1) AS r;
			SELECT * FROM sweep_uploads();
		}),
		join("\n",
			'live|in_progress', 'overdue|expired', 'complete|complete', 'aborted|aborted',
			'live|ended|in_progress|f', 'overdue|ended|expired|f', 'complete|ended|complete|f', 'aborted|ended|aborted|f',
			'0|0|0'),
		"a session of other rules is shown, and left alone, row_access = $way");
	foreach my $id ('live', 'overdue', 'complete', 'aborted')
	{
		is_deeply(
			[
				sqlstates_of(
					$node, 'postgres', $setup,
					map { "SELECT $_" } "advance_upload('$id', 0, 1)", "declare_upload_size('$id', 10)", "merge_upload_data('$id')",
					"complete_upload('$id')", "abort_upload('$id')", "delete_upload('$id')")
			],
			[ ('VB003') x 6 ],
			"nothing changes the $id one, row_access = $way");
	}
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM upload_session WHERE rules_version = 1000'), '4', 'they are still there');
$node->safe_psql('postgres', 'DELETE FROM upload_session');

# --- arguments

# Give every function an argument of each kind that a later version may have.
$node->safe_psql(
	'postgres', q{
	DO $$
	DECLARE
		f record;
	BEGIN
		FOR f IN
			SELECT p.oid, p.proname, pg_get_functiondef(p.oid) AS definition,
				pg_get_function_arguments(p.oid) AS arguments
			FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
			WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
				AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'vali_blob')
				AND p.proname <> ALL ('{read_upload_stats}')
		LOOP
			EXECUTE format('ALTER EXTENSION vali_blob DROP FUNCTION %s', f.oid::regprocedure);
			EXECUTE format('DROP FUNCTION %s', f.oid::regprocedure);
			-- what is required comes first, and gets a default of null
			EXECUTE replace(f.definition, '(' || f.arguments || ')', format('(%s)', concat_ws(', ',
				(SELECT string_agg(CASE WHEN a ~ 'DEFAULT|^OUT ' THEN a ELSE nullif(a, '') || ' DEFAULT NULL' END, ', ' ORDER BY a ~ '^OUT ', n)
				 FROM regexp_split_to_table(f.arguments, ', (?=[a-zOUT_]+ )') WITH ORDINALITY AS s (a, n)),
				'more_flag boolean = false', 'more_number bigint = NULL', 'more_texts text[] = NULL',
				CASE WHEN f.arguments ~ 'OUT ' THEN 'OUT more bigint' END)));
			EXECUTE format('ALTER EXTENSION vali_blob ADD FUNCTION %I', f.proname);
		END LOOP;
	END $$;
});
lives('arguments');
is( $node->safe_psql('postgres', q{
		CREATE FUNCTION more_stats(OUT status upload_status, OUT sessions bigint, OUT bytes bigint, OUT bytes_in_flight bigint,
			OUT oldest_deadline timestamptz, OUT reclaim_backlog bigint, OUT oldest_reclaim timestamptz, OUT most_attempts integer,
			OUT estimated boolean, OUT counted_at timestamptz, OUT a text, OUT b text, OUT c text, OUT d text)
			RETURNS SETOF record LANGUAGE C STABLE AS 'vali_blob', 'vali_blob_read_upload_stats';
		SELECT bool_and((a, b, c, d) IS NULL), count(*) > 4 FROM more_stats()}),
	't|t', 'columns that upload_stats does not know are null');

# An argument that asks for what this library cannot do is not passed over.
my @calls = map { /(\w+)\(NULL/ ? "$1(" : /(\w+)\(\)/ ? "$1(" : () } map { $functions{$_}{null_call} }
  grep { !/stats/ } sort keys %functions;
cmp_ok(scalar @calls, '>', 12, 'functions with further arguments');
foreach my $argument ('more_flag => true', 'more_number => 0', q{more_texts => '{}'})
{
	is_deeply(
		[ sqlstates_of($node, 'postgres', '', map { "SELECT * FROM $_$argument)" } @calls) ],
		[ ('0A000') x @calls ],
		"$argument is refused");
}
my ($rc, $stdout, $stderr) = $node->psql('postgres', q{SELECT advance_upload('u', 0, 1, more_number => 7)});
like($stderr, qr/argument 13 of function advance_upload\(.*\n.*DETAIL:.*\n.*HINT:  Reconnect/,
	'with a message that names it and says what to do');

$_->quit foreach values %old;
$node->stop;
done_testing();
