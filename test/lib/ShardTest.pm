# What the tests of several servers share: three servers with vali_blob, and a router
# before them.  All names want quoting.
package ShardTest;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use UploadTest;

our @EXPORT = qw(has_extension start_shard start_shards create_router run_router_script grant_router partition_connstr as_app
  start_uploaders wait_for_uploaders told place uploaders_have_ended finish_uploaders
  $vb $api $server $path $checkout);

my %uploaders;

# However the test ends, they end with it.
END
{
	my $status = $?;
	$_->{run}->kill_kill foreach values %uploaders;
	$? = $status;
}

our $vb = '"the ""vb"""';
our $api = '"the ""router"""';
our $server = '"the ""servers"""';
our $path = "$api, $vb";
our $checkout = abs_path(dirname(__FILE__) . '/../..');

sub has_extension
{
	my ($name) = @_;
	my $folder = `pg_config --sharedir`;

	chomp $folder;
	return -e "$folder/extension/$name.control";
}

# Start a server with sessions in its database "uploads".
sub start_shard
{
	my ($name, $vali_blob_node, $conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 'logical', extra => [ '--encoding=UTF8', '--no-locale' ]);
	$node->append_conf('postgresql.conf', "log_statement = none\nmax_connections = 100\nshared_preload_libraries = vali_blob\nvali_blob.sweep = off\n" . ($conf // ''));
	$node->start;
	$node->safe_psql('postgres', 'CREATE DATABASE uploads; CREATE ROLE app LOGIN');
	$node->safe_psql('uploads', qq{
		CREATE SCHEMA $vb;
		CREATE EXTENSION vali_blob SCHEMA $vb;
		ALTER DATABASE uploads SET vali_blob.node = $vali_blob_node;
		SELECT $vb.grant_upload_access('app');
		GRANT USAGE ON SCHEMA $vb TO app});
	return $node;
}

sub partition_connstr { return join ' ', map { ("host='@{[ $_->host ]}'", "port=@{[ $_->port ]}", 'dbname=uploads') } @_; }

# Start three servers, and a router in database "router" of a fourth one.
sub start_shards
{
	my ($conf) = @_;
	my @shards = map { start_shard("shard$_", $_, $conf) } 1 .. 3;
	my $router = PostgreSQL::Test::Cluster->new('router');

	$router->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
	$router->append_conf('postgresql.conf', "log_statement = none\nmax_connections = 200");
	$router->start;
	$router->safe_psql('postgres', 'CREATE DATABASE router; CREATE ROLE app LOGIN; CREATE ROLE monitor LOGIN IN ROLE pg_monitor');
	return ($router, @shards);
}

# Create the router, with the partitions given.
sub create_router
{
	my ($router, @partitions) = @_;
	my $options = join ', ', "modular_mapping '1'", map { "p$_ '@{[ partition_connstr($partitions[$_]) =~ s/'/''/gr ]}'" } 0 .. $#partitions;

	$router->safe_psql('router', qq{
		CREATE SCHEMA IF NOT EXISTS $vb;
		CREATE EXTENSION IF NOT EXISTS vali_blob SCHEMA $vb;
		CREATE EXTENSION IF NOT EXISTS plproxy;
		CREATE SERVER $server FOREIGN DATA WRAPPER plproxy OPTIONS ($options)});
	run_router_script($router);
	grant_router($router);
	return;
}

sub run_router_script
{
	my ($router) = @_;

	$router->command_ok([ 'psql', '-X', '-q', '-v', 'router=the "router"', '-v', 'server=the "servers"', '-d', $router->connstr('router'),
			'-f', "$checkout/contrib/vali_blob_router.sql" ], 'the router is created');
	return;
}

# What the manual says for the role of the clients.
sub grant_router
{
	my ($router) = @_;

	$router->safe_psql('router', qq{
		GRANT USAGE ON SCHEMA $api, $vb TO app;
		GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA $api TO app;
		GRANT USAGE ON FOREIGN SERVER $server TO app;
		CREATE USER MAPPING IF NOT EXISTS FOR app SERVER $server OPTIONS (user 'app');
		ALTER ROLE app SET search_path = $path});
	return;
}

# Run commands as a client of the router, and return what they print.
sub as_app
{
	my ($router, $sql) = @_;

	return $router->safe_psql('router', $sql, connstr => $router->connstr('router') . ' user=app');
}

# Start processes that upload.
sub start_uploaders
{
	my ($router, $count, $hold) = @_;

	foreach my $name (map { "u$_" } 1 .. $count)
	{
		my $uploader = $uploaders{$name} = { in => '', out => '', err => '' };
		$uploader->{run} = IPC::Run::start([ '/usr/bin/python3', "$checkout/test/lib/shard_uploader.py", $router->connstr('router') . ' user=app', $api, $name, 6, 20, $hold ],
			'<', \$uploader->{in}, '>', \$uploader->{out}, '2>', \$uploader->{err}, IPC::Run::timeout(20 * $PostgreSQL::Test::Utils::timeout_default));
	}
	return;
}

# Wait until what they have told makes a condition true.
sub wait_for_uploaders
{
	my ($name, $condition) = @_;

	foreach (1 .. 20 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$_->{run}->pump_nb foreach grep { $_->{run}->pumpable } values %uploaders;
		return pass($name) if $condition->();
		usleep(50_000);
	}
	fail($name);
	diag join "\n", map { $_->{err} } values %uploaders;
	return;
}

# What they have told from a place on, as [ outcome, id, bytes or SQLSTATE ].
sub told { return map { [ split / / ] } map { split /\n/, substr $uploaders{$_}{out}, $_[0]{$_} // 0 } keys %uploaders; }

# The place behind all that they have told until now.
sub place
{
	my %place;

	foreach my $name (keys %uploaders)
	{
		my $uploader = $uploaders{$name};
		my $length;

		do
		{
			$length = length $uploader->{out};
			$uploader->{run}->pump_nb if $uploader->{run}->pumpable;
		} while $length < length $uploader->{out};
		$place{$name} = 1 + rindex $uploader->{out}, "\n";
	}
	return \%place;
}

sub uploaders_have_ended { return !grep { $_->{run}->pumpable } values %uploaders; }

# Returns what those that have failed say.
sub finish_uploaders { return join ' ', map { $_->{run}->finish ? () : $_->{err} } values %uploaders; }

1;
