# A router over three servers (contrib/vali_blob_router.sql): it has the functions of
# vali_blob, the rule tables of pgTAP hold through it, and a server that is killed stops
# nobody else.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use ShardTest;
use Test::More;
use ThroughTest;
use UploadTest;

plan skip_all => 'plproxy is not there' if !has_extension('plproxy');

my $seed = $ENV{RANDOM_SEED} ||= time;    # the uploaders, too

note "RANDOM_SEED=$seed";
srand $seed;

my ($router, @shards) = start_shards();

# --- what the script refuses

# Run the script in a database.  Returns the SQLSTATE, or 00000, and what it says.
sub run_script
{
	my ($dbname, $script_server) = @_;
	my ($stdout, $stderr);

	IPC::Run::run([ 'psql', '-X', '-q', '-v', 'VERBOSITY=verbose', '-v', 'router=the "router"', '-v', "server=$script_server",
			'-d', $router->connstr($dbname), '-f', "$checkout/contrib/vali_blob_router.sql" ], '>', \$stdout, '2>', \$stderr);
	return $stderr =~ /ERROR:\s+(\w{5}): (.*)/ ? ($1, $2) : ('00000', '');
}

is_deeply([ run_script('postgres', 'none') ], [ '42704', 'extension "vali_blob" is not installed in this database' ], 'the script wants vali_blob');
$router->safe_psql('postgres', q{CREATE EXTENSION vali_blob VERSION '1.0'});
is_deeply([ run_script('postgres', 'none') ], [ '42704', 'extension "plproxy" is not installed in this database' ], '... and plproxy');
$router->safe_psql('postgres', q{CREATE EXTENSION plproxy});
is_deeply([ run_script('postgres', 'none') ], [ '0A000', 'extension "vali_blob" is older than version 1.1' ], '... and version 1.1');
$router->safe_psql('postgres', q{ALTER EXTENSION vali_blob UPDATE; CREATE FOREIGN DATA WRAPPER other; CREATE SERVER "of another" FOREIGN DATA WRAPPER other});
is_deeply([ run_script('postgres', $_) ], [ '42704', qq{there is no server "$_" of plproxy} ], "... and a server of plproxy: $_") foreach 'not there', 'of another';
$router->safe_psql('postgres', qq{CREATE SERVER "p" FOREIGN DATA WRAPPER plproxy OPTIONS (p0 'dbname=x'); CREATE SCHEMA $api});
is_deeply([ run_script('postgres', 'p') ], [ '42P06', qq{schema $api exists, and was not created by this script} ], '... and leaves the schemas of others alone');

# --- what it makes

create_router($router, @shards);

# Who may do what with the schema and what is in it.
sub privileges
{
	return $router->safe_psql('router', qq{
		SELECT p.name, grantee::regrole, privilege_type, is_grantable
		FROM pg_namespace AS n, LATERAL (
			SELECT '', nspacl
			UNION ALL
			SELECT proname, proacl FROM pg_proc WHERE pronamespace = n.oid
			UNION ALL
			SELECT relname, relacl FROM pg_class WHERE relnamespace = n.oid) AS p (name, acl),
			aclexplode(p.acl) AS a
		WHERE n.oid = '$api'::regnamespace ORDER BY p.name, grantee, privilege_type});
}

$router->safe_psql('router', qq{
	CREATE ROLE "few ""rights""";
	GRANT USAGE ON SCHEMA $api TO "few ""rights""";
	GRANT EXECUTE ON FUNCTION $api.get_upload, $api.get_uploads TO "few ""rights""" WITH GRANT OPTION;
	GRANT SELECT ON $api.upload_stats TO "few ""rights""";
	GRANT EXECUTE ON FUNCTION $api.get_upload TO PUBLIC});
my $before = privileges();
run_router_script($router);
is(privileges(), $before, 'it can be run again, and keeps the privileges');
$router->safe_psql('router', "DROP FUNCTION $api.partition_of");
run_router_script($router);
is(privileges(), $before, '... and who could call all functions can call what is new');
$router->safe_psql('router', qq{
	REVOKE EXECUTE ON FUNCTION $api.get_upload FROM PUBLIC;
	CREATE VIEW public.dashboard AS SELECT * FROM $api.upload_stats;
	CREATE TABLE public.placed (upload_id text, partition integer DEFAULT $api.partition_of('a'))});
is_deeply([ run_script('router', 'the "servers"') ],
	[ '2BP01', qq{objects outside of schema $api depend on it: default value for column partition of table public.placed, view public.dashboard} ],
	'... but not what others have made of it');
$router->safe_psql('router', 'DROP VIEW IF EXISTS public.dashboard; DROP TABLE public.placed');
is($router->safe_psql('router', qq{
		SELECT p.proname FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.objid JOIN pg_extension AS e ON e.oid = d.refobjid
		WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e' AND e.extname = 'vali_blob' AND NOT EXISTS (
			SELECT FROM pg_proc AS r WHERE r.pronamespace = '$api'::regnamespace AND r.proname = p.proname
				AND pg_get_function_arguments(r.oid) = pg_get_function_arguments(p.oid)
				AND pg_get_function_result(r.oid) = pg_get_function_result(p.oid)
				AND obj_description(r.oid, 'pg_proc') = obj_description(p.oid, 'pg_proc'))
		ORDER BY 1}),
	"grant_upload_access\nread_upload_stats\nrevoke_upload_access\nstart_sweeper",
	'it has the functions of the extension with the same arguments, defaults and results, but these');
