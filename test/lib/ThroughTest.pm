# Runs the rule tables of pgTAP through a router, as an ordinary role.
#
# The scripts are those of test/pgtap.  Where they read the tables beneath the functions,
# change a deadline, or change a setting, their text is changed to do that on the servers
# (through_router.sql, through_shard.sql).
package ThroughTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use ShardTest;
use Test::More;

our @EXPORT = qw(prepare_through run_through);

# What is changed in every script.
my $id = qr/(?:\w+|:'\w+'|''\w+''|'[\w-]+')/;
my @changes = (
	[ qr/^CREATE EXTENSION .*\n/m, sub { '' } ],
	[ qr/^SET (?:LOCAL )?(vali_blob\.\w+) = '?([^';]+)'?;/m, sub { "SELECT through.set('$1', '$2');" } ],
	[ qr/^RESET (vali_blob\.\w+);/m, sub { "SELECT through.set('$1', NULL);" } ],
	[ qr/set_config\('(vali_blob\.\w+)', (\w+), true\)/, sub { "through.set('$1', $2)" } ],
	[ qr/^((?:ALTER TABLE|DELETE FROM) (?:upload_session|upload_reclaim)[^;]*);/m, sub { "SELECT through.run(\$run\$$1\$run\$);" } ],
	[ qr/^(\s+)(DELETE FROM upload_reclaim);/m, sub { "$1PERFORM through.run(\$run\$$2\$run\$);" } ],
	[ qr/\b(s\.)?ctid\b/, sub { 'through.place(' . ($1 // '') . 'upload_id)' } ],
	[ qr/(?<!DELETE )FROM upload_session((?: AS)?(?: [a-z])?)\s+WHERE ((?:\w\.)?upload_id) = ($id)/, sub { "FROM through.sessions($3)$1 WHERE $2 = $3" } ],
	[ qr/(?<!DELETE )FROM upload_session\b/, sub { 'FROM through.sessions()' } ],
	[ qr/(?<!DELETE )FROM upload_part\b/, sub { 'FROM through.parts()' } ],
	[ qr/(?<!DELETE )FROM upload_reclaim\b/, sub { 'FROM through.reclaims()' } ],
	[ qr/JOIN upload_session\b/, sub { 'JOIN through.sessions()' } ],
	[ qr/UPDATE upload_(session|part)\b/, sub { "UPDATE through.$1" } ],
	[ qr/(GET STACKED DIAGNOSTICS [^;]*;)/, sub {
			my $statement = $1;
			join ' ', $statement, map { $statement =~ /\b$_ =/ ? "$_ := through.plain($_, '$_');" : () } 'message', 'detail', 'hint' } ]);

sub prepare_through
{
	my ($router, @shards) = @_;

	foreach my $node (@shards, $router)
	{
		my ($dbname, $script) = $node == $router ? ('router', 'through_router') : ('uploads', 'through_shard');

		$node->command_ok([ 'psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-v', 'vb=the "vb"', '-v', 'router=the "router"',
				'-v', 'server=the "servers"', '-d', $node->connstr($dbname), '-f', "$checkout/test/lib/$script.sql" ], "$script.sql for the rule tables");
	}
	$router->safe_psql('router', "ALTER ROLE app SET search_path = $path, tap");
	return;
}

# Run a script of test/pgtap.  "changes" has further changes of its text, each of which
# must find something; "fail" has what its failing tests are called, all of them.
# "at_one_server" is how the ids begin that are to be in one partition, so that their order
# is that of one server.
sub run_through
{
	my ($router, $name, %params) = @_;
	my $text = slurp_file("$checkout/test/pgtap/$name.sql");
	my @own = @{ $params{changes} // [] };
	my @missed;

	if (my $begin = $params{at_one_server})
	{
		my $other = as_app($router, "SELECT begin FROM generate_series(1, 1000000) AS n, LATERAL (SELECT replace('$begin', '-', n || '-')) AS x (begin)
			WHERE (SELECT count(DISTINCT partition_of(begin || i)) FROM generate_series(1, 8) AS i) = 1 LIMIT 1");
		$text =~ s/\b$begin/$other/g;
	}
	while (my ($pattern, $replacement) = splice @own, 0, 2)
	{
		push @missed, $pattern if $text !~ s/$pattern/ref $replacement ? $replacement->() : $replacement/ge;
	}
	is_deeply(\@missed, [], "$name.sql has what is changed for the router");
	$text =~ s/^\\ir lib\/uploads\.sql$/slurp_file("$checkout\/test\/pgtap\/lib\/uploads.sql")/me;
	foreach my $change (@changes)
	{
		my ($pattern, $replacement) = @$change;

		$text =~ s/$pattern/$replacement->()/ge;
	}
	my $script = "$PostgreSQL::Test::Utils::tmp_check/through_$name.sql";
	unlink $script;
	append_to_file($script, "\\set ON_ERROR_STOP on\n$text");

	my ($stdout, $stderr);
	my $rc = IPC::Run::run([ 'psql', '-X', '-q', '-A', '-t', '-d', $router->connstr('router') . ' user=app', '-f', $script ], '>', \$stdout, '2>', \$stderr);
	my $passed = () = $stdout =~ /^ok \d+/mg;
	my @failed = $stdout =~ /^not ok \d+ - (.*)/mg;
	my @unexpected = grep { my $test = $_; !grep { $test =~ $_ } @{ $params{fail} // [] } } @failed;
	my @passing = grep { my $pattern = $_; !grep { $_ =~ $pattern } @failed } @{ $params{fail} // [] };

	ok($rc, "$name.sql runs through the router") or diag $stderr =~ s/^.*(?:NOTICE|WARNING).*\n//mgr;
	is_deeply(\@unexpected, [], "$name.sql: all lines pass, but those that are known not to") or diag grep { /^#/ } split /^/, $stderr . $stdout;
	is_deeply(\@passing, [], "$name.sql: ... which do not");
	cmp_ok($passed, '>=', $params{passed}, "$name.sql: $passed lines have passed");
	as_app($router, $_) foreach 'SELECT through.run($$DELETE FROM upload_session; DELETE FROM upload_reclaim; ALTER ROLE app IN DATABASE uploads RESET ALL$$)';
	return;
}

1;
