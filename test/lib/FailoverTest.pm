# What the test of failovers is made of: a pair of servers of which one is the primary and
# the other its standby, uploaders that follow the primary (failover_uploader.py), and a
# judge of what they were answered.
package FailoverTest;

use strict;
use warnings;

use Exporter 'import';
use File::Basename;
use File::Copy;
use File::Path;
use IPC::Open3;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);
use UploadTest;

our @EXPORT = qw(server_pair pair_connstr become_synchronous cut_off fail_over rejoin start_uploaders
  finish_uploaders signal_uploaders hear_uploads await_answers await_sql confirmed_uploads expect_loss);

my $python = '/usr/bin/python3';
my $folder;
my %uploaders;    # that run, by process id
my %ledgers;      # of each uploader, by name: how much of it was read, and the line that is not whole yet
my %uploads;      # what the judge knows of each upload
my %count;        # of answers, by kind

# However the test ends, they end with it.
END
{
	my $status = $?;
	kill 'KILL', keys %uploaders;
	$? = $status;
}

# --- the servers

# Start a primary and its standby.  Their configuration differs in nothing but where each
# finds the other one.
sub server_pair
{
	my (%params) = @_;

	# A process that is killed loses nothing that it has written: that is with the
	# kernel.  So fsync, which is off, makes no difference here.
	my $primary = upload_node('a',
		allows_streaming => 1,
		extra => ['--wal-segsize=1'],
		conf => join "\n", 'max_connections = 60', 'shared_buffers = 16MB', 'wal_keep_size = 64MB',
		'autovacuum_naptime = 1s', "wal_retrieve_retry_interval = '20ms'", $params{conf});
	my $standby = PostgreSQL::Test::Cluster->new('b');

	$primary->backup('pair');
	$standby->init_from_backup($primary, 'pair', has_streaming => 1);
	$primary->append_conf('postgresql.conf', "primary_conninfo = '" . conninfo($standby) . "'");
	$standby->append_conf('postgresql.conf', "primary_conninfo = '" . conninfo($primary) . "'");
	$standby->start;
	become_synchronous($primary);
	return ($primary, $standby);
}

sub conninfo
{
	my ($node) = @_;
	return sprintf 'host=%s port=%s', $node->host, $node->port;
}

# One address for both servers, which leads to the one that is the primary.
sub pair_connstr
{
	my ($one, $other) = @_;

	return sprintf 'host=%s,%s port=%s,%s dbname=postgres target_session_attrs=read-write',
	  $one->host, $other->host, $one->port, $other->port;
}

# From here on, commits wait for the standby.  Those before may have been confirmed without
# it: return when it has them, too.
sub become_synchronous
{
	my ($primary) = @_;

	$primary->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = '*'");
	$primary->reload;
	await_sql($primary, q{sync_state = 'sync' AND state = 'streaming' FROM pg_stat_replication});
	my $written = $primary->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
	await_sql($primary, "flush_lsn >= '$written' FROM pg_stat_replication");
	return;
}

# As poll_query_until, but it is the server that asks again and again, which takes less time.
sub await_sql
{
	my ($node, $condition) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	my $loop = "DO \$await\$ BEGIN WHILE NOT coalesce((SELECT $condition), false) LOOP PERFORM pg_sleep(0.02); END LOOP; END \$await\$";

	while (time < $end)
	{
		my $timed_out;
		my ($rc) = $node->psql('postgres', $loop, timeout => $PostgreSQL::Test::Utils::timeout_default, timed_out => \$timed_out);

		return if $rc == 0 && !$timed_out;
		usleep(100_000);
	}
	die $node->name . ": waited in vain for $condition";
}

# Stop the standby from receiving anything, as if the network were down.
sub cut_off
{
	my ($primary, $standby) = @_;

	$standby->append_conf('postgresql.auto.conf', "primary_conninfo = ''");
	$standby->reload;
	await_sql($primary, 'count(*) = 0 FROM pg_stat_replication');
	return;
}

# Kill the primary, promote the standby.
sub fail_over
{
	my ($primary, $standby, $with_backends) = @_;
	my $postmaster = $primary->{_pid};
	my @backends = kill_server($primary, $with_backends);

	$standby->promote;
	$primary->{killed} = [ $postmaster, @backends ];
	return;
}

