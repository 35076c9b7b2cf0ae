# What the TAP tests of vali_blob share.
package UploadTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(upload_node send_chunks answer sqlstate_of sqlstates_of extension_functions);

# Start a new cluster with the extension in its database "postgres".
sub upload_node
{
	my ($name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, $params{install_path} ? (install_path => $params{install_path}) : ());

	$node->init(
		allows_streaming => $params{allows_streaming},
		extra => [ '--encoding=UTF8', '--no-locale' ]);
	$node->append_conf('postgresql.conf', "log_statement = none");
	$node->append_conf('postgresql.conf', $params{conf}) if $params{conf};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION vali_blob');
	return $node;
}

# Send further chunks for the uploads $prefix1, $prefix2, ..., which have one
# each: round by round, each chunk with its own call and in its own transaction.
sub send_chunks
{
	my ($node, $prefix, $uploads, $rounds, $length, $setup) = @_;

	$node->safe_psql(
		'postgres', qq{
		$setup;
		DO \$\$
		BEGIN
			FOR round IN 1 .. $rounds LOOP
				FOR i IN 1 .. $uploads LOOP
					PERFORM advance_upload('$prefix' || i, round * $length, $length);
					COMMIT;
				END LOOP;
			END LOOP;
		END \$\$;
	});
	return;
}

# Run commands in a session that background_psql has started.  Returns what they
# print; whether that ends in a newline depends on PostgreSQL's version.
sub answer
{
	my ($session, $sql) = @_;

	return $session->query_safe($sql) =~ s/\n\z//r;
}

# Run commands as a new session does.  Returns the SQLSTATE of the first error,
# or 00000.
sub sqlstate_of
{
	my ($node, $sql, $dbname) = @_;
	my ($rc, $stdout, $stderr) = $node->psql($dbname // 'postgres', $sql,
		extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);

	return '00000' if $rc == 0;
	return $stderr =~ /(?:ERROR|FATAL):\s+(\w{5})$/m ? $1 : $stderr;
}

# Run commands one after the other in a session that begins with $setup, and go
# on after errors.  Returns the SQLSTATE of each.
sub sqlstates_of
{
	my ($node, $dbname, $setup, @commands) = @_;
	my ($rc, $stdout, $stderr) = $node->psql(
		$dbname,
		join("\n", "$setup;", map { "$_;\n\\echo SQLSTATE :SQLSTATE" } @commands),
		on_error_stop => 0);
	my @sqlstates = $stdout =~ /^SQLSTATE (\w{5})$/mg;

	die "the session broke off: $stderr" if @sqlstates != @commands;
	return @sqlstates;
}

# The extension's functions by name, so that a test over all of them cannot
# forget a new one: schema-qualified name, a call with nulls for all arguments,
# and volatility.
sub extension_functions
{
	my ($node, $dbname) = @_;
	my $rows = $node->safe_psql(
		$dbname // 'postgres', q{
		SELECT p.proname, p.oid::regproc,
			(SELECT string_agg('NULL::' || format_type(t, NULL), ', ')
			 FROM unnest(p.proargtypes) t),
			p.provolatile
		FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
		WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
			AND d.refclassid = 'pg_extension'::regclass
			AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'vali_blob')
	});
	my %functions;

	foreach my $row (split /\n/, $rows)
	{
		my ($name, $qualified, $nulls, $volatility) = split /\|/, $row;
		$functions{$name} = {
			null_call => "SELECT * FROM $qualified($nulls)",
			volatility => $volatility
		};
	}
	return %functions;
}

1;