is($router->safe_psql('router', qq{
		SELECT coalesce(string_agg(oid::regprocedure::text, ' '), 'none') FROM pg_proc
		WHERE pronamespace = '$api'::regnamespace AND (has_function_privilege('public', oid, 'EXECUTE') OR obj_description(oid, 'pg_proc') IS NULL)}),
	'none', 'nobody may call them unless it is granted, and each has a comment');
is($router->safe_psql('router', qq{
		SELECT string_agg(relname || ' ' || has_table_privilege('app', oid, 'SELECT'), ', ' ORDER BY relname) FROM pg_class
		WHERE relnamespace = '$api'::regnamespace AND relkind = 'v'}),
	'upload_stats false, upload_stats_by_shard false', 'nor see the views');
is(sqlstate_of($router, "SET ROLE app; SELECT $vb.start_upload('file')", 'router'), '42501', "a client cannot call the router's own vali_blob by mistake");

# --- calls with many ids: as on one server

$router->safe_psql('postgres', 'CREATE DATABASE one');
$router->safe_psql('one', "CREATE SCHEMA $vb; CREATE EXTENSION vali_blob SCHEMA $vb; ALTER DATABASE one SET search_path = $vb");

# What commands print, each followed by its SQLSTATE.
sub outcomes
{
	my ($dbname, $user, @commands) = @_;
	my ($rc, $stdout, $stderr) = $router->psql($dbname, join("\n", map { "$_;\n\\echo :SQLSTATE" } @commands),
		on_error_stop => 0, connstr => $router->connstr($dbname) . $user);

	return $stdout;
}

sub random_array
{
	my ($type, $length, @values) = @_;
	my $kind = int rand 24;

	return "NULL::${type}[]" if $kind == 0;
	return "'{}'::${type}[]" if $kind == 1;
	$length += int(rand 3) - 1 if $kind == 2;
	my @list = map { $values[ rand @values ] } 1 .. $length;
	$list[ rand @list ] = 'NULL' if $kind == 3 && @list;
	return sprintf $kind == 4 && @list ? "ARRAY[ARRAY[%s]]::${type}[]" : "ARRAY[%s]::${type}[]", join ', ', @list;
}

my @ids = map { "batch-$_" } 1 .. 12;
my @batches = (
	(map { "SELECT status FROM start_upload('file', 1000, upload_id => '$_', any_order => @{[ rand 2 < 1 ? 'true' : 'false' ]}, owner => 'ann')" } @ids),
	'SELECT * FROM get_uploads(NULL)', q{SELECT * FROM get_uploads('{}')}, q{SELECT upload_id FROM get_uploads('{{batch-1},{batch-2}}')},
	q{SELECT upload_id FROM get_uploads('{batch-2,NULL,batch-1,nobody,batch-2}')},
	q{SELECT count(*) FROM advance_uploads('{}', '{}', '{}')});
