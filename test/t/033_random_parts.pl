# Random calls against sessions with parts, compared with an independent model: a
# set of ranges for each session.  Prints its seed; RANDOM_SEED repeats a run.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use List::Util qw(max min sum0);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

my $seed = $ENV{RANDOM_SEED} // int rand 2**31;
my $operations = $ENV{RANDOM_OPERATIONS} // 15_000;

srand $seed;
note "RANDOM_SEED=$seed";

# --- the model -----------------------------------------------------------------

# upload_id => { status, total, limit, any, auto, parts => { offset => { length, number, etag, sum } }, bytes }
my (%sessions, @queue, $last_id);
my $max_bigint = 9223372036854775807;

sub is_live { return $_[0]{status} eq 'pending' || $_[0]{status} eq 'in_progress'; }
sub end_of_parts { my ($s) = @_; return max 0, map { $_ + $s->{parts}{$_}{length} } keys %{ $s->{parts} }; }
sub is_ready { my ($s) = @_; return is_live($s) && defined $s->{total} && $s->{bytes} == $s->{total}; }

sub parts_json
{
	my ($s) = @_;
	return join ' ', map { my $p = $s->{parts}{$_}; join ':', $_, $p->{length}, $p->{number} // '', $p->{etag} // '' }
	  sort { $a <=> $b } keys %{ $s->{parts} };
}

sub end_session
{
	my ($s, $status, $id) = @_;
	$s->{status} = $status;
	push @queue, "$id|$status|" . parts_json($s) if $status eq 'aborted' && %{ $s->{parts} };
	return;
}

# What a chunk does; undef for SQLSTATE 23505.
sub chunk
{
	my ($id, $offset, $length, $final, $number, $etag, $sum) = @_;
	my $s = $sessions{$id} or return 'not_found';
	my $end = $offset + $length;
	my $part = { length => $length, number => $number, etag => $etag, sum => $sum };
	my $exact = $s->{parts}{$offset};
	$exact = undef if $exact && $exact->{length} != $length;
	my $differs = $exact
	  && ((defined $etag && $etag ne ($exact->{etag} // '-')) || (defined $sum && $sum ne ($exact->{sum} // '-')));
	my $taken = defined $number
	  && grep { $_ != $offset && defined $s->{parts}{$_}{number} && $s->{parts}{$_}{number} == $number } keys %{ $s->{parts} };
	my $beyond = (defined $s->{total} && $end > $s->{total}) || (defined $s->{limit} && $end > $s->{limit});

	return 'ended' if $s->{status} eq 'aborted';
	if ($s->{status} eq 'complete')
	{
		return $end <= $s->{bytes} ? 'replayed' : 'ended';
	}
	if ($s->{any})
	{
		my @overlaps = grep { $_ < $end && $_ + $s->{parts}{$_}{length} > $offset } keys %{ $s->{parts} };
		return 'too_large' if $beyond || ($final && end_of_parts($s) > $end);
		return 'incomplete' if $final && defined $s->{total} && $end < $s->{total};
		if ($length > 0 && @overlaps)
		{
			return 'conflict' if !$exact;
			return 'replayed' if !$differs;
		}
	}
	else
	{
		if ($length > 0 && $end <= $s->{bytes})
		{
			return 'replayed' if !$differs;
		}
		else
		{
			return 'conflict' if $offset != $s->{bytes};
			return 'too_large' if $beyond;
			return 'incomplete' if $final && defined $s->{total} && $end < $s->{total};
			$exact = undef;
		}
	}
	if ($exact && $differs)
	{
		return undef if $taken;
		$exact->{number} = $number if defined $number;
		@$exact{qw(etag sum)} = ($etag, $sum);
		if ($final && $s->{any})
		{
			$s->{total} //= $end;
			end_session($s, 'complete', $id) if $s->{bytes} == $s->{total};
		}
		return 'replaced';
	}
	if ($length > 0 && ($s->{any} || defined $number || defined $etag || defined $sum))
	{
		return undef if $taken;
		$s->{parts}{$offset} = $part;
	}
	$s->{bytes} += $length;
	$s->{status} = 'in_progress';
	$s->{total} //= $end if $final;
	end_session($s, 'complete', $id) if ($final || $s->{auto}) && defined $s->{total} && $s->{bytes} == $s->{total};
	return 'advanced';
}

sub missing
{
	my ($s) = @_;
	my $position = 0;
	my @ranges;

	return () if !is_live($s);
	if ($s->{any})
	{
		foreach my $offset (sort { $a <=> $b } keys %{ $s->{parts} })
		{
			push @ranges, "$position|" . ($offset - $position) if $offset > $position;
			$position = $offset + $s->{parts}{$offset}{length};
		}
	}
	else { $position = $s->{bytes}; }
	push @ranges, defined $s->{total} ? ($s->{total} > $position ? "$position|" . ($s->{total} - $position) : ()) : "$position|";
	return @ranges;
}

# --- random choices --------------------------------------------------------------

sub pick { return $_[ int rand @_ ]; }
sub one_in { return int(rand $_[0]) == 0; }
sub text { return defined $_[0] ? "'$_[0]'" : 'NULL'; }
sub number { return $_[0] // 'NULL'; }
sub flag { return $_[0] ? 'true' : 'false'; }
sub any_id { return !%sessions || one_in(50) ? 'nobody' : pick(sort keys %sessions); }

# Mostly from a grid, so that parts touch, repeat and overlap.
sub any_chunk
{
	my ($id) = @_;
	my $s = $sessions{$id} // { any => 0, bytes => 0 };
	my $offset = $s->{any} ? 10 * int rand 10 : one_in(3) ? int rand($s->{bytes} + 10) : $s->{bytes};
	my $length = 10;

	if (one_in(3) && %{ $s->{parts} // {} })
	{
		$offset = pick(sort keys %{ $s->{parts} });
		$length = $s->{parts}{$offset}{length};
	}
	$length = pick(0, 5, 20, 30) if one_in(6);
	$offset += pick(-3, 3) if one_in(10);
	$offset = 0 if $offset < 0;
	return ($offset, $length, one_in(12), one_in(3) ? 1 + int rand 12 : undef, one_in(2) ? pick('a', 'b') : undef, one_in(4) ? pick('01', '02') : undef);
}

# --- operations: each returns a command and its answer -----------------------------

my $session = 'uploaded_bytes, total_size, status';
sub show { my ($s) = @_; return join '|', $s->{bytes}, $s->{total} // '', $s->{status}; }

sub start
{
	my $id = 'u' . ++$last_id;
	my $total = pick(undef, 50, 100, 100, 0);
	my $limit = one_in(4) ? pick(60, 100) : undef;
	my ($any, $auto) = (!one_in(4), one_in(4));
	my $command = "SELECT $session FROM start_upload('f', " . number($total) . ", upload_id => '$id', any_order => " . flag($any)
	  . ', size_limit => ' . number($limit) . ', auto_complete => ' . flag($auto) . ')';

	return ($command, 'VB009') if defined $total && defined $limit && $total > $limit;
	$sessions{$id} = { status => 'pending', total => $total, limit => $limit, any => $any, auto => $auto, parts => {}, bytes => 0 };
	$sessions{$id}{status} = 'complete' if $auto && defined $total && $total == 0;
	return ($command, show($sessions{$id}));
}

my %raised = (not_found => 'VB001', conflict => 'VB002', ended => 'VB003', too_large => 'VB005', incomplete => 'VB006');

sub advance
{
	my $id = any_id();
	my ($offset, $length, $final, $number, $etag, $sum) = any_chunk($id);
	my $function = pick('advance_upload', 'try_advance_upload');
	my $command = "SELECT outcome, uploaded_bytes, ready FROM $function('$id', $offset, $length, " . flag($final)
	  . ', part_number => ' . number($number) . ', etag => ' . text($etag)
	  . ', checksum => ' . (defined $sum ? "'\\x$sum'" : 'NULL') . ')';
	my $outcome = chunk($id, $offset, $length, $final, $number, $etag, $sum);

	return ($command, '23505') if !defined $outcome;
	return ($command, $raised{$outcome}) if $function eq 'advance_upload' && $raised{$outcome};
	return ($command, 'not_found||f') if $outcome eq 'not_found';
	return ($command, join '|', $outcome, $sessions{$id}{bytes}, is_ready($sessions{$id}) ? 't' : 'f');
}

# Without numbers, as an error would undo all of them.
sub advance_many
{
	my (@chunks, @answers);
	my @ids = map { any_id() } 1 .. 1 + int rand 3;

	foreach (0 .. int rand 6)
	{
		my $id = pick(@ids);
		my ($offset, $length, undef, undef, $etag, $sum) = any_chunk($id);
		my $outcome = chunk($id, $offset, $length, 0, undef, $etag, $sum);

		push @chunks, [ "'$id'", $offset, $length, text($etag), defined $sum ? "'\\x$sum'::bytea" : 'NULL' ];
		push @answers, $outcome eq 'not_found' ? 'not_found||f'
		  : join '|', $outcome, $sessions{$id}{bytes}, is_ready($sessions{$id}) ? 't' : 'f';
	}
	my @arrays = map { my $n = $_; 'ARRAY[' . join(', ', map { $_->[$n] } @chunks) . ']' } 0 .. 4;
	return ("SELECT outcome, uploaded_bytes, ready FROM advance_uploads($arrays[0], $arrays[1]::bigint[], $arrays[2]::bigint[], "
		  . "etags => $arrays[3]::text[], checksums => $arrays[4]::bytea[])", join "\n", @answers);
}

sub declare
{
	my $id = any_id();
	my $size = pick(0, 50, 90, 100);
	my $s = $sessions{$id};
	my $command = "SELECT $session FROM declare_upload_size('$id', $size)";

	return ($command, 'VB001') if !$s;
	return ($command, 'VB003') if $s->{status} eq 'aborted';
	return ($command, show($s)) if defined $s->{total} && $s->{total} == $size;
	return ($command, 'VB003') if $s->{status} eq 'complete';
	return ($command, 'VB007') if defined $s->{total};
	return ($command, 'VB009') if defined $s->{limit} && $size > $s->{limit};
	return ($command, 'VB005') if max($s->{bytes}, end_of_parts($s)) > $size;
	$s->{total} = $size;
	end_session($s, 'complete', $id) if $s->{auto} && $s->{bytes} == $size;
	return ($command, show($s));
}

sub complete
{
	my $id = any_id();
	my $s = $sessions{$id};
	my $command = "SELECT $session FROM complete_upload('$id')";

	return ($command, 'VB001') if !$s;
	return ($command, 'VB003') if $s->{status} eq 'aborted';
	return ($command, 'VB006') if is_live($s) && !is_ready($s);
	$s->{status} = 'complete';
	return ($command, show($s));
}

sub stop
{
	my $id = any_id();
	my $s = $sessions{$id};
	my $command = "SELECT $session FROM abort_upload('$id')";

	return ($command, 'VB001') if !$s;
	return ($command, 'VB003') if $s->{status} eq 'complete';
	end_session($s, 'aborted', $id) if is_live($s);
	return ($command, show($s));
}

sub forget
{
	my $id = any_id();
	my $reclaim = one_in(2);
	my $s = delete $sessions{$id};

	if ($s && is_live($s)) { end_session($s, 'aborted', $id); }
	elsif ($s && $s->{status} eq 'complete' && $reclaim) { push @queue, "$id|complete|" . parts_json($s); }
	return ("SELECT delete_upload('$id', reclaim_complete => " . flag($reclaim) . ')', $s ? 't' : 'f');
}

sub look
{
	my $id = any_id();
	my $s = $sessions{$id};

	return ("SELECT * FROM missing_ranges('$id')", join "\n", $s ? missing($s) : ()) if one_in(2);
	return ("SELECT chunk_offset, chunk_length, part_number, etag, encode(checksum, 'hex') FROM list_parts('$id')",
		join "\n", map { my $p = $s->{parts}{$_}; join '|', $_, $p->{length}, $p->{number} // '', $p->{etag} // '', $p->{sum} // '' }
		  sort { $a <=> $b } keys %{ $s ? $s->{parts} : {} });
}

# --- the run -----------------------------------------------------------------------

my @mix = ((\&advance) x 40, (\&start) x 5, (\&advance_many) x 5, (\&declare) x 4, (\&complete) x 4, (\&look) x 6, (\&stop) x 1, (\&forget) x 3);
my $node = upload_node('main', conf => "fsync = off\nvali_blob.sweep = off");

foreach my $way ('auto', 'sql')
{
	my (@commands, @expected);

	%sessions = ();
	@queue = ();
	$last_id = 0;
	foreach (1 .. $operations)
	{
		my ($command, $answer) = pick(@mix)->();

		push @commands, $command;
		push @expected, $answer =~ /^(?:VB\d{3}|23505)$/ ? "\n$answer" : "$answer\n00000";
	}
	my ($rc, $stdout) = $node->psql('postgres',
		join('', "SET vali_blob.row_access = $way;\n", map { "$_;\n\\echo # :SQLSTATE\n" } @commands), on_error_stop => 0);
	my @answers = $stdout =~ /((?:.*\n)*?)# (\w{5})(?:\n|\z)/g;
	my (@differences, %seen);

	is(@answers / 2, @commands, "every command was answered, row_access = $way");
	foreach my $number (0 .. $#commands)
	{
		my ($rows, $sqlstate) = splice @answers, 0, 2;
		my $answer = ($rows // '') =~ s/\n\z//r . "\n" . ($sqlstate // 'nothing');

		$seen{$1}++ while $answer =~ /^([a-z_]+|VB\d+|23505)(?:\||$)/mg;
		push @differences, "$number: $commands[$number]\ngot\n$answer\nexpected\n$expected[$number]" if $answer ne $expected[$number];
	}
	is(scalar @differences, 0, "every answer is what the model says, row_access = $way")
	  or diag join "\n\n", splice(@differences, 0, 5), "RANDOM_SEED=$seed";
	is_deeply(
		[ grep { !$seen{$_} } qw(advanced replayed replaced conflict too_large incomplete ended not_found 23505), map { "VB00$_" } 1, 2, 3, 5, 6, 7, 9 ],
		[], 'every outcome and every error was reached');
	is($node->safe_psql('postgres', q{
			SELECT upload_id || '|' || reason || '|' || coalesce((SELECT string_agg(format('%s:%s:%s:%s', p->>'offset', p->>'length', p->>'part_number', p->>'etag'), ' ' ORDER BY n)
				FROM jsonb_array_elements(parts) WITH ORDINALITY AS x (p, n)), '')
			FROM upload_reclaim ORDER BY id}),
		join("\n", @queue), "the reclaim queue at the end, row_access = $way");
	is($node->safe_psql('postgres', q{
			SELECT upload_id FROM upload_session s WHERE any_order
				AND uploaded_bytes <> (SELECT coalesce(sum(chunk_length), 0) FROM upload_part p WHERE p.upload_id = s.upload_id)}),
		'', "the bytes of a session are those of its parts, row_access = $way");
	$node->safe_psql('postgres', 'TRUNCATE upload_session, upload_reclaim CASCADE');
}
$node->stop;
done_testing();
