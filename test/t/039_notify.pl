# Notifications: whoever listens hears each event once, when the transaction has
# committed, and nothing that is not for everybody.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SweeperTest;
use Test::More;
use UploadTest;

my $node = sweeper_node('main', conf => 'vali_blob.sweep = off');

# A client, and two listeners.  The second one is a role that has been granted nothing.
$node->safe_psql('postgres', 'CREATE ROLE nobody');
my $client = $node->background_psql('postgres');
$client->query_safe('SET client_min_messages = error');
my @listeners = map { $node->background_psql('postgres') } 1 .. 2;
$listeners[1]->query_safe('SET ROLE nobody');
$_->query_safe('LISTEN vali_blob; LISTEN vali_blob_lease; LISTEN mark') foreach @listeners;

my $marks = 0;
my @payloads;    # all that were heard
my %name;        # of a session, by id

# Return what a listener has heard since the last time, in the order of the commits, as
# channel and payload.
sub hear
{
	my ($listener, $mark) = @_;
	my $heard = '';

	foreach (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$heard .= answer($listener, 'SELECT pg_sleep(0.01)') . "\n";
		last if $heard =~ /"mark" with payload "$mark"/;
	}
	my @heard;
	push @heard, [ $1, $2 ] while $heard =~ /^Asynchronous notification "(\w+)"(?: with payload "(.*)")? received from/mg;
	my $last = pop @heard;
	die "listened in vain for $mark" if !$last || $last->[0] ne 'mark';
	return @heard;
}

# What both listeners have heard since the last time: each event as "event name status
# uploaded_bytes/total_size", or "event name" of a lease.
sub heard
{
	my $mark = ++$marks;

	$client->query_safe("NOTIFY mark, '$mark'");
	my ($first, $second) = map { [ hear($_, $mark) ] } @listeners;
	is_deeply($second, $first, 'both hear the same') if @$first || @$second;
	%name = (%name, map { (split /\|/)[ 0, 1 ] } split /\n/,
		answer($client, q{SELECT id, split_part(upload_id, ' ', 2) FROM upload_session}));
	return join ', ', map { show(@$_) } @$first;
}