# the last of chunks for all servers is refused
foreach ([ 22003, '9223372036854775800::bigint', 8, '' ], [ 22023, 0, 10, 'part_numbers', 'NULL::integer', 0 ],
	[ 22001, 0, 10, 'etags', "'a'", q{repeat('a', 1025)} ], [ 22001, 0, 10, 'checksums', q{'\x01'::bytea}, q{decode(repeat('01', 65), 'hex')} ])
{
	my ($sqlstate, $offset, $length, $name, $good, $bad) = @$_;
	my $others = $name ? ", $name => array_fill($good, ARRAY[11]) || $bad" : '';

	push @batches, sprintf 'SELECT outcome FROM advance_uploads(%s, array_fill(0::bigint, ARRAY[11]) || %s, array_fill(10::bigint, ARRAY[11]) || %s::bigint%s)',
	  "'{" . join(',', @ids) . "}'", $offset, $length, $others;
	push @batches, sprintf 'SELECT upload_id, uploaded_bytes FROM get_uploads(%s)', "'{" . join(',', @ids) . "}'";
}
foreach (1 .. 150)
{
	my $n = int rand 9;
	my @arrays = (random_array('text', $n, map { "'$_'" } @ids, 'nobody'), random_array('bigint', $n, 0, 10, 20, rand 12 < 1 ? '9223372036854775807' : 30), random_array('bigint', $n, 0, 10, 20, rand 20 < 1 ? -1 : 5));
	push @arrays, 'owner => ' . ("'ann'", "'bob'", 'NULL')[ rand 3 ] if rand 3 < 1;
	push @arrays, 'part_numbers => ' . random_array('integer', $n, 'NULL', 'NULL', rand 4 < 1 ? 0 : 'NULL') if rand 4 < 1;
	push @arrays, 'etags => ' . random_array('text', $n, "'a'", "'b'", 'NULL', rand 4 < 1 ? q{repeat(chr(233), 1025)} : q{repeat(chr(233), 1024)}) if rand 3 < 1;
	push @arrays, 'checksums => ' . random_array('bytea', $n, q{'\x01'}, 'NULL', sprintf q{decode(repeat('01', %d), 'hex')}, rand 4 < 1 ? 65 : 64) if rand 4 < 1;
	push @arrays, 'lease_epochs => ' . random_array('bigint', $n, 0, 'NULL', 'NULL', 1) if rand 4 < 1;
	push @batches, 'SELECT outcome, uploaded_bytes, total_size, status, ready FROM advance_uploads(' . join(', ', @arrays) . ')';
	push @batches, 'SELECT upload_id, uploaded_bytes FROM get_uploads(' . random_array('text', $n, map { "'$_'" } @ids, 'nobody') . ')';
}
my $through = outcomes('router', ' user=app', @batches);
my $direct = outcomes('one', '', @batches);
ok($through eq $direct, 'calls with many ids answer as on one server, in the order of the arguments')
  or do { my @t = split /^/, $through; my @d = split /^/, $direct; my ($i) = grep { ($t[$_] // '') ne ($d[$_] // '') } 0 .. $#d; diag "$t[$i]not $d[$i]of $batches[ grep { /^\w{5}$/ } @d[ 0 .. $i - 1 ] ]" if defined $i };
my %seen;
$seen{$_}++ foreach $direct =~ /^(\w{5})$/mg;
cmp_ok($seen{$_} // 0, '>', 0, "... with SQLSTATE $_") foreach '00000', '22001', '22003', '22004', '22023';
is(join(' ', map { $_->safe_psql('uploads', "SELECT count(*) > 0 FROM $vb.upload_session") } @shards), 't t t', 'all servers have some of them');

# --- ids

like(as_app($router, "SELECT upload_id FROM start_upload('file')"), qr/^[0-9a-f-]{36}$/, 'an id is made at the router');
is(as_app($router, "SELECT count(*) FROM generate_series(1, 20), start_upload('file')"), 20, '... for each');
is_deeply([ sqlstates_of($router, 'router', 'SET ROLE app; SET search_path = ' . $path,
			q{SELECT start_upload('file', or_resume => true)}, q{SELECT start_upload(NULL)}, q{SELECT start_upload('file', upload_id => 'batch-1')},
			q{SELECT get_upload(NULL)}, q{SELECT advance_upload('nobody', 0, 1)}, q{SELECT complete_upload('batch-2', owner => 'ann')}) ],
	[ '22004', '22004', '23505', '22004', 'VB001', 'VB006' ], 'errors have their SQLSTATE');
my ($rc, $stdout, $stderr) = $router->psql('router', q{SELECT start_upload('file', 10, upload_id => 'batch-error'); SELECT advance_upload('batch-error', 0, 11)},
	connstr => $router->connstr('router') . ' user=app');
like($stderr, qr/ERROR:  \Q$api\E\.advance_upload\(11\): \[uploads\] REMOTE ERROR: upload "batch-error" would reach byte 11/, '... and a text with a prefix');
like($stderr, qr/DETAIL:  Remote detail: \{"total_size": 10, "provided_end": 11\}$/m, '... also the detail');
$_->safe_psql('uploads', "TRUNCATE $vb.upload_session CASCADE") foreach @shards;

# --- limits, which each server has

$router->safe_psql('router', "CREATE USER MAPPING FOR CURRENT_USER SERVER $server OPTIONS (user '" . getpwuid($<) . "')");
$router->safe_psql('router', "SELECT $api.set_upload_quota('limited', 2, 9223372036854775807, 1000)");
as_app($router, q{SELECT count(start_upload('file', 100, owner => 'limited', upload_id => u)) FROM (
	SELECT DISTINCT ON (partition_of(u)) u FROM generate_series(1, 50) AS n, LATERAL (SELECT 'limited-' || n) AS x (u) ORDER BY partition_of(u)) AS y});
is(as_app($router, q{SELECT * FROM upload_usage('limited')}), '3|300|0|6|9223372036854775807', 'upload_usage adds up what is used and the limits');
is(sqlstate_of($router, "SET ROLE app; SET search_path = $path; $_->[0]", 'router'), 'VB009', "a limit is one through the router: $_->[1]")
  foreach [ q{SELECT start_upload('file', 1001, owner => 'limited')}, 'the size' ],
  [ q{SELECT count(start_upload('file', 1, owner => 'limited')) FROM generate_series(1, 7)}, 'the number of live uploads of a server' ];
$_->safe_psql('uploads', "TRUNCATE $vb.upload_session CASCADE; DELETE FROM $vb.upload_quota") foreach @shards;
# more bytes than a bigint can be
as_app($router, q{SELECT count(start_upload('file', 9223372036854775807, upload_id => 'most-' || n)) FROM generate_series(1, 20) AS n});
as_app($router, q{SELECT count(advance_upload('most-' || n, 0, 9223372036854775807)) FROM generate_series(1, 20) AS n});
is($router->safe_psql('router', "SELECT bytes FROM $api.upload_stats WHERE status = 'in_progress'"), '9223372036854775807', 'a sum of bytes has the highest value at most');
$_->safe_psql('uploads', "TRUNCATE $vb.upload_session CASCADE") foreach @shards;

# --- listings

as_app($router, q{SELECT count(start_upload('dir/' || n, 10, owner => 'owner ' || n % 2, upload_id => 'list-' || n)) FROM generate_series(1, 150) AS n});
is(as_app($router, q{
		WITH RECURSIVE page AS (
			SELECT 0 AS n, ARRAY[NULL::bigint] AS ids, NULL::bigint AS last
			UNION ALL
			SELECT n + 1, ids || p.new_ids, p.new_ids[cardinality(p.new_ids)]
			FROM page, LATERAL (SELECT array_agg(id) AS new_ids FROM list_uploads(max_rows => 7, after_id => last)) AS p WHERE p.new_ids IS NOT NULL)
		SELECT cardinality(ids) - 1, (SELECT count(DISTINCT id) FROM unnest(ids) AS id), n FROM page ORDER BY n DESC LIMIT 1}),
	'150|150|22', 'pages of a listing have each session of all servers once');
is(as_app($router, q{SELECT count(*), bool_and(owner = 'owner 1') FROM list_uploads('owner 1', max_rows => 1000)}), '75|t', '... or those of an owner');
is(join(' ', map { $_->safe_psql('uploads', "SELECT string_agg(DISTINCT (id % 1024)::text, ',') FROM $vb.upload_session") } @shards), '1 2 3', 'no two servers give the same id');

is(as_app($router, q{SELECT count(*) FROM list_uploads(status => 'pending'::upload_status)}), '100', "the types are found by the search_path of the manual");

# --- a column that only the servers have

my @wider = ([ 'TABLE', 'upload_session', 'COLUMN' ], [ 'TABLE', 'upload_part', 'COLUMN' ], [ 'TABLE', 'upload_reclaim', 'COLUMN' ],
	[ 'TABLE', 'upload_quota', 'COLUMN' ], [ 'TYPE', 'chunk_result', 'ATTRIBUTE' ], [ 'TYPE', 'upload_lease', 'ATTRIBUTE' ]);
foreach my $node (@shards)
{
	$node->safe_psql('uploads', join '; ', map({ "ALTER $_->[0] $vb.$_->[1] ADD $_->[2] mine text" } @wider), "UPDATE $vb.upload_session SET mine = 'later'");
}
is(($router->psql('router', $_->[0], connstr => $router->connstr('router') . ' user=app'))[1], $_->[1], "a column that only the servers have: $_->[0]")
  foreach [ q{SELECT upload_id, owner FROM start_upload('file', 20, owner => 'ann', upload_id => 'wider', provider_data => '{}')}, 'wider|ann' ],
  [ q{SELECT outcome FROM advance_upload('wider', 0, 10, etag => 'a')}, 'advanced' ],
  [ q{SELECT outcome FROM try_advance_upload('wider', 10, 2)}, 'advanced' ],
  [ q{SELECT outcome FROM advance_uploads('{wider,list-1}', '{12,0}', '{2,1}')}, "advanced\nadvanced" ],
  [ q{SELECT uploaded_bytes FROM get_upload('wider')}, '14' ],
  [ q{SELECT upload_id FROM get_uploads('{list-1,wider}')}, "list-1\nwider" ],
  [ q{SELECT upload_id FROM list_uploads(max_rows => 1, owner => 'ann')}, 'wider' ],
  [ q{SELECT etag FROM list_parts('wider', max_rows => 1)}, 'a' ],
  [ q{SELECT * FROM missing_ranges('wider')}, '14|6' ],
  [ q{SELECT epoch FROM acquire_upload_lease('wider', 'me')}, '1' ],
  [ q{SELECT upload_id FROM abort_upload('wider')}, 'wider' ],
  [ q{SELECT upload_id FROM claim_reclaims(10)}, 'wider' ],
  [ q{SELECT delete_upload('wider')}, 't' ];
foreach ([ 'ADD', 'later' ], [ 'DROP', 'none' ])
{
	my ($change, $expected) = @$_;

	$router->command_ok([ 'psql', '-X', '-q', '-1', '-v', 'router=the "router"', '-v', 'server=the "servers"', '-d', $router->connstr('router'),
			'-c', "ALTER TABLE $vb.upload_session $change COLUMN mine" . ($change eq 'ADD' ? ' text' : ''), '-f', "$checkout/contrib/vali_blob_router.sql" ],
		"... $change it at the router, and run the script in the same transaction");
	is(as_app($router, q{SELECT coalesce(to_jsonb(s)->>'mine', 'none') FROM get_upload('list-2') AS s}), $expected, '... which the functions follow');
}
is($router->safe_psql('router', "SELECT max_upload_size FROM $api.set_upload_quota('nobody', max_upload_size => 5)"), '5', '... set_upload_quota');
foreach my $node (@shards)
{
	$node->safe_psql('uploads', join '; ', "DELETE FROM $vb.upload_quota", "DELETE FROM $vb.upload_reclaim", map { "ALTER $_->[0] $vb.$_->[1] DROP $_->[2] mine" } @wider);
}

# --- reclaims

as_app($router, q{SELECT count(abort_upload(upload_id)) FROM (SELECT merge_upload_data('list-' || n, provider_data => '{"a": 1}') FROM generate_series(1, 60) AS n) AS m (s), LATERAL (SELECT (s).upload_id) AS u});
is(as_app($router, q{SELECT count(*), count(DISTINCT id) FROM claim_reclaims(7)}), '7|7', 'reclaims are claimed from all servers, so many in all');
is(as_app($router, q{SELECT count(*), count(DISTINCT upload_id) FROM claim_reclaims(1000)}), '53|53', '... each once');
is(as_app($router, q{SELECT count(*) FROM claim_reclaims(1000)}), '0', '... and no more');
my $reclaim = $shards[1]->safe_psql('uploads', "SELECT min(id) FROM $vb.upload_reclaim");
is(as_app($router, "SELECT fail_reclaim($reclaim, 'no'), finish_reclaim($reclaim), finish_reclaim($reclaim), fail_reclaim($reclaim, 'no'), finish_reclaim(0)"),
	't|t|f|f|f', '... and failed and finished where they are, once');
is(join(' ', map { $_->safe_psql('uploads', "SELECT count(*) > 0 FROM $vb.upload_reclaim") } @shards), 't t t', 'all servers had some of them');

# --- a server fails while it is asked

# Run a call as a client, and end its connection to the first server, where it waits for
# a table, or cancel it, or leave that to the server's lock_timeout.  Returns what it prints.
sub cut_off
{
	my ($table, $role, $sql, $how) = (@_, 'terminate');
	my $locker = $shards[0]->background_psql('uploads');
	my ($stdout, $stderr) = ('', '');

	$locker->query_safe("BEGIN; LOCK TABLE $vb.$table");
	my $run = IPC::Run::start([ 'psql', '-X', '-A', '-t', '-q', '-v', 'VERBOSITY=verbose', '-d', $router->connstr('router') . " user=$role", '-c', $sql ],
		'>', \$stdout, '2>', \$stderr, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	wait_until('a call that waits for a table', sub { 0 < $shards[0]->safe_psql('uploads', 'SELECT count(*) FROM pg_locks WHERE NOT granted') })
	  if $how ne 'lock_timeout';
	$shards[0]->safe_psql('uploads', 'SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted') if $how eq 'terminate';
	$router->safe_psql('router', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = '$role' AND state = 'active'") if $how eq 'cancel';
	$run->finish;
	$locker->query_safe('ROLLBACK');
	$locker->quit;
	note $stderr;
	return $stdout =~ s/\n\z//r;
}

# How many rows of the queue are claimed on a server.
sub claimed { return $_[0]->safe_psql('uploads', "SELECT count(claimed_until) FROM $vb.upload_reclaim") }

sub unclaim { return $_[0]->safe_psql('uploads', "UPDATE $vb.upload_reclaim SET claimed_until = NULL") }

unclaim($_) foreach @shards;
my $claimed = cut_off('upload_reclaim', 'app', 'SELECT count(*) FROM claim_reclaims(1000)');
cmp_ok($claimed, '>', 0, 'a server that is shut down while it is asked for reclaims does not stop the others');
is($claimed, claimed($shards[1]) + claimed($shards[2]), '... and what is claimed is handed out');
$reclaim = $shards[1]->safe_psql('uploads', "SELECT min(id) FROM $vb.upload_reclaim");
is(cut_off('upload_reclaim', 'app', "SELECT fail_reclaim($reclaim, 'no')"), 't', '... a reclaim of another server is failed');
is(cut_off('upload_reclaim', 'app', "SELECT finish_reclaim($reclaim)"), 't', '... or finished');

# Any other error, or a cancellation
foreach my $how ('lock_timeout', 'cancel')
{
	my %claims;

	unclaim($_) foreach @shards;
	$shards[0]->safe_psql('uploads', 'ALTER ROLE app IN DATABASE uploads SET lock_timeout = 1') if $how eq 'lock_timeout';
	foreach (1 .. 100)
	{
		last if 1 < keys %claims;
		my $given = cut_off('upload_reclaim', 'app', 'SELECT count(*) FROM claim_reclaims(1000)', $how);
		my $claimed = claimed($shards[1]) + claimed($shards[2]);
		my $kind = $given eq '' && $claimed == 0 ? 'refused' : $given eq $claimed ? 'handed out' : "claimed: $claimed, handed out: $given";
		$claims{$kind}++;
		unclaim($_) foreach @shards[ 1, 2 ];
	}
	is(join(', ', sort keys %claims), 'handed out, refused', "$how: an error is raised before anything is claimed, else what is claimed is handed out");
	$shards[0]->safe_psql('uploads', 'ALTER ROLE app IN DATABASE uploads RESET lock_timeout');
}

# --- concatenation

as_app($router, q{SELECT count(start_upload('piece', 0, upload_id => 'piece-' || n, partial => true)) FROM generate_series(1, 12) AS n});
my @same = split /,/, as_app($router, q{SELECT string_agg('piece-' || n, ',') FROM generate_series(1, 12) AS n WHERE partition_of('piece-' || n) = 1});
my $other = as_app($router, q{SELECT min('piece-' || n) FROM generate_series(1, 12) AS n WHERE partition_of('piece-' || n) = 2});
is(sqlstate_of($router, "SET ROLE app; SET search_path = $path; SELECT concatenate_uploads('whole', '{$same[0],$other}')", 'router'), '0A000', 'uploads of two servers are not concatenated');
is(as_app($router, "SELECT status, partition_of(upload_id) FROM concatenate_uploads('whole', '{@{[ join ',', @same ]}}')"), 'complete|1', '... those of one are, by an id that is there');
is(as_app($router, "SELECT status FROM get_upload('$same[0]')"), 'complete', '... and end with it');

# --- monitoring

$router->safe_psql('router', qq{
	GRANT USAGE ON SCHEMA $api, $vb TO monitor;
	GRANT USAGE ON FOREIGN SERVER $server TO monitor;
	CREATE USER MAPPING FOR monitor SERVER $server OPTIONS (user 'monitor');
	ALTER ROLE monitor SET search_path = $path});
$_->safe_psql('uploads', "CREATE ROLE monitor LOGIN IN ROLE pg_monitor; GRANT USAGE ON SCHEMA $vb TO monitor") foreach @shards;

sub as_monitor { return $router->safe_psql('router', $_[0], connstr => $router->connstr('router') . ' user=monitor'); }

my @counted = map { $_->safe_psql('uploads', "SELECT count(*) FROM $vb.upload_session WHERE status = 'pending'") } @shards;
is(as_monitor(q{SELECT string_agg(sessions::text, ' ' ORDER BY shard) FROM upload_stats_by_shard WHERE status = 'pending'}), "@counted", 'upload_stats of each server');
is(as_monitor(q{SELECT sum(sessions) FROM upload_stats WHERE status = 'pending'}), $counted[0] + $counted[1] + $counted[2], '... and of all of them');
is(as_monitor(q{SELECT reclaim_backlog FROM upload_stats WHERE status = 'aborted'}), 58, '... with the queue');
is(as_monitor(q{SELECT count(*), count(DISTINCT shard), count(error) FROM upload_stats_by_shard}), '15|3|0', '... and no error');
is(cut_off('upload_session', 'monitor', q{SELECT string_agg(concat_ws(' ', shard, sessions), ', ' ORDER BY shard) FROM upload_stats_by_shard WHERE status = 'pending' OR error ~ 'terminating connection'}),
	"0, 1 $counted[1], 2 $counted[2]", '... but that of one which is shut down while it is asked');
is(as_monitor(q{SELECT count(*), count(*) FILTER (WHERE running), count(error) FROM sweeper_status_by_shard()}), '3|3|0', 'the sweeper of each server');
is(as_monitor(q{SELECT running, last_error IS NULL FROM sweeper_status()}), 't|t', '... and of all');
is(as_monitor(q{SELECT string_agg(node::text, ' ' ORDER BY shard) FROM nodes_by_shard() WHERE error IS NULL}), '1 2 3', 'the node of each server');
$_->safe_psql('uploads', "UPDATE $vb.upload_session SET expires_at = now() - interval '1 second' WHERE upload_id IN ('list-100', 'list-101', 'list-102', 'list-103', 'list-104')") foreach @shards;
is(as_app($router, 'SELECT expired FROM sweep_uploads()'), '5', 'a sweep sweeps all of them');

# --- the rule tables

SKIP:
{
	skip 'pgTAP is not there', 1 if !has_extension('pgtap');
	prepare_through($router, @shards);
	run_rule_tables($router);
}
$_->safe_psql('uploads', "TRUNCATE $vb.upload_session, $vb.upload_reclaim CASCADE") foreach @shards;

# --- a server is killed

SKIP:
{
	skip 'python3-psycopg2 is not there', 1 if !find_psycopg2();
	kill_a_server();
	run_example();
}

sub kill_a_server
{
	my $hold = "$PostgreSQL::Test::Utils::tmp_check/046_hold";
	my %partition;

	append_to_file($hold, '');
	$partition{ (split /\|/)[0] } = (split /\|/)[1]
	  foreach split /\n/, as_app($router, q{SELECT id, partition_of(id) FROM generate_series(1, 16) AS u, generate_series(0, 5) AS n, LATERAL (SELECT format('u%s-%s', u, n)) AS x (id)});
	start_uploaders($router, 16, $hold);
	wait_for_uploaders('16 uploaders upload to all servers', sub { my %n; $n{ $partition{ $_->[1] } }++ foreach grep { $_->[0] eq 'advanced' } told({}); 3 == grep { $_ > 50 } values %n });

	my $place = place();
	$shards[0]->kill9;
	wait_for_uploaders('a server is killed, and its uploads fail', sub { 20 < grep { $_->[0] eq 'failed' } told($place) });
	my $down = place();
	wait_for_uploaders('... others go on', sub { my %n; $n{ $_->[1] }++ foreach grep { $_->[0] =~ /^(?:advanced|replayed)$/ } told($down); 30 < keys %n });
	is_deeply([ grep { $_->[0] eq 'failed' && $partition{ $_->[1] } != 0 } told($place) ], [], '... and do not notice');
	is(as_monitor(q{SELECT count(*), string_agg(shard::text, ',') FILTER (WHERE error IS NOT NULL) FROM sweeper_status_by_shard()}), '3|0', 'monitoring says which server is away');
	my @there = map { $_->safe_psql('uploads', "SELECT count(*) FROM $vb.upload_session WHERE status = 'aborted'") } @shards[ 1, 2 ];
	is(as_monitor(q{SELECT string_agg(concat_ws(' ', shard, sessions), ', ' ORDER BY shard) FROM upload_stats_by_shard WHERE status = 'aborted' OR error IS NOT NULL}), "0, 1 $there[0], 2 $there[1]", '... also by upload_stats_by_shard');
	is(as_monitor(q{SELECT count(*), min(sessions) FILTER (WHERE status = 'aborted') FROM upload_stats}), '5|' . ($there[0] + $there[1]), '... and upload_stats is that of the others');
	is(as_monitor(q{SELECT running, last_error ~ '^partition 0: .*refused|No such file' FROM sweeper_status()}), 'f|t', '... also of all');
	is(sqlstate_of($router, "SET ROLE app; SET search_path = $path; SELECT list_uploads()", 'router'), 'XX000', 'a listing without the sessions of a server is refused');
	as_app($router, sprintf q{SELECT start_upload('file', 10, provider_data => '{"a": 1}', upload_id => x) FROM (SELECT 'away-' || n FROM generate_series(1, 50) AS n WHERE partition_of('away-' || n) = 1 LIMIT 1) AS u (x)});
	my $away = $shards[1]->safe_psql('uploads', "SELECT upload_id FROM $vb.upload_session WHERE upload_id LIKE 'away%'");
	as_app($router, "SELECT abort_upload('$away')");
	is(as_app($router, 'SELECT upload_id FROM claim_reclaims(10)'), $away, 'reclaims go on');
	my $id = $shards[1]->safe_psql('uploads', "SELECT id FROM $vb.upload_reclaim");
	is(as_app($router, "SELECT finish_reclaim($id)"), 't', '... and are finished');
	is(sqlstate_of($router, "SET ROLE app; SET search_path = $path; SELECT finish_reclaim(0)", 'router'), '08000', '... but one that is not found may be where nobody answers');

	restart_after_kill($shards[0]);
	my $up = place();
	wait_for_uploaders('the server comes back, and so do its uploads', sub { 20 < grep { $_->[0] =~ /^(?:advanced|replayed)$/ && $partition{ $_->[1] } == 0 } told($up) });
	unlink $hold;
	wait_for_uploaders('all uploads end', sub { uploaders_have_ended() });
	is(finish_uploaders(), '', '... without an error');

	my (%complete, %states, %most, @lost);
	foreach (told({}))
	{
		my ($outcome, $id, $number) = @$_;
		$complete{$id} = $number if $outcome eq 'complete';
		$states{$number}++ if $outcome eq 'failed';
		next if $outcome eq 'failed';
		push @lost, "$outcome: $number bytes of $id, after $most{$id}" if $number < ($most{$id} // 0);
		$most{$id} = $number if $number > ($most{$id} // 0);
	}
	is_deeply(\@lost, [], 'no answer takes back bytes that were confirmed');
	is(scalar keys %complete, 96, '96 uploads are complete');
	is_deeply([ sort grep { !/^(?:XX000|57P0[123]|08006)$/ } keys %states ], [], 'those of the server that was away failed with errors of connections');
	note 'SQLSTATEs: ', join ', ', map { "$_: $states{$_}" } sort keys %states;
	my %found;
	foreach my $n (0 .. 2)
	{
		foreach my $row (split /\n/, $shards[$n]->safe_psql('uploads', "SELECT upload_id, uploaded_bytes, status FROM $vb.upload_session WHERE upload_id LIKE 'u%'"))
		{
			my ($id, $bytes, $status) = split /\|/, $row;
			push @{ $found{$id} }, "$n $bytes $status";
		}
	}
	is_deeply(\%found, { map { ($_ => [ "$partition{$_} 200 complete" ]) } keys %partition }, 'each upload is on its server, once, and complete: nothing is lost, nothing is doubled');
	return;
}

# The rule tables of pgTAP.  What of them is left out:
#   - how many versions of rows a statement writes, which the router does not know;
#   - that a transaction which is read-only or rolled back writes nothing, as a call
#     through the router is none;
#   - triggers, and batches of a sweep, which each server has by itself;
#   - the order of the reclaim queue where several servers have rows of it.
# Those of access, nodes, limits, transactions, the catalog and figures (access, node, quota,
# transaction, schema, stats) are about one database.
sub run_rule_tables
{
	my ($router) = @_;

	run_through($router, 'chunk', passed => 193, changes => [
		qr/^SELECT pg_stat_get_xact_tuples_updated.*\n/m, '', qr/^SELECT is\(pg_stat_get_xact_tuples_updated.*?;\n/ms, '' ]);
	run_through($router, 'lifecycle', passed => 139);
	run_through($router, 'parts', passed => 141, changes => [ qr/^-- A column that was given another type.*?(?=^SELECT \* FROM finish)/ms, '' ]);
	run_through($router, 'lease', passed => 835, changes => [
		qr/^-- How many versions of rows.*?(?=^--\n-- Acquire)/ms, '',
		qr/^-- Read-only\n.*?(?=^SELECT \* FROM finish)/ms, '' ]);
	run_through($router, 'owner', passed => 166);
	# the id is made before the upload is judged
	run_through($router, 'start', passed => 89, fail => [ qr/^\.\.\. whose message names the path$/ ]);
	run_through($router, 'reader', passed => 71, at_one_server => 'reader-');
	# messages have a prefix, and what is on several servers is refused before anything else
	run_through($router, 'concatenate', passed => 58, fail => [
			qr/^not with another list$/, qr/^\.\.\. nor with the list in another order$/, qr/^\.\.\. nor for /, qr/^\.\.\. nor where another upload is$/,
			qr/^\.\.\. nor too long$/ ], changes => [
		qr/partial => state <> 'whole'\)/, q{partial => state <> 'whole', upload_id => through.id())}, qr/failed/, 'failed2' ]);
	run_through($router, 'deadline', passed => 109, changes => [
		qr/^UPDATE upload_session SET expires_at = now\(\) - interval '1 second';\n.*?(?=^SELECT throws_ok)/ms, '',
		qr/^SELECT is\(count\(\*\), 10::bigint, 'the purge leaves.*?\n/ms, '',
		qr/^-- A row that cannot be swept.*?(?=^--\n-- Retention)/ms, '' ]);
	# all of these delays are multiples of 15 seconds
	run_through($router, 'reclaim', passed => 78, at_one_server => 'reclaim-', changes => [
		qr/^(INSERT INTO upload_reclaim [^;]*?'(reclaim\d+-)[^;]*);/m, sub { "SELECT through.run_at('${2}1', \$run\$$1\$run\$);" },
		qr/^(UPDATE upload_reclaim [^;]*)WHERE id = :id;/m, sub { "$1WHERE attempts >= 10;" },
		qr/^(UPDATE upload_reclaim [^;]*);/m, sub { "SELECT through.run(\$run\$$1\$run\$);" },
		qr/floor\(extract\(epoch FROM r\.claimed_until - since\)\)/, '15 * div(extract(epoch FROM r.claimed_until - since), 15)' ]);
	return;
}

# The client that hashes by itself, over the same servers.  Their sequences are far apart.
sub run_example
{
	my ($stdout, $stderr);
	$shards[0]->safe_psql('uploads', "SELECT setval(pg_get_serial_sequence('$vb.upload_session', 'id'), 1000000)");
	my $script = q{
import psycopg2, psycopg2.extras, sys
from shards import Shards
servers = [psycopg2.connect(dsn, cursor_factory=psycopg2.extras.NamedTupleCursor) for dsn in sys.argv[1:]]
for server in servers:
    server.autocommit = True
    server.cursor().execute('SET search_path = "the ""vb"""')
shards = Shards(servers)
ids = [shards.start("example/%s" % n, total_size=10)[0].upload_id for n in range(40)]
for upload in ids:
    assert shards.call("try_advance_upload", upload, chunk_offset=0, chunk_length=10)[0].ready
    assert shards.call("complete_upload", upload)[0].status == "complete"
    assert shards.call("get_upload", upload)[0].path.startswith("example/")
pages, last = [], None
while page := shards.list(7, path_prefix="example/", after_id=last):
    pages += page
    last = page[-1].id
print(sorted(row.upload_id for row in pages) == sorted(ids), [row.id for row in pages] == sorted((row.id for row in pages), reverse=True))
highest = shards.list(1)[0].id
for server in servers:
    server.cursor().execute("SELECT setval(pg_get_serial_sequence('upload_session', 'id'), %s)", (highest // 1024,))
newest = [shards.start("example/last/%s" % n)[0].upload_id for n in range(20)]
print(sorted(row.upload_id for row in shards.list(20)) == sorted(newest))
with servers[0].cursor() as cursor:
    cursor.execute("SELECT count(*) FROM upload_session WHERE path LIKE 'example/%'")
    print(0 < cursor.fetchone()[0] < 40)
    cursor.execute("SELECT bool_and(get_byte(decode(md5(upload_id::text), 'hex'), 0) %% 64 %% 3 = 0) FROM upload_session WHERE path LIKE 'example/%%'", ())
    print(cursor.fetchone()[0])
};
	local $ENV{PYTHONPATH} = "$checkout/examples/shards";
	IPC::Run::run([ '/usr/bin/python3', '-B', '-', map { partition_connstr($_) } @shards ], '<', \$script, '>', \$stdout, '2>', \$stderr);
	is($stdout, "True True\nTrue\nTrue\nTrue\n", 'the client that hashes by itself has sessions on all servers, pages that have each once, and the newest first') or diag $stderr;
	my $code = grep { /\S/ && !/^\s*#/ } split /\n/, slurp_file("$checkout/examples/shards/shards.py") =~ s/""".*?"""//gsr;
	cmp_ok($code, '<=', 40, "... in $code lines");
	return;
}

# --- a server is restored from a dump

my $restored = $shards[2];

# Dump the database, drop it, and restore it.
sub dump_and_restore
{
	my ($name, $dbname, @options) = @_;
	my $dump = "$PostgreSQL::Test::Utils::tmp_check/046_dump.sql";

	$restored->command_ok([ 'pg_dump', @options, '-f', $dump, '-d', $restored->connstr('uploads') ], "a server is dumped, $name");
	$restored->safe_psql('postgres', q{DROP DATABASE uploads WITH (FORCE)});
	$restored->safe_psql('postgres', q{CREATE DATABASE uploads}) if $dbname eq 'uploads';
	$restored->command_ok([ 'psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', $restored->connstr($dbname), '-f', $dump ], '... and restored');
	return;
}

# Start some uploads there.  Returns their lowest id, and the lowest and highest node in their ids.
sub start_restored
{
	return split /\|/, $restored->safe_psql('uploads', "SELECT min(id), min(id % 1024), max(id % 1024) FROM generate_series(1, 30), $vb.start_upload('file')");
}

sub highest_id { return $restored->safe_psql('uploads', "SELECT max(id) FROM $vb.upload_session") }

as_app($router, q{SELECT start_upload('file') FROM generate_series(1, 30)});
my $last = highest_id();
dump_and_restore('with --create', 'postgres', '--create');
my ($first, @nodes) = start_restored();
cmp_ok($first, '>', $last, '... its ids go on');
is("@nodes", '3 3', '... apart from those of others');
$last = highest_id();
dump_and_restore('without', 'uploads');
($first, @nodes) = start_restored();
cmp_ok($first, '<', $last, 'such a dump does not have the setting: forgotten, ids are those of one server again');
$restored->safe_psql('postgres', 'ALTER DATABASE uploads SET vali_blob.node = 3');
($first, @nodes) = start_restored();
cmp_ok($first, '>', $last, 'set again, they go on');
is("@nodes", '3 3', '... apart from those of others');

$_->stop foreach $router, @shards;
done_testing();
