# Leases through PgBouncer, which gives each transaction whatever connection is free: 16
# clients with two connections upload files together, and no session and no lock is
# needed for it.  And what the manual says of prepared statements, of SET, and of pooling by
# statement.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use IO::Socket::UNIX;
use IPC::Open2;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use UploadTest;

my $python = '/usr/bin/python3';
my ($pgbouncer) = grep { -x } map { "$_/pgbouncer" } (($ENV{VALI_BLOB_WORKPLACE} // '') . '/pgbouncer'), split(/:/, $ENV{PATH}), '/usr/sbin', '/usr/local/sbin';

plan skip_all => 'python3-psycopg2 is not there' if !find_psycopg2();
plan skip_all => 'pgbouncer is not there' if !$pgbouncer;

my $seed = $ENV{RANDOM_SEED} ||= time;    # the writers, too

note "RANDOM_SEED=$seed";
srand $seed;

delete $ENV{PGOPTIONS};    # PgBouncer refuses them
my $node = upload_node('main', conf => 'vali_blob.sweep = off');
my $user = $node->safe_psql('postgres', 'SELECT current_user');

# Start PgBouncer.  Returns its process, and a connection string for each mode.
sub start_pgbouncer
{
	my (@settings) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir_short();
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $server = "host=@{[ $node->host ]} port=@{[ $node->port ]} dbname=postgres user=$user";

	append_to_file("$folder/pgbouncer.ini", join "\n", qq{
[databases]
postgres = $server
statements = $server pool_mode=statement
[pgbouncer]
unix_socket_dir = $folder
listen_addr =
listen_port = $port
auth_type = any
pool_mode = transaction
default_pool_size = 2
logfile = $PostgreSQL::Test::Utils::log_path/038_pgbouncer.log}, @settings, '');

	# It ends when its standard input does, so with this process, however that ends.
	my $pid = open2(my $out, my $in, 'sh', '-c', '"$0" -q "$1/pgbouncer.ini" >"$1/stderr" 2>&1 & read -r line; kill -KILL $!; wait $!', $pgbouncer, $folder);

	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if IO::Socket::UNIX->new("$folder/.s.PGSQL.$port");
		usleep(100_000);
	}
	return {
		pid => $pid, in => $in, out => $out, folder => $folder, socket => "$folder/.s.PGSQL.$port",
		transactions => "host=$folder port=$port dbname=postgres",
		statements => "host=$folder port=$port dbname=statements" };
}

sub stop_pgbouncer
{
	my ($run) = @_;

	close $run->{in};
	waitpid $run->{pid}, 0;
	ok(!IO::Socket::UNIX->new($run->{socket}), 'PgBouncer has ended');
	return;
}

my $run = start_pgbouncer();
my $pool = $run->{transactions};

# Run commands through the pool.
sub through_pool
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql, connstr => $pool);
}

is(through_pool('SELECT 1'), '1', 'PgBouncer is there') or diag slurp_file("$run->{folder}/stderr");

# What is left in the server when no transaction is open.
my $pooled = q{FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()};
my $nothing = qq{
	SELECT count(*) FROM pg_locks WHERE pid IS DISTINCT FROM pg_backend_pid();
	SELECT count(*) FILTER (WHERE xact_start IS NOT NULL) $pooled};

foreach my $way ('auto', 'sql')
{
	$node->safe_psql('postgres', "ALTER DATABASE postgres SET vali_blob.row_access = $way; TRUNCATE upload_session CASCADE");
	# connections of before have the setting of before
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 10000) $pooled");

	# one call after the other; each transaction may have another connection
	is(through_pool(q{
			SELECT status FROM start_upload('file', 100, upload_id => 'u');
			SELECT held, epoch FROM acquire_upload_lease('u', 'a');
			SELECT outcome FROM try_advance_upload('u', 0, 10, lease_epoch => 1);
			SELECT held FROM renew_upload_lease('u', 1)}),
		"pending\nt|1\nadvanced\nt", "a lease through the pool, row_access = $way");
	is($node->safe_psql('postgres', $nothing), "0\n0", '... is held without a lock and without a transaction');
	is(through_pool(q{
			SELECT held, epoch, uploaded_bytes FROM acquire_upload_lease('u', 'b', take_over => true);
			SELECT outcome FROM try_advance_upload('u', 10, 10, lease_epoch => 1);
			SELECT outcome FROM try_advance_upload('u', 10, 10);
			SELECT outcome FROM try_advance_upload('u', 10, 10, lease_epoch => 2);
			SELECT held FROM release_upload_lease('u', 2);
			SELECT lease_epoch, lease_holder, uploaded_bytes FROM get_upload('u')}),
		"t|2|10\nfenced\nfenced\nadvanced\nf\n2||20", '... and fences off who has lost it');

	my @ids = map { "pooled$_$way" } 1 .. 4;
	my $count = run_writers("row_access = $way", node => $node, dbname => 'postgres', connstr => $pool,
		writers => 16, uploads => { map { ($_ => ['stop']) } @ids });
	check_uploads("row_access = $way", $node, 'postgres', @ids);
	is($count->{woken}, 4, 'writers were stopped for longer than their lease lasts');
	is($node->safe_psql('postgres', "SELECT count(*) IN (1, 2) $pooled"), 't', 'the pool has not had more than two connections');
	is($node->safe_psql('postgres', $nothing), "0\n0", '... which have no lock and no transaction');
}

# Run pool_client.py.  Returns what it tells.
sub run_client
{
	my ($what, $connstr) = @_;
	my ($stdout, $stderr) = run_command([ $python, "$FindBin::Bin/../lib/pool_client.py", $what, $connstr ]);

	note $stderr if $stderr ne '';
	return $stdout;
}

SKIP:
{
	skip 'python3-psycopg is not there', 1 if !run_log([ $python, '-c', 'import psycopg' ]);

	is(run_client('set', $pool), "True\nFalse\nFalse", 'SET LOCAL holds in its transaction, and SET does not stay with the client');
	$node->safe_psql('postgres', "ALTER ROLE CURRENT_USER SET vali_blob.session_ttl = '1h'");
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid, 10000) $pooled");
	is(through_pool(q{SELECT expires_at < created_at + interval '2 hours' FROM start_upload('file')}),
		't', '... what is set for the role holds for all');

	like(run_client('statements', $run->{statements}), qr/\Apending\n1\nadvanced\ncomplete\n.*transaction/,
		'statement mode: all calls, but no transaction over several');

	# as drivers prepare them, by messages of the protocol
	my ($major, $minor) = qx("$pgbouncer" --version) =~ /(\d+)\.(\d+)/;

	foreach my $kept ($major > 1 || $minor >= 21 ? (0, 100) : undef)
	{
		my $other = start_pgbouncer(defined $kept ? "max_prepared_statements = $kept" : ());

		$node->safe_psql('postgres', q{SELECT delete_upload('prepared'); SELECT start_upload('file', 20, upload_id => 'prepared')});
		is(run_client('prepared', $other->{transactions}), $kept ? "advanced\nadvanced\nreplayed" : "advanced\n26000\nadvanced",
			"named prepared statements, PgBouncer $major.$minor" . (defined $kept ? ", max_prepared_statements = $kept" : ''));
		stop_pgbouncer($other);
	}
}

stop_pgbouncer($run);
$node->stop;
done_testing();
