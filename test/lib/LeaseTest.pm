# What the tests of leases share: several processes that upload files together
# (lease_writer.py), and what befalls them.
package LeaseTest;

use strict;
use warnings;

use Digest::SHA;
use Exporter 'import';
use File::Basename;
use IO::Select;
use IPC::Open2;
use POSIX qw(WUNTRACED);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);
use UploadTest;

our @EXPORT = qw(find_psycopg2 run_writers check_uploads $upload_size);

our $upload_size = 50_000;
my $python = '/usr/bin/python3';
my $folder;
my %writers;    # that run, by process id

# However the test ends, they end with it.
END
{
	my $status = $?;
	kill 'KILL', keys %writers;
	$? = $status;
}

sub find_psycopg2 { return run_log([ $python, '-c', 'import psycopg2' ]); }

# Run commands as safe_psql does, as soon as the server answers.
sub ask
{
	my ($run, $sql) = @_;

	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my ($rc, $stdout) = $run->{node}->psql($run->{dbname}, $sql);

		return $stdout if $rc == 0;
		usleep(100_000);
	}
	die 'the server did not answer';
}

# Start a writer.  Its name is that of no other one, dead or alive: whoever comes by the
# same name has the same lease.
sub start_writer
{
	my ($run) = @_;
	my $holder = 'holder ' . ++$run->{started};
	my $pid = open2(my $out, my $in, $python, dirname(__FILE__) . '/lease_writer.py',
		$run->{connstr}, $folder, $holder, $run->{duration}, sort keys %{ $run->{uploads} });

	$writers{$pid} = { pid => $pid, holder => $holder, in => $in, out => $out, text => '', last => '', answered => '' };
	return;
}

