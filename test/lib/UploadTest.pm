# What the TAP tests of vali_blob share.
package UploadTest;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(upload_node kill_server stat_of restart_after_kill wait_until send_chunks answer sqlstate_of sqlstates_of extension_functions
  upload_life reclaim_life statements answers run_npm);

# Start a new cluster with the extension in its database "postgres".
sub upload_node
{
	my ($name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, $params{install_path} ? (install_path => $params{install_path}) : ());

	$node->init(
		allows_streaming => $params{allows_streaming},
		extra => [ '--encoding=UTF8', '--no-locale', @{ $params{extra} // [] } ]);
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

# What a client of every version does, call by call, with the answer to each: the life
# of the upload u.
sub upload_life
{
	return (
		[ q{SELECT uploaded_bytes, total_size, status FROM start_upload('dir/file', owner => 'ann', upload_id => 'u')}, '0||pending' ],
		[ q{SELECT outcome, uploaded_bytes, ready, status FROM advance_upload('u', 0, 10, provider_data => '{"etag": 1}')}, 'advanced|10|f|in_progress' ],
		[ q{SELECT outcome, uploaded_bytes, total_size FROM try_advance_upload('u', 5, 50)}, 'conflict|10|' ],
		[ q{SELECT outcome, uploaded_bytes, ready FROM advance_uploads('{u,nobody,u}', '{10,0,20}', '{10,1,80}')}, "advanced|20|f\nnot_found||f\nadvanced|100|f" ],
		[ q{SELECT metadata FROM merge_upload_data('u', '{"b": 2}')}, '{"b": 2}' ],
		[ q{SELECT total_size FROM declare_upload_size('u', 100)}, '100' ],
		[ q{SELECT upload_id, status FROM get_upload('u', 'ann')}, 'u|in_progress' ],
		[ q{SELECT upload_id, status FROM get_uploads('{u,nobody,u}')}, "u|in_progress\nu|in_progress" ],
		[ q{SELECT upload_id, status FROM list_uploads('ann', 'dir/', 'in_progress', '0 s')}, 'u|in_progress' ],
		[ q{SELECT status, result FROM complete_upload('u', '{"etag": "e"}')}, 'complete|{"etag": "e"}' ],
		[ q{SELECT delete_upload('u')}, 't' ]);
}

# The same of v, which is aborted, of w, which a sweep expires, and of what they leave.
sub reclaim_life
{
	return (
		[ q{SELECT status FROM start_upload('dir/file', provider_data => '{"part": 1}', upload_id => 'v')}, 'pending' ],
		[ q{SELECT status, abort_reason FROM abort_upload('v', 'reason')}, 'aborted|reason' ],
		[ q{INSERT INTO upload_session (upload_id, path, expires_at, provider_data) VALUES ('w', 'file', '-infinity', '{"part": 2}')} ],
		[ q{SELECT expired, purged, reclaims_dropped FROM sweep_uploads()}, '1|0|0' ],
		[ q{SELECT upload_id, reason, attempts FROM claim_reclaims() ORDER BY upload_id}, "v|aborted|0\nw|expired|0" ],
		[ q{SELECT fail_reclaim(id, 'no') FROM upload_reclaim}, "t\nt" ],
		[ q{SELECT finish_reclaim(id) FROM upload_reclaim}, "t\nt" ]);
}

# The statements of such a life, and all their answers.
sub statements { return map { $_->[0] } @_; }
sub answers { return join "\n", grep { defined } map { $_->[1] } @_; }

# Kill the postmaster, together with its children or so that they find out for
# themselves.  Returns the children.  It is stopped before they are counted: one
# that it starts after that would live on, and might wait for ever for a lock that
# a killed one held.
sub kill_server
{
	my ($node, $with_backends) = @_;

	kill 'STOP', $node->{_pid};
	usleep(1000) until stat_of($node->{_pid}) =~ /\) T /;
	my @backends = children_of($node->{_pid});
	$node->kill9;
	kill 'KILL', @backends if $with_backends;
	return @backends;
}

sub children_of
{
	my ($parent) = @_;

	return grep { (stat_of($_) // '') =~ /\) \S $parent / }
	  map { m{^/proc/(\d+)$} } glob '/proc/[0-9]*';
}

# What the kernel says of a process, if it still is there.
sub stat_of
{
	my ($pid) = @_;

	open my $stat, '<', "/proc/$pid/stat" or return;
	return scalar <$stat>;
}

# Start a node again that was killed.  A start fails as long as backends of the old
# server are about.
sub restart_after_kill
{
	my ($node) = @_;

	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$node->{_pid} = undef;
		return if $node->start(fail_ok => 1);
		usleep(100_000);
	}
	die 'the server did not start again';
}

# Wait until something is true.
sub wait_until
{
	my ($what, $condition) = @_;

	foreach (1 .. 50 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if $condition->();
		usleep(20_000);
	}
	die "waited in vain for $what";
}

# Have npm install packages; false if it cannot, or is not there, of which run_log() would
# die.
sub run_npm
{
	my ($command, @arguments) = @_;

	return run_log([ 'env', 'npm', $command, '--silent', '--no-audit', '--no-fund', @arguments ]);
}

1;