sub show
{
	my ($channel, $payload) = @_;
	my $event = decode_json($payload);
	my $keys = join ' ', sort keys %$event;
	my $name = $name{ $event->{id} } // 'somebody';

	push @payloads, $payload;
	return "$event->{event} $name" if $channel eq 'vali_blob_lease' && $keys eq 'event id';
	return "$event->{event} $name $event->{status} $event->{uploaded_bytes}/" . ($event->{total_size} // 'null')
	  if $channel eq 'vali_blob' && $keys eq 'event id status total_size uploaded_bytes';
	return "$channel: $payload";
}

my ($way, $notify);

# Run commands as the client, in transactions of their own unless they say otherwise,
# and check what is heard.
sub hears
{
	my ($sql, $expected, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$client->query_safe("SET vali_blob.row_access = $way; SET vali_blob.notify = $notify; SET vali_blob.notify_interval = '1h'; $sql");
	is(heard(), $expected, "$test, row_access = $way, notify = $notify");
	return;
}

# Start uploads, which have what must not be told.
sub start
{
	my ($names, $more) = @_;
	$more = defined $more ? ", $more" : '';

	return join ';', map {
		qq{SELECT start_upload('secret path', upload_id => 'secret $_', owner => 'secret owner', bucket => 'secret bucket',
			metadata => '{"secret": 1}', provider_data => '{"secret": 1}'$more)}
	} split / /, $names;
}

sub clear
{
	$client->query_safe('TRUNCATE upload_session, upload_reclaim CASCADE');
	return;
}

my $overdue = q{UPDATE upload_session SET expires_at = now() - interval '1 s' WHERE upload_id =};

foreach ([ 'auto', 'off' ], [ 'sql', 'off' ], [ 'auto', 'lifecycle' ], [ 'sql', 'lifecycle' ], [ 'auto', 'progress' ], [ 'sql', 'progress' ])
{
	($way, $notify) = @$_;
	my $is_on = $notify ne 'off';
	my $on = sub { $is_on ? join ', ', @_ : '' };
	my $chunks = sub { $notify eq 'progress' ? @_ : () };

	clear();
	hears(start('a', 'total_size => 30'), $on->('started a pending 0/30'), 'a start');
	hears(q{
		SELECT advance_upload('secret a', 0, 10);
		SELECT advance_upload('secret a', 10, 10);
		SELECT advance_upload('secret a', 10, 10);
		SELECT try_advance_upload('secret a', 0, 15);
		SELECT try_advance_upload('secret a', 20, 10)},
		$on->($chunks->('progress a in_progress 10/30')), 'chunks');
	hears(q{SELECT complete_upload('secret a'), complete_upload('secret a')}, $on->('completed a complete 30/30'), 'a completion');
	hears(q{SELECT delete_upload('secret a'), delete_upload('secret a')}, $on->('deleted a complete 30/30'), 'a deletion');

	clear();
	hears(start('a b c d e'), $on->(map { "started $_ pending 0/null" } 'a' .. 'e'), 'several starts');
	hears(start('a', 'or_resume => true') . '; ' . start('f', 'or_resume => true'), $on->('started f pending 0/null'), 'one that exists, and one that does not');
	hears(q{SELECT declare_upload_size('secret a', 100), merge_upload_data('secret a', '{"b": 1}'), count(*) FROM list_uploads()}, '', 'a size, data, and readers');
	hears(q{SELECT abort_upload('secret a', 'secret reason'), abort_upload('secret a')}, $on->('aborted a aborted 0/100'), 'an abort');
	hears(q{SELECT delete_upload('secret b')}, $on->('aborted b aborted 0/null', 'deleted b aborted 0/null'), 'a deletion while it was live');
	hears(qq{$overdue 'secret c'; SELECT delete_upload('secret c', 'somebody'), delete_upload('secret c')},
		$on->('expired c expired 0/null', 'deleted c expired 0/null'), 'a deletion of one that was overdue');
	hears(qq{$overdue 'secret d'; SELECT * FROM sweep_uploads()}, $on->('expired d expired 0/null'), 'an expiry');
	hears(qq{$overdue 'secret d'; SELECT * FROM sweep_uploads(); SELECT * FROM sweep_uploads()}, '', 'a purge');
	hears(q{SELECT advance_upload('secret e', 0, 7, final => true)}, $on->('completed e complete 7/7'), 'a chunk that completes');
	hears(start('g', 'total_size => 0, auto_complete => true'), $on->('started g complete 0/0', 'completed g complete 0/0'), 'a start that completes');
	hears(start('h', 'auto_complete => true, any_order => true') . q{;
		SELECT advance_upload('secret h', 5, 5, etag => 'secret etag');
		SELECT declare_upload_size('secret h', 10);
		SELECT advance_upload('secret h', 0, 5)},
		$on->('started h pending 0/null', $chunks->('progress h in_progress 5/null'), 'completed h complete 10/10'), 'one that completes by itself');

	clear();
	hears(start('a', 'total_size => 10') . q{;
		BEGIN; } . start('b') . q{; SELECT advance_upload('secret a', 0, 10), complete_upload('secret a'); ROLLBACK;
		BEGIN; SELECT abort_upload('secret a'), delete_upload('secret a'); ROLLBACK;
		BEGIN; SAVEPOINT s; SELECT advance_upload('secret a', 0, 10, final => true); ROLLBACK TO s; } . start('c') . q{; COMMIT},
		$on->('started a pending 0/10', 'started c pending 0/null'), 'what is rolled back is not told');
	hears(q{BEGIN; SELECT advance_upload('secret a', 0, 5); SELECT advance_upload('secret a', 5, 5), complete_upload('secret a'); SELECT delete_upload('secret a'); COMMIT},
		$on->($chunks->('progress a in_progress 5/10'), 'completed a complete 10/10', 'deleted a complete 10/10'), 'several events of a transaction, in their order');

	# --- leases, which notify whatever the setting

	clear();
	my $acquire = sub { "SELECT acquire_upload_lease('secret $_[0]', 'secret $_[1]', duration => '1 h')" };
	my $release = sub { "SELECT release_upload_lease('secret $_[0]', $_[1])" };
	my $ask = sub { $acquire->($_[0], 'one') . ';' . $acquire->($_[0], 'two') };
	$client->query_safe('SET vali_blob.notify = off;' . start('a b c d e f', 'total_size => 0') . ';' . start('g', 'total_size => 10, auto_complete => true'));
	hears($acquire->('a', 'one') . ';' . $release->('a', 1), '', 'a lease that nobody else wants');
	hears($acquire->('a', 'one') . ';' . $acquire->('a', 'one') . q{; SELECT renew_upload_lease('secret a', 2)}, '', 'and one that goes on');
	hears('BEGIN;' . $acquire->('a', 'two') . '; ROLLBACK', '', 'a request that is rolled back');
	hears($acquire->('a', 'two') . ';' . $acquire->('a', 'three') . ';' . $acquire->('a', 'two') . q{; SELECT renew_upload_lease('secret a', 2)},
		'requested a', 'a request, once');
	hears($release->('a', 1), '', 'a release by whom it has not');
	hears('BEGIN;' . $release->('a', 2) . '; ROLLBACK', '', 'a release that is rolled back');
	hears($release->('a', 2) . ';' . $release->('a', 2), 'released a', 'a release');
	hears($acquire->('a', 'two') . ';' . $release->('a', 3), '', 'another one, which nobody has asked for');
	hears($ask->('a') . q{; SELECT acquire_upload_lease('secret a', 'secret three', take_over => true)}, 'requested a, released a', 'a lease that a third one takes, so that the second may ask again');
	hears($release->('a', 5), '', '... and has not been asked for since');
	hears($ask->('b') . q{; SELECT complete_upload('secret b')}, join(', ', 'requested b', 'released b', $on->('completed b complete 0/0') || ()), 'a completion releases');
	hears($ask->('c') . q{; SELECT abort_upload('secret c')}, join(', ', 'requested c', 'released c', $on->('aborted c aborted 0/0') || ()), 'an abort releases');
	hears($ask->('d') . q{; SELECT delete_upload('secret d')},
		join(', ', 'requested d', 'released d', $on->('aborted d aborted 0/0', 'deleted d aborted 0/0') || ()), 'a deletion releases');
	hears($ask->('e') . "; $overdue 'secret e'; SELECT * FROM sweep_uploads()",
		join(', ', 'requested e', 'released e', $on->('expired e expired 0/0') || ()), 'an expiry releases');
	hears($ask->('g') . q{; SELECT advance_upload('secret g', 0, 10, lease_epoch => 1)},
		join(', ', 'requested g', 'released g', $on->('completed g complete 10/10') || ()), 'the last chunk releases');
	hears($acquire->('f', 'one') . q{; SELECT complete_upload('secret f')}, $on->('completed f complete 0/0'), 'nothing does if nobody has asked');
	hears($acquire->('f', 'two'), '', 'a lease of what has ended');
}

# --- progress, and how often

$notify = 'progress';
foreach ('auto', 'sql')
{
	$way = $_;
	my $chunk = sub { "SELECT advance_upload('secret $_[0]', $_[1], 10)" };
	my $notified_at = q{SELECT notified_at FROM upload_session WHERE upload_id = 'secret a'};

	clear();
	hears(start('a b', 'total_size => 1000') . ';' . join(';', map { ($chunk->('a', 10 * $_), $chunk->('b', 10 * $_)) } 0 .. 9),
		'started a pending 0/1000, started b pending 0/1000, progress a in_progress 10/1000, progress b in_progress 10/1000',
		'each upload tells its progress, once in the interval');
	my $before = answer($client, $notified_at);
	hears($chunk->('a', 100) . ';' . $chunk->('a', 110), '', 'others do not');
	is(answer($client, $notified_at), $before, '... and leave notified_at as it is');
	hears(q{UPDATE upload_session SET notified_at = now() - interval '59 min 50 s' WHERE upload_id = 'secret a';} . $chunk->('a', 120), '', 'just before the interval ends');
	hears(q{UPDATE upload_session SET notified_at = now() - interval '1 h';} . $chunk->('a', 130) . ';' . $chunk->('a', 140),
		'progress a in_progress 140/1000', 'as soon as it has ended');
	is(answer($client, q{SELECT notified_at < updated_at, notified_at > now() - interval '1 h' FROM upload_session WHERE upload_id = 'secret a'}),
		't|t', '... which says when, and not when the last chunk came');
	hears(q{SET vali_blob.notify_interval = 0;} . join(';', map { $chunk->('a', $_) } 150, 160, 170),
		join(', ', map { "progress a in_progress $_/1000" } 160, 170, 180), 'without an interval, each chunk is told');
	is(answer($client, q{SELECT notified_at = updated_at FROM upload_session WHERE upload_id = 'secret a'}), 't', 'notified_at is the last of them');
	hears(q{SET vali_blob.notify_interval = 0; SELECT advance_upload('secret a', 170, 10); SELECT try_advance_upload('secret a', 0, 500); SELECT advance_upload('secret a', 180, 0)},
		'progress a in_progress 180/1000', 'no chunk is told that changes nothing');

	# Whether the chunks of one call are written, and told, one by one or together is no
	# part of the contract.
	clear();
	my $together = sub {
		my ($settings) = @_;
		$client->query_safe(qq{
			SET vali_blob.row_access = $way; SET vali_blob.notify = progress; $settings;
			@{[ start('a b', 'total_size => 100') ]};
			SELECT outcome FROM advance_uploads('{secret a,secret b,secret a,secret a}', '{0,0,10,20}', '{10,10,10,10}')});
		return heard();
	};
	like($together->(q{SET vali_blob.notify_interval = '1h'}),
		qr{^started a pending 0/100, started b pending 0/100, progress a in_progress (10|30)/100, progress b in_progress 10/100$},
		"chunks of one call, once in the interval, row_access = $way");
	clear();
	like($together->('SET vali_blob.notify_interval = 0'),
		qr{^started a pending 0/100, started b pending 0/100, (progress a in_progress 10/100, progress a in_progress 20/100, )?progress a in_progress 30/100, progress b in_progress 10/100$},
		"chunks of one call, without an interval, row_access = $way");
	clear();
	$client->query_safe(qq{
		SET vali_blob.notify_interval = 0;
		@{[ start('a', 'total_size => 20, auto_complete => true') ]};
		SELECT outcome FROM advance_uploads('{secret a,secret a}', '{0,10}', '{10,10}')});
	like(heard(), qr{^started a pending 0/20, (progress a in_progress 10/20, )?completed a complete 20/20$},
		"chunks of one call that complete an upload, row_access = $way");
}

# --- the worker

clear();
set_database($node, 'postgres', 'vali_blob.notify' => 'lifecycle');
$node->safe_psql('postgres', join ';', 'SET vali_blob.notify = off', start('a b', 'total_size => 10'),
	q{SELECT advance_upload('secret a', 0, 5)},
	q{SELECT acquire_upload_lease('secret b', 'secret one')}, q{SELECT acquire_upload_lease('secret b', 'secret two')},
	q{UPDATE upload_session SET expires_at = now() - interval '1 h' + id * interval '1 s'});
set_conf($node, 'vali_blob.sweep' => 'on');
await($node, 'postgres', q{count(*) = 2 FROM upload_session WHERE status = 'expired'});
is(heard(), 'requested b, expired a expired 5/10, released b, expired b expired 0/10', 'the worker tells of expiry');
$node->safe_psql('postgres', q{UPDATE upload_session SET expires_at = now() - interval '1 h'});
await($node, 'postgres', 'count(*) = 0 FROM upload_session');
is(heard(), '', 'and of no purge');

# --- all that was heard

cmp_ok(scalar @payloads, '>', 200, 'much was heard');
is_deeply([ grep { /secret|path|owner|upload_id/ } @payloads ], [], 'and nothing that is not for everybody');

$_->quit foreach $client, @listeners;
$node->stop;
done_testing();