# Read what a writer has told, without waiting.  Returns false if it has ended.
sub listen_to
{
	my ($run, $writer) = @_;

	while (IO::Select->new($writer->{out})->can_read(0))
	{
		return 0 if !sysread $writer->{out}, $writer->{text}, 65536, length $writer->{text};
		$run->{heard_at} = time;
		while ($writer->{text} =~ s/^(.*)\n//)
		{
			hear($run, $writer, $1);
		}
	}
	return 1;
}

sub hear
{
	my ($run, $writer, $line) = @_;
	my ($word) = split / /, $line;

	$run->{count}{$word}++;
	return if $word eq 'lost';
	if (my $expected = delete $writer->{expected})
	{
		is($line, $expected, "$run->{name}: what a stopped writer has written is fenced");
	}
	$writer->{last} = $line;
	return;
}

# Forget a writer that has ended, and return how.
sub bury
{
	my ($writer) = @_;

	waitpid $writer->{pid}, 0;
	my $status = $?;
	close $writer->{in};
	close $writer->{out};
	delete $writers{ $writer->{pid} };
	return $status;
}

# Let a writer confirm what it has written.
sub answer_writer
{
	my ($writer) = @_;

	return if $writer->{answered} eq $writer->{last};
	$writer->{answered} = $writer->{last};
	syswrite $writer->{in}, "\n";
	return;
}

# --- what befalls a writer that has written a chunk, and is perhaps about to confirm it;
# false: it was not to be

# It is stopped.
sub do_stop
{
	my ($run, $writer) = @_;

	kill 'STOP', $writer->{pid};
	waitpid $writer->{pid}, WUNTRACED;
	die "$writer->{holder} has failed: $?" if $?;
	listen_to($run, $writer);
	if ($writer->{last} !~ /^written (.*)/)
	{
		kill 'CONT', $writer->{pid};
		return 0;
	}
	$writer->{stopped_at} = $1;
	return 1;
}

# Wake one that was stopped, once another one has its lease.  So that it does harm if it
# can, it is told to write what is wrong.
sub wake
{
	my ($run, $writer) = @_;
	return if time < ($writer->{next_look} // 0);
	$writer->{next_look} = time + 0.1;
	my $name = $writer->{stopped_at};
	my ($id, $epoch) = split /\./, $name;
	my ($lost, $confirmed) = split /\|/, ask($run, qq{
		SELECT lease_epoch > $epoch, EXISTS (SELECT FROM upload_part AS p WHERE p.upload_id = s.upload_id AND etag = '$name')
		FROM upload_session AS s WHERE upload_id = '$id'});

	return if $lost eq 'f' && $confirmed eq 'f';
	delete $writer->{stopped_at};
	if ($confirmed eq 't')
	{
		# the call was under way already
		unshift @{ $run->{uploads}{$id} }, [ 0, 'stop' ];
	}
	else
	{
		$writer->{expected} = "fenced $name";
		$run->{count}{woken}++;
		kill 'USR1', $writer->{pid};
	}
	kill 'CONT', $writer->{pid};
	answer_writer($writer);
	return;
}

# It is killed, and another one comes.
sub do_kill
{
	my ($run, $writer) = @_;

	kill 'KILL', $writer->{pid};
	bury($writer);
	start_writer($run);
	return 1;
}

# Its backend is killed, and the server restarts its processes.
sub do_kill_backend
{
	my ($run, $writer) = @_;
	my $begun = q{SELECT min(backend_start) FROM pg_stat_activity WHERE backend_type = 'checkpointer'};
	my $before = ask($run, $begun);
	my $pid = ask($run, "SELECT pid FROM pg_stat_activity WHERE application_name = '$writer->{holder}'");

	return 0 if !$pid;
	kill 'KILL', $pid;
	foreach (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 if ask($run, $begun) ne $before;
		usleep(10_000);
	}
	die 'the server did not restart its processes';
}

# The whole server is killed, and started again.
sub do_kill_server
{
	my ($run) = @_;

	$run->{node}->kill9;
	restart_after_kill($run->{node});
	return 1;
}

my %mishaps = (
	stop => \&do_stop,
	kill => \&do_kill,
	kill_backend => \&do_kill_backend,
	kill_server => \&do_kill_server);

# Let a writer go on that has written a chunk, unless something is to befall it.
sub meet_fate
{
	my ($run, $writer) = @_;

	return if $writer->{answered} eq $writer->{last} || $writer->{last} !~ /^written (\w+)\.\d+\.(\d+)$/;
	my $fate = $run->{uploads}{$1};
	if (@$fate && $2 >= $fate->[0][0])
	{
		my ($at, $what) = @{ shift @$fate };

		answer_writer($writer) if rand 2 < 1;
		if ($mishaps{$what}->($run, $writer))
		{
			$run->{count}{$what}++;
		}
		else
		{
			unshift @$fate, [ $at, $what ];
		}
	}
	answer_writer($writer) if $writers{ $writer->{pid} } && !$writer->{stopped_at};
	return;
}

# Start uploads of random files and have several writers upload them.  Of the parameters,
# uploads names for each of them what is to happen in the course of it.
sub run_writers
{
	my ($name, %params) = @_;
	my $run = { duration => '300 ms', writers => 4, %params, name => $name, heard_at => time };

	$folder = "$PostgreSQL::Test::Utils::tmp_check/storage";
	mkdir $folder;
	foreach my $id (sort keys %{ $run->{uploads} })
	{
		open my $source, '>:raw', "$folder/$id.source" or die "$folder/$id.source: $!";
		print $source map { chr int rand 256 } 1 .. $upload_size;
		close $source or die $!;
		my @places = sort { $a <=> $b } map { int rand 0.7 * $upload_size } @{ $run->{uploads}{$id} };
		$run->{uploads}{$id} = [ map { [ shift @places, $_ ] } @{ $run->{uploads}{$id} } ];
		ask($run, "SELECT start_upload('file', $upload_size, upload_id => '$id', or_resume => true)");
	}

	start_writer($run) foreach 1 .. $run->{writers};
	while (%writers)
	{
		IO::Select->new(map { $_->{out} } grep { !$_->{stopped_at} } values %writers)->can_read(0.02);
		my @there = values %writers;
		foreach my $writer (@there)
		{
			if ($writer->{stopped_at})
			{
				wake($run, $writer);
			}
			elsif (!listen_to($run, $writer))
			{
				is(bury($writer), 0, "$name: $writer->{holder} ends when all uploads have") or die 'a writer has failed';
			}
			else
			{
				meet_fate($run, $writer);
			}
		}
		die "$name: no writer has told anything for too long" if time - $run->{heard_at} > $PostgreSQL::Test::Utils::timeout_default;
	}
	is_deeply([ sort grep { !/^(?:begun|lost|written|advanced|replayed|fenced|woken|stop|kill\w*)$/ } keys %{ $run->{count} } ],
		[], "$name: a chunk has no other outcome");
	note join ', ', "$name: $run->{started} writers", map { "$_: $run->{count}{$_}" } sort keys %{ $run->{count} };
	return $run->{count};
}

# Check that uploads are complete, and that what was confirmed of each is its file.
sub check_uploads
{
	my ($name, $node, $dbname, @ids) = @_;

	foreach my $id (@ids)
	{
		my $digest = Digest::SHA->new(256);

		is($node->safe_psql($dbname, qq{
				SELECT status, uploaded_bytes, lease_holder IS NULL, lease_epoch > 0
				FROM upload_session WHERE upload_id = '$id'}),
			"complete|$upload_size|t|t", "$name: $id is complete");
		my @files = split /\n/, $node->safe_psql($dbname, "SELECT etag FROM upload_part WHERE upload_id = '$id' ORDER BY chunk_offset");
		$digest->addfile("$folder/$_") foreach @files;
		is($digest->hexdigest, Digest::SHA->new(256)->addfile("$folder/$id.source")->hexdigest,
			"$name: the " . @files . ' parts that were confirmed are the file');
		my @epochs = map { (split /\./)[1] } @files;
		is("@epochs", join(' ', sort { $a <=> $b } @epochs), "$name: no epoch has come back after a later one");
	}
	return;
}

1;