# Make the primary that was killed the standby of the one that was promoted.
sub rejoin
{
	my ($old, $primary, $way) = @_;
	my $data = $old->data_dir;
	my $kept = "$folder/postgresql.conf";

	foreach my $pid (@{ delete $old->{killed} })
	{
		usleep(5_000) while (stat_of($pid) // ') Z') !~ /\) [ZX]/;
	}
	# as long as nobody has asked how the postmaster has ended, it would count as alive
	unlink "$data/postmaster.pid", $old->host . '/.s.PGSQL.' . $old->port . '.lock';
	copy("$data/postgresql.conf", $kept) or die "$kept: $!";
	if ($way eq 'pg_rewind')
	{
		# until a checkpoint has been, pg_rewind before version 16 does not see the promotion
		$primary->safe_psql('postgres', 'CHECKPOINT');
		system_log_or_die('pg_rewind', '--no-sync', "--target-pgdata=$data",
			'--source-server=' . conninfo($primary) . ' dbname=postgres');
	}
	else
	{
		rmtree($data);
		system_log_or_die('pg_basebackup', '--no-sync', '--checkpoint=fast', "--pgdata=$data", '--dbname=' . conninfo($primary));
	}
	unlink "$data/postgresql.auto.conf";
	copy($kept, "$data/postgresql.conf") or die "$kept: $!";
	$old->append_conf('postgresql.auto.conf', "synchronous_standby_names = '*'");
	$old->set_standby_mode;
	$old->start;
	return;
}

sub system_log_or_die
{
	my (@command) = @_;

	PostgreSQL::Test::Utils::system_log(@command) == 0 or die "$command[0] has failed";
	return;
}

# --- the uploaders

# Start uploaders.  Of each: its name, its connection string, the size of its files, its options.
sub start_uploaders
{
	my (@list) = @_;

	$folder = "$PostgreSQL::Test::Utils::tmp_check/failover";
	mkdir $folder;
	foreach (@list)
	{
		my ($name, $connstr, $size, @options) = @$_;
		my $pid = open3(my $in, '>&STDERR', '>&STDERR', $python, dirname(__FILE__) . '/failover_uploader.py',
			$connstr, $folder, $name, $size, @options);

		$uploaders{$pid} = $in;
		$ledgers{$name} = { at => 0, rest => '' };
	}
	return;
}

sub signal_uploaders
{
	my ($signal) = @_;

	kill $signal, keys %uploaders;
	return;
}

# Let them finish the uploads that they are at.  Returns how many have ended well.
sub finish_uploaders
{
	my $well = 0;

	close $_ foreach values %uploaders;
	foreach my $pid (keys %uploaders)
	{
		hear_uploads(), usleep(20_000) until waitpid $pid, POSIX::WNOHANG();
		$well++ if $? == 0;
		delete $uploaders{$pid};
	}
	hear_uploads();
	return $well;
}

# Take in all that the uploaders have written down.  Returns the numbers of answers so far.
sub hear_uploads
{
	foreach my $name (sort keys %ledgers)
	{
		my $ledger = $ledgers{$name};

		open my $file, '<', "$folder/$name.ledger" or next;
		seek $file, $ledger->{at}, 0;
		my $text = $ledger->{rest} . do { local $/; <$file> // '' };
		$ledger->{at} = tell $file;
		$ledger->{rest} = $text =~ s/([^\n]*)\z// ? $1 : '';
		judge($_) foreach split /\n/, $text;
	}
	return \%count;
}

# Wait until so many chunks more were confirmed.
sub await_answers
{
	my ($more) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	my $until = ($count{advanced} // 0) + $more;

	while ((hear_uploads()->{advanced} // 0) < $until)
	{
		die 'the uploaders do not get on' if time > $end;
		die 'an uploader has failed' if grep { waitpid $_, POSIX::WNOHANG() } keys %uploaders;
		usleep(10_000);
	}
	return;
}

# --- the judge

# What the next line of a ledger says, after all before it.  What is wrong with an answer
# is counted as "wrong", and shown:
# - the bytes are those that were confirmed, or these and the one chunk that had no answer;
# - a chunk advances the upload once, and is replayed only if it was sent before;
# - what has ended stays so, and no epoch comes back.
sub judge
{
	my ($line) = @_;
	my ($id, $answer, $bytes, @rest) = split ' ', $line;

	if ($id eq 'calls')
	{
		take_call($answer, $bytes, @rest);
		return;
	}
	my $upload = $uploads{$id};

	$count{$answer}++;
	if (goes_back($upload, $answer, $bytes))
	{
		$count{back}++;
	}
	elsif (my $wrong = what_is_wrong($upload, $id, $answer, $bytes, @rest))
	{
		$count{wrong}++;
		push @{ $count{shown} }, "$line: $wrong";
	}
	$count{found}++ if $answer eq 'asked' && $bytes > ($upload->{confirmed} // 0);
	$upload->{confirmed} = $bytes if $answer ne 'refused';
	# an answer of the primary that was lost may be read only when it is gone: its end is no more
	$upload->{ended} = $answer if $answer =~ /^(?:complete|aborted|expired)$/ && !$upload->{called_before_loss};
	$upload->{epoch} = $rest[0] if $answer eq 'lease';
	$upload->{chunks}{ $rest[0] } = 1 if $answer =~ /^(?:advanced|replayed)$/;
	delete @{$upload}{qw(calls unanswered called_before_loss)};
	return;
}

sub take_call
{
	my ($function, $id, $offset, $length) = @_;
	my $upload = $uploads{$id} //= { confirmed => undef, ended => '', epoch => 0 };

	$count{unanswered}++ if $upload->{calls};
	$upload->{calls} = $function;
	delete $upload->{called_before_loss};
	return if $function ne 'advance';
	$upload->{sent}{$offset}++;
	$upload->{unanswered} = [ $offset, $length ];
	return;
}

# Is this what a client is told after a loss (see expect_loss)?  That happens once, and
# where it is told to go on is where the upload stands.
sub goes_back
{
	my ($upload, $answer, $bytes) = @_;

	return 0 if !defined $upload->{truth} || $answer !~ /^(?:conflict|asked|not_found)$/;
	return 0 if $bytes != $upload->{truth} || $bytes > $upload->{confirmed};
	delete $upload->{truth};
	$upload->{ended} = '';
	delete @{ $upload->{chunks} }{ grep { $_ >= $bytes } keys %{ $upload->{chunks} } };
	return 1;
}

sub what_is_wrong
{
	my ($upload, $id, $answer, $bytes, @rest) = @_;
	my $confirmed = $upload->{confirmed} // 0;
	my $unanswered = $upload->{unanswered};
	my $end = $unanswered ? $unanswered->[0] + $unanswered->[1] : $confirmed;

	if ($answer eq 'advanced' || $answer eq 'replayed')
	{
		return 'not where the chunk ends' if $bytes != $rest[0] + $rest[1];
		return 'the chunk was confirmed before' if $upload->{chunks}{ $rest[0] } || $rest[0] < $confirmed;
		return 'the chunk was not sent before' if $answer eq 'replayed' && $upload->{sent}{ $rest[0] } == 1;
	}
	elsif ($answer eq 'lease')
	{
		return 'an epoch that was before' if $rest[0] < $upload->{epoch};
	}
	elsif ($answer eq 'expired')
	{
		return 'it was not left behind' if $id !~ /leave$/;
	}
	elsif ($answer eq 'refused' || $answer eq 'gone')
	{
		# what a client does about a loss
		return defined $upload->{lossy} ? '' : 'nothing was lost';
	}
	elsif ($answer !~ /^(?:started|asked|complete|aborted|whole)$/)
	{
		return 'no answer that may come';
	}
	return "it has ended as $upload->{ended}" if $upload->{ended} && $answer !~ /^(?:$upload->{ended}|whole)$/;
	return "neither $confirmed nor $end bytes" if $bytes != $confirmed && $bytes != $end;
	return '';
}

# What was confirmed to the uploaders until now: for each upload the bytes, how it ended if
# it has, and the epoch of its lease.
sub confirmed_uploads
{
	hear_uploads();
	return map { ($_ => [ @{ $uploads{$_} }{qw(confirmed ended epoch)} ]) }
	  grep { defined $uploads{$_}{confirmed} } keys %uploads;
}

# From here on, uploads may have gone back to what the server has: for each of them the
# bytes, and how it has ended.  One that it does not have is not in the list.  Returns what
# was confirmed and is lost: uploads, ends of uploads, chunks, bytes.
sub expect_loss
{
	my (%truth) = @_;
	my %lost = (uploads => 0, ends => 0, chunks => 0, bytes => 0);

	foreach my $id (keys %uploads)
	{
		my $upload = $uploads{$id};
		my ($bytes, $ended) = @{ $truth{$id} // [ 0, '' ] };

		if (defined $upload->{confirmed})
		{
			$lost{uploads}++ if !$truth{$id};
			$lost{ends}++ if $upload->{ended} ne $ended;
			$lost{chunks} += grep { $_ >= $bytes } keys %{ $upload->{chunks} };
			$lost{bytes} += $upload->{confirmed} - $bytes if $upload->{confirmed} > $bytes;
		}
		@{$upload}{qw(truth ended lossy)} = ($bytes, $ended, 1);
		$upload->{called_before_loss} = 1 if $upload->{calls};
	}
	return \%lost;
}

1;
