# Thousands of random calls, good and bad, against a model of the rules: after
# each the outcome or SQLSTATE and the session must be what the model says, and
# so must the tables at the end.
#
# The model knows nothing of SQL.  Each operation below changes the model and
# yields a command with the answer it must give; psql then runs all commands in
# one session.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use List::Util qw(min);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $operations = $ENV{RANDOM_OPERATIONS} || 10000;
my $seed = $ENV{RANDOM_SEED} || time;
my $max_bigint = 9223372036854775807;

note "RANDOM_SEED=$seed";
srand $seed;

# --- the model --------------------------------------------------------------

# All sessions by upload_id, and the number of those ever started, which tells
# their order; what is queued, in order but for the rows of one batch, which one
# sweep has queued.
my %sessions;
my $last_id = 0;
my @queue;
my $batch = 0;

sub is_live
{
	my ($s) = @_;
	return $s->{status} eq 'pending' || $s->{status} eq 'in_progress';
}

# The status as shown: a live session past its deadline is expired.
sub shown
{
	my ($s) = @_;
	return is_live($s) && $s->{overdue} ? 'expired' : $s->{status};
}

sub is_ready
{
	my ($s) = @_;
	return
		 shown($s) =~ /^(pending|in_progress)$/
	  && defined $s->{total}
	  && $s->{total} == $s->{bytes};
}

# Find a session, as its owner or without saying who asks.
sub find
{
	my ($id, $owner) = @_;
	my $s = $sessions{$id};

	return $s if $s && (!defined $owner || (defined $s->{owner} && $s->{owner} eq $owner));
	return;
}

# An ended session is kept for the retention time from now on.
sub end_session
{
	my ($s, $status) = @_;

	$s->{status} = $status;
	$s->{overdue} = 0;
	return if $status eq 'complete' || !%{ $s->{data} };
	push @queue, {
		id => $s->{upload_id}, reason => $status, attempts => 0, claimed => 0,
		data => { %{ $s->{data} } }, batch => $batch };
	return;
}

# The table of outcomes.
sub chunk
{
	my ($id, $offset, $length, $final, $data, $owner) = @_;
	my $s = find($id, $owner) or return ('not_found', undef);
	my $end = $offset + $length;

	return ('ended', $s) if $s->{status} eq 'aborted';
	return ('expired', $s) if shown($s) eq 'expired';
	return ('replayed', $s)
	  if $end <= $s->{bytes} && ($length > 0 || $s->{status} eq 'complete');
	return ('ended', $s) if $s->{status} eq 'complete';
	return ('conflict', $s) if $offset != $s->{bytes};
	return ('too_large', $s) if defined $s->{total} && $end > $s->{total};
	return ('incomplete', $s) if $final && defined $s->{total} && $end < $s->{total};

	$s->{bytes} = $end;
	$s->{status} = 'in_progress';
	$s->{data} = { %{ $s->{data} }, %$data } if $data;
	if ($final)
	{
		$s->{total} = $end;
		end_session($s, 'complete');
	}
	return ('advanced', $s);
}

my %raised = (
	not_found => 'VB001',
	conflict => 'VB002',
	ended => 'VB003',
	expired => 'VB004',
	too_large => 'VB005',
	incomplete => 'VB006');

# --- how commands and answers are written ------------------------------------

