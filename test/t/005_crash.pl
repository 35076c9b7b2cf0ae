# SIGKILL for the server while 16 uploaders are at work, many times over: no
# confirmed byte is lost, no chunk counts twice, and every upload goes on from
# its confirmed byte.  Every other time the backends are killed together with
# the postmaster; otherwise they find out for themselves.
#
# Each uploader is a process with a psql of its own.  It tells the test what it
# sends and what was acknowledged to it; so after a crash the truth must be what
# was acknowledged last, or that plus the one chunk that was under way.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use IO::Handle;
use IPC::Open2;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $uploaders = 16;
my $crashes = 20;
my $seed = $ENV{RANDOM_SEED} || time;

note "RANDOM_SEED=$seed";
srand $seed;

my $node = upload_node('main',
	conf => "fsync = on\nmax_wal_size = 64MB\ncheckpoint_timeout = 30s");
$node->safe_psql('postgres',
	"SELECT count(start_upload('file', upload_id => 'u' || i)) FROM generate_series(1, $uploaders) i");

# What the test knows of each upload: bytes acknowledged, length of the chunk
# under way (0: none), and number of chunks acknowledged.
my %known =
  map { ("u$_" => { acknowledged => 0, under_way => 0, chunks => 0 }) }
  1 .. $uploaders;

# One uploader: sends chunk after chunk until its connection breaks.  It
# begins with $resend bytes if given, as a client does that repeats the chunk
# which got no answer.
sub upload
{
	my ($report, $upload_id, $offset, $resend) = @_;
	my $pid = open2(my $answers, my $commands,
		'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'));

	local $SIG{PIPE} = 'IGNORE';
	$commands->autoflush(1);
	while (1)
	{
		my $length = $resend // 1 + int rand 8_000_000;

		syswrite $report, "$upload_id sends $length\n" or last;
		print $commands
		  "SELECT outcome, uploaded_bytes FROM try_advance_upload('$upload_id', $offset, $length);\n";
		my $answer = <$answers>;
		last if !defined $answer;
		chomp $answer;
		syswrite $report, "$upload_id got $answer\n";

		$offset += $length;
		$resend = undef;
	}
	close $commands;
	waitpid $pid, 0;
	return;
}

# Start all uploaders.  Returns the pipe with their reports; it ends when the
# last of them has.
sub start_uploaders
{
	my (%first_chunk) = @_;
	pipe my $reports, my $report or die "pipe: $!";

	foreach my $upload_id (sort keys %known)
	{
		my $offset = $known{$upload_id}{acknowledged};
		my $child_seed = int rand 2**31;
		my $pid = fork // die "fork: $!";
		next if $pid;

		close $reports;
		open STDERR, '>', '/dev/null';
		srand $child_seed;
		upload($report, $upload_id, $offset, $first_chunk{$upload_id});
		# without the END blocks, which would stop the server
		POSIX::_exit(0);
	}
	close $report;
	return $reports;
}

# Take in one report.  Returns whether it was an acknowledgement.
sub hear
{
	my ($report) = @_;
	my ($upload_id, $what, $value) = split ' ', $report;
	my $upload = $known{$upload_id};

	if ($what eq 'sends')
	{
		$upload->{under_way} = $value;
		return 0;
	}

	my $expected = $upload->{acknowledged} + $upload->{under_way};
	if ($value !~ /^(advanced|replayed)\|$expected$/)
	{
		diag "$upload_id: got $value, not advanced|$expected; RANDOM_SEED=$seed";
		die 'an upload did not go on from its confirmed byte';
	}
	$upload->{acknowledged} = $expected;
	$upload->{under_way} = 0;
	$upload->{chunks}++;
	return 1;
}

# Kill the server as soon as so many acknowledgements have come since its
# start, then hear the reports to the end.  Returns the number of all that came.
sub crash_after
{
	my ($count, $reports, $with_backends) = @_;
	my $heard = 0;

	while (my $report = <$reports>)
	{
		my $is_acknowledgement = hear($report);
		$heard += $is_acknowledgement;
		kill_server($node, $with_backends) if $is_acknowledgement && $heard == $count;
	}
	1 while waitpid(-1, 0) > 0;
	die "all uploaders stopped after $heard acknowledgements" if $heard < $count;
	return $heard;
}

my $resumed = 0;
my %first_chunk;
foreach my $crash (1 .. $crashes)
{
	my $count = 50 + int rand 400;
	my $with_backends = $crash % 2;
	my $reports = start_uploaders(%first_chunk);
	my $heard = crash_after($count, $reports, $with_backends);

	restart_after_kill($node);

	my %confirmed = map { split /\|/ } split /\n/, $node->safe_psql('postgres',
		'SELECT upload_id, uploaded_bytes FROM list_uploads()');
	my @wrong;

	%first_chunk = ();
	foreach my $upload_id (sort keys %known)
	{
		my $upload = $known{$upload_id};
		my $with_chunk = $upload->{acknowledged} + $upload->{under_way};
		my $confirmed = $confirmed{$upload_id} // -1;

		push @wrong, "$upload_id: acknowledged $upload->{acknowledged}, "
		  . "under way $upload->{under_way}, confirmed $confirmed"
		  if $confirmed != $upload->{acknowledged} && $confirmed != $with_chunk;

		# Half of the uploaders ask where to go on; the others repeat the
		# chunk that got no answer, confirmed or not.
		if ($upload->{under_way} && rand() < 0.5)
		{
			$first_chunk{$upload_id} = $upload->{under_way};
		}
		else
		{
			$upload->{acknowledged} = $confirmed;
		}
		$resumed++ if $confirmed == $with_chunk && $upload->{under_way};
		$upload->{under_way} = 0;
	}
	is_deeply(\@wrong, [],
		"crash $crash after $heard acknowledgements"
		  . ($with_backends ? ', backends too' : ''))
	  or diag "RANDOM_SEED=$seed";
}
note "$resumed chunks were confirmed and not acknowledged";

foreach my $upload_id (sort keys %known)
{
	my $upload = $known{$upload_id};
	my $confirmed = $node->safe_psql('postgres',
		"SELECT uploaded_bytes FROM get_upload('$upload_id')");

	is( sqlstate_of($node,
			"SELECT advance_upload('$upload_id', $confirmed, 1, final => true)"),
		'00000',
		"$upload_id is finished after $upload->{chunks} chunks");
}

done_testing();