sub text { return defined $_[0] ? "'" . ($_[0] =~ s/'/''/gr) . "'" : 'NULL'; }
sub number { return $_[0] // 'NULL'; }
sub boolean { return $_[0] ? 'true' : 'false'; }
sub show { return join '|', map { $_ // '' } @_; }

sub json
{
	my ($object) = @_;
	return defined $object
	  ? '{' . join(', ', map { qq{"$_": $object->{$_}} } sort keys %$object) . '}'
	  : undef;
}

my $session_columns =
  'upload_id, owner, uploaded_bytes, total_size, status, provider_data, result, abort_reason, expires_at IS NULL';

sub show_session
{
	my ($s) = @_;
	return show($s->{upload_id}, $s->{owner}, $s->{bytes}, $s->{total}, shown($s),
		json($s->{data}), $s->{result}, $s->{reason},
		is_live($s) && $s->{for_ever} ? 't' : 'f');
}

my $result_columns = 'outcome, uploaded_bytes, total_size, status, ready, expires_at IS NULL';

sub show_result
{
	my ($outcome, $s) = @_;
	return show($outcome, ('') x 3, 'f', 't') if !$s;
	return show($outcome, $s->{bytes}, $s->{total}, shown($s),
		is_ready($s) ? 't' : 'f', is_live($s) && $s->{for_ever} ? 't' : 'f');
}

# --- random choices ----------------------------------------------------------

sub one_in { return int(rand $_[0]) == 0; }
sub pick { return $_[ int rand @_ ]; }

# An upload_id: nearly always of a session that is there.
sub any_id
{
	return pick('nobody', '', "it's", 'x' x 129) if one_in(40) || !%sessions;
	return pick(sort keys %sessions);
}

# An owner: mostly none, sometimes the right one, sometimes a wrong one.
sub any_owner
{
	my ($id) = @_;
	return pick(undef, undef, undef, undef, $sessions{$id}{owner}, $sessions{$id}{owner}, 'ann', 'bob')
	  if $sessions{$id};
	return pick(undef, 'ann');
}

sub any_data
{
	return one_in(4) ? { pick('part', 'etag', 'hash') => int rand 100 } : undef;
}

# Where a chunk may begin and end: nearly always where it should.
sub any_chunk
{
	my ($id) = @_;
	my $s = $sessions{$id} // { bytes => 0 };
	my $offset = one_in(4) ? int rand($s->{bytes} + 20) : $s->{bytes};
	my $rest = defined $s->{total} ? $s->{total} - $offset : 1000;
	my $length = pick(0, 1, $rest, $rest - 1, $rest + 1, int rand 300, int rand 300, int rand 300);

	$offset = $max_bigint - 10 if one_in(200);
	return ($offset, $length < 0 ? 0 : min($length, $max_bigint - $offset));
}

# --- operations: each returns a command, its answer, and its SQLSTATE ---------

sub start
{
	my ($id) = one_in(20) ? any_id() : 'u' . ($last_id + 1);
	my $total = pick(undef, 0, map { int rand 1000 } 1 .. 4);
	my $owner = pick(undef, 'ann', 'bob', q{o'hara});
	my $data = any_data();
	my $for_ever = one_in(10);
	my $command = "SELECT $session_columns FROM start_upload("
	  . join(', ', text("/dir/$id"), number($total),
		'provider_data => ' . text(json($data)),
		'owner => ' . text($owner),
		'ttl => ' . ($for_ever ? "'0'" : 'NULL'),
		'upload_id => ' . text($id))
	  . ')';

	return ($command, undef, '22023') if $id eq '';
	return ($command, undef, '22001') if length $id > 128;
	return ($command, undef, '23505') if $sessions{$id};
	$last_id++;
	$sessions{$id} = {
		id => $last_id, upload_id => $id, owner => $owner, total => $total,
		bytes => 0, status => 'pending', data => $data // {},
		for_ever => $for_ever, overdue => 0 };
	return ($command, show_session($sessions{$id}));
}

sub advance
{
	my ($id) = any_id();
	my ($offset, $length) = any_chunk($id);
	my ($final, $data, $owner) = (one_in(6), any_data(), any_owner($id));
	my $function = pick('advance_upload', 'try_advance_upload');
	my $command = "SELECT $result_columns FROM $function("
	  . join(', ', text($id), $offset, $length, boolean($final),
		text(json($data)), text($owner), boolean(one_in(4)))
	  . ')';
	my ($outcome, $s) = chunk($id, $offset, $length, $final, $data, $owner);

	return ($command, undef, $raised{$outcome})
	  if $function eq 'advance_upload' && $raised{$outcome};
	return ($command, show_result($outcome, $s));
}

sub advance_many
{
	my (@ids, @offsets, @lengths, @answers);

	foreach (0 .. int rand 6)
	{
		my $id = any_id();
		my ($offset, $length) = any_chunk($id);

		push @ids, $id;
		push @offsets, $offset;
		push @lengths, $length;
		push @answers, show_result(chunk($id, $offset, $length));
	}
	return (
		"SELECT $result_columns FROM advance_uploads(ARRAY["
		  . join(', ', map { text($_) } @ids)
		  . '], ARRAY[' . join(', ', @offsets)
		  . ']::bigint[], ARRAY[' . join(', ', @lengths) . ']::bigint[])',
		join("\n", @answers));
}

# Arguments that are refused before any session is looked at.
sub bad_arguments
{
	my ($id) = text(any_id());
	my ($call, $sqlstate) = @{ pick(
			[ "advance_upload(NULL, 0, 1)", '22004' ],
			[ "advance_upload($id, NULL, 1)", '22004' ],
			[ "try_advance_upload($id, 0, NULL)", '22004' ],
			[ "try_advance_upload($id, -1, 1)", '22023' ],
			[ "advance_upload($id, 0, -1)", '22023' ],
			[ "try_advance_upload($id, $max_bigint, 1)", '22003' ],
			[ "try_advance_upload($id, 0, 0, provider_data => '[]')", '22023' ],
			[ "advance_uploads(ARRAY[$id], '{0,0}', '{1}')", '22023' ],
			[ "advance_uploads(ARRAY[$id, NULL], '{0,0}', '{1,1}')", '22004' ],
			[ "advance_uploads(ARRAY[$id, $id], '{0,0}', '{1,-1}')", '22023' ],
			[ "advance_uploads(ARRAY[$id, $id], '{0,$max_bigint}', '{1,1}')", '22003' ],
			[ "declare_upload_size($id, -1)", '22023' ],
			[ "declare_upload_size($id, NULL)", '22004' ],
			[ "merge_upload_data($id, 'null')", '22023' ],
			[ "complete_upload($id, '1')", '22023' ],
			[ "abort_upload(NULL)", '22004' ],
			[ "delete_upload(NULL)", '22004' ],
			[ "get_upload(NULL)", '22004' ],
			[ "list_uploads(max_rows => 0)", '22023' ],
			[ "sweep_uploads(0)", '22023' ],
			[ "claim_reclaims(0)", '22023' ],
			[ "claim_reclaims(1, '0')", '22023' ],
			[ "start_upload('')", '22023' ],
			[ "start_upload(NULL)", '22004' ],
			[ "start_upload('p', -1)", '22023' ],
			[ "start_upload('p', ttl => '-1 s')", '22023' ],
			[ "start_upload(repeat('p', 2049))", '22001' ]) };

	return ("SELECT * FROM $call", undef, $sqlstate);
}

sub declare
{
	my ($id) = any_id();
	my $owner = any_owner($id);
	my $s = find($id, $owner);
	my $size = $s && one_in(2) ? ($s->{total} // $s->{bytes}) : int rand 1000;
	my $command = "SELECT $session_columns FROM declare_upload_size("
	  . join(', ', text($id), $size, text($owner)) . ')';

	return ($command, undef, 'VB001') if !$s;
	return ($command, undef, 'VB003') if $s->{status} eq 'aborted';
	return ($command, undef, 'VB004') if shown($s) eq 'expired';
	return ($command, show_session($s)) if defined $s->{total} && $s->{total} == $size;
	return ($command, undef, 'VB003') if $s->{status} eq 'complete';
	return ($command, undef, 'VB007') if defined $s->{total};
	return ($command, undef, 'VB005') if $size < $s->{bytes};
	$s->{total} = $size;
	return ($command, show_session($s));
}

sub merge
{
	my ($id) = any_id();
	my ($data, $owner) = (any_data(), any_owner($id));
	my $s = find($id, $owner);

	$data->{ pick(sort keys %{ $s->{data} }) } = 'null' if $s && %{ $s->{data} } && one_in(3);
	my $command = "SELECT $session_columns FROM merge_upload_data("
	  . join(', ', text($id), 'provider_data => ' . text(json($data)), 'owner => ' . text($owner)) . ')';

	return ($command, undef, 'VB001') if !$s;
	return ($command, undef, 'VB003') if $s->{status} eq 'aborted' || $s->{status} eq 'complete';
	return ($command, undef, 'VB004') if shown($s) eq 'expired';
	foreach my $key (keys %{ $data // {} })
	{
		$s->{data}{$key} = $data->{$key};
		delete $s->{data}{$key} if $data->{$key} eq 'null';
	}
	return ($command, show_session($s));
}

sub complete
{
	my ($id) = any_id();
	my $owner = any_owner($id);
	my $result = pick(undef, '{}', '{"etag": ' . int(rand 100) . '}');
	my $s = find($id, $owner);
	my $command = "SELECT $session_columns FROM complete_upload("
	  . join(', ', text($id), text($result), text($owner)) . ')';

	return ($command, undef, 'VB001') if !$s;
	return ($command, undef, 'VB003') if $s->{status} eq 'aborted';
	return ($command, undef, 'VB004') if shown($s) eq 'expired';
	return ($command, undef, 'VB006') if $s->{status} ne 'complete' && !is_ready($s);
	$s->{result} //= $result;
	end_session($s, 'complete') if $s->{status} ne 'complete';
	return ($command, show_session($s));
}

sub stop
{
	my ($id) = any_id();
	my $owner = any_owner($id);
	my $reason = pick(undef, 'cancelled', q{can't});
	my $s = find($id, $owner);
	my $command = "SELECT $session_columns FROM abort_upload("
	  . join(', ', text($id), text($reason), text($owner)) . ')';

	return ($command, undef, 'VB001') if !$s;
	return ($command, undef, 'VB003') if $s->{status} eq 'complete';
	return ($command, undef, 'VB004') if shown($s) eq 'expired';
	return ($command, show_session($s)) if $s->{status} eq 'aborted';
	$s->{reason} = $reason;
	end_session($s, 'aborted');
	return ($command, show_session($s));
}

sub forget
{
	my ($id) = any_id();
	my $owner = any_owner($id);
	my $s = find($id, $owner);
	my $command = 'SELECT delete_upload(' . text($id) . ', ' . text($owner) . ')';

	return ($command, 'f') if !$s;
	end_session($s, $s->{overdue} ? 'expired' : 'aborted') if is_live($s);
	delete $sessions{$id};
	return ($command, 't');
}

# Time passes: a live session is past its deadline, or an ended one past its
# retention.
sub let_pass
{
	my ($id) = any_id();
	my $s = $sessions{$id};

	$s->{overdue} = !(is_live($s) && $s->{for_ever}) if $s;
	return ("UPDATE upload_session SET expires_at = now() - interval '1 hour'"
		  . ' WHERE upload_id = ' . text($id) . ' AND expires_at IS NOT NULL', '');
}

sub sweep
{
	my @overdue = grep { $_->{overdue} } values %sessions;
	my @live = grep { is_live($_) } @overdue;
	my @ended = grep { !is_live($_) } @overdue;

	end_session($_, 'expired') foreach @live;
	delete $sessions{ $_->{upload_id} } foreach @ended;
	return ('SELECT * FROM sweep_uploads()', show(scalar @live, scalar @ended, 0));
}

sub claim
{
	my $count = 1 + int rand 3;
	my @free = grep { !$_->{claimed} } @queue;

	# whole batches, since the order inside is open
	$count++ while $count < @free && $free[$count]{batch} == $free[ $count - 1 ]{batch};
	my @claimed = splice @free, 0, $count;
	$_->{claimed} = 1 foreach @claimed;
	return ("SELECT upload_id, reason, attempts FROM claim_reclaims($count, '1 day')",
		undef, '00000',
		[ sort map { show(@$_{qw(id reason attempts)}) } @claimed ]);
}

# Finish or fail the oldest row of an upload.
sub handle
{
	my $id = @queue && !one_in(10) ? pick(@queue)->{id} : 'nobody';
	my ($row) = grep { $_->{id} eq $id } @queue;
	my $oldest = '(SELECT coalesce(min(id), 0) FROM upload_reclaim WHERE upload_id = ' . text($id) . ')';
	my $answer = $row ? 't' : 'f';

	if (one_in(2))
	{
		@queue = grep { $_ != $row } @queue if $row;
		return ("SELECT finish_reclaim($oldest)", $answer);
	}
	if ($row)
	{
		$row->{attempts}++;
		$row->{claimed} = 1;
	}
	return ("SELECT fail_reclaim($oldest, 'no')", $answer);
}

sub get
{
	my ($id) = any_id();
	my $owner = any_owner($id);
	my $s = find($id, $owner);

	return ("SELECT $session_columns FROM get_upload(" . text($id) . ', ' . text($owner) . ')',
		$s ? show_session($s) : '');
}

sub get_many
{
	my @ids = map { any_id() } 0 .. int rand 5;
	my $owner = pick(undef, undef, 'ann');
	my @found = grep { $_ } map { scalar find($_, $owner) } @ids;

	return (
		"SELECT $session_columns FROM get_uploads(ARRAY["
		  . join(', ', map { text($_) } @ids) . '], ' . text($owner) . ')',
		join("\n", map { show_session($_) } @found));
}

sub list
{
	my ($owner, $prefix, $status) = (
		pick(undef, 'ann', 'bob'),
		pick(undef, '/dir', '/dir/u1', '/dir/%', 'elsewhere'),
		pick(undef, qw(pending in_progress complete aborted expired)));
	my $max_rows = 1 + int rand 20;
	my $after = one_in(2) && %sessions ? $sessions{ pick(sort keys %sessions) } : undef;
	my @found =
	  grep {
			 (!defined $owner || ($_->{owner} // '') eq $owner)
		  && (!defined $prefix || index("/dir/$_->{upload_id}", $prefix) == 0)
		  && (!defined $status || shown($_) eq $status)
		  && (!defined $after || $_->{id} < $after->{id})
	  } sort { $b->{id} <=> $a->{id} } values %sessions;

	@found = @found[ 0 .. $max_rows - 1 ] if @found > $max_rows;
	my $after_id = $after
	  ? '(SELECT id FROM upload_session WHERE upload_id = ' . text($after->{upload_id}) . ')'
	  : 'NULL';
	return (
		"SELECT $session_columns FROM list_uploads("
		  . join(', ', text($owner), text($prefix), text($status), 'NULL', $max_rows, $after_id) . ')',
		join("\n", map { show_session($_) } @found));
}

# --- the run -----------------------------------------------------------------

my @mix = (
	(\&advance) x 20, (\&start) x 4, (\&get) x 3, (\&complete) x 3, (\&stop) x 2,
	(\&merge) x 2, (\&declare) x 2, (\&advance_many) x 2, (\&let_pass) x 1, (\&forget) x 1,
	(\&list) x 1, (\&get_many) x 1, (\&claim) x 1, (\&handle) x 2, (\&bad_arguments) x 2, (\&sweep) x 1);

my $node = upload_node('main');

sub table { return split /\n/, $node->safe_psql('postgres', $_[0]); }

my (@commands, @expected);
for my $number (1 .. $operations)
{
	$batch = $number;
	my ($command, $rows, $sqlstate, $unordered) = pick(@mix)->();
	my @rows = $unordered ? @$unordered : split /\n/, $rows // '';

	push @commands, $command;
	push @expected, join "\n", @rows, $sqlstate // '00000';
}

my ($rc, $stdout) = $node->psql(
	'postgres',
	join('', map { "$_;\n\\echo # :SQLSTATE\n" } @commands),
	on_error_stop => 0);
my @answers = $stdout =~ /((?:.*\n)*?)# (\w{5})(?:\n|\z)/g;

is(@answers / 2, @commands, 'every command was answered');
my @differences;
my %seen;
foreach my $number (0 .. $#commands)
{
	my ($rows, $sqlstate) = splice @answers, 0, 2;
	my @rows = split /\n/, $rows // '';

	# claims come in any order
	@rows = sort @rows if $commands[$number] =~ /claim_reclaims/;
	my $answer = join "\n", @rows, $sqlstate // 'nothing';
	$seen{$1}++ if $answer =~ /^([a-z_]+)\|/ || $answer =~ /^(\w{5})$/;
	push @differences, "$number: $commands[$number]\ngot\n$answer\nexpected\n$expected[$number]"
	  if $answer ne $expected[$number];
}
is(scalar @differences, 0, 'every answer is what the model says')
  or diag join "\n\n", splice(@differences, 0, 5), "RANDOM_SEED=$seed";

# A mix that no longer reaches something would prove nothing about it.
my @reachable = (
	qw(advanced replayed conflict too_large incomplete ended expired not_found),
	qw(22001 22003 22004 22023 23505), map { "VB00$_" } 1 .. 7);
is_deeply([ grep { !$seen{$_} } @reachable ], [],
	'every outcome and every error was reached');

is_deeply(
	[ table("SELECT $session_columns FROM list_uploads(max_rows => 1000000)") ],
	[ map { show_session($_) } sort { $b->{id} <=> $a->{id} } values %sessions ],
	'the sessions at the end');
is_deeply(
	[ sort(table('SELECT upload_id, reason, attempts, provider_data FROM upload_reclaim')) ],
	[ sort map { show(@$_{qw(id reason attempts)}, json($_->{data})) } @queue ],
	'the reclaim queue at the end');

done_testing();
