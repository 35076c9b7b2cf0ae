# The biggest arguments: memory and time grow in step with them, and every call
# can be cancelled.  Time is not asserted; what took a pass for each key, or for
# each element, would use up the test's patience, or the memory that it allows.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

# a size that shows the difference, but does not need a large machine
my $keys = 20_000;
my $elements = 200_000;
my $node = upload_node('main');

# Peak resident memory of the backend, in MB.
my $peak = q{SELECT (regexp_match(pg_read_file('/proc/' || pg_backend_pid() || '/status'), 'VmHWM:\s+(\d+)'))[1]::int / 1024};

# Run a statement in a new session.  Returns what it prints and the peak memory.
sub run
{
	my ($setup, $sql) = @_;
	return split /\n/, $node->safe_psql('postgres', "$setup; $sql; $peak");
}

# A JSON object of many keys in a table, with values or with nulls.
$node->safe_psql(
	'postgres', qq{
	CREATE TABLE document AS
	SELECT size, jsonb_object_agg('key' || i, repeat('x', 40)) AS filled, jsonb_object_agg('key' || i, NULL) AS nulls
	FROM (VALUES ($keys / 4), ($keys)) AS sizes (size), generate_series(1, size) AS i GROUP BY size;
	SELECT start_upload('file', upload_id => 'u');
});

# Merging takes one pass: a hundred copies of the document would not fit.
my $document = "(SELECT filled FROM document WHERE size = $keys)";
my $nulls = "(SELECT nulls FROM document WHERE size = $keys)";
my ($bytes, $memory) = run('', "SELECT length(metadata::text) FROM merge_upload_data('u', $document)");
cmp_ok($bytes, '>', $keys * 40, 'a large document is merged');
($bytes, $memory) = run('', "SELECT metadata FROM merge_upload_data('u', $nulls)");
is($bytes, '{}', 'as many nulls remove it');
cmp_ok($memory, '<', 200, 'in little memory');
foreach my $call (
	"advance_upload('u', 0, 0, provider_data => $nulls)",
	"start_upload('file', metadata => $document, provider_data => $document)",
	"complete_upload((start_upload('file', 0)).upload_id, $document)",
	"merge_upload_data('u', $nulls, $document)")
{
	(undef, $memory) = run('', "SELECT 1 FROM $call");
	cmp_ok($memory, '<', 200, "$call takes little memory");
}

# Cancelled early, a merge has used less memory than one that ends.
$node->safe_psql(
	'postgres', q{
	CREATE TABLE nested AS SELECT jsonb_build_object('a', jsonb_agg(i)) AS document FROM generate_series(1, 2000000) i;
});
my $merge = "SELECT 1 FROM merge_upload_data('u', (SELECT document FROM nested))";
(undef, $memory) = run('', $merge);
my ($rc, $stdout, $stderr) = $node->psql('postgres',
	"SET statement_timeout = 50; $merge; RESET statement_timeout; $peak", on_error_stop => 0);
like($stderr, qr/canceling statement due to statement timeout/, 'a merge can be cancelled');
cmp_ok($stdout, '<', $memory * 0.75, 'before its end') and note "$stdout MB of $memory MB";

# Arrays of many elements
my $ids = "ARRAY(SELECT 'a' || i FROM generate_series(1, $elements) i)";
my $zeros = "array_fill(0, ARRAY[$elements])";
$node->safe_psql('postgres', "SELECT count(start_upload('file', upload_id => 'a' || i)) FROM generate_series(1, $elements, 100) i");
my ($outcomes, $again);
($outcomes, $memory) = run('', "SELECT string_agg(outcome || ' ' || count, ', ' ORDER BY outcome)
	FROM (SELECT outcome, count(*) FROM advance_uploads($ids, $zeros, $zeros) GROUP BY outcome) AS r");
is($outcomes, 'advanced ' . $elements / 100 . ', not_found ' . $elements * 99 / 100, 'many chunks in a call');
cmp_ok($memory, '<', 400, 'take memory in step');
($outcomes, $memory) = run('', "SELECT count(*) FROM get_uploads($ids)");
is($outcomes, $elements / 100, 'many ids to read');
cmp_ok($memory, '<', 400, 'take memory in step');
my $same = "array_fill('a1'::text, ARRAY[$elements])";
my $ones = "array_fill(1, ARRAY[$elements])";
my $offsets = "ARRAY(SELECT i - 1 FROM generate_series(1, $elements) i)";
($outcomes, $memory) = run('', "SELECT outcome || ' ' || count(*) || ' ' || max(uploaded_bytes) FROM advance_uploads($same, $offsets, $ones) GROUP BY outcome");
is($outcomes, "advanced $elements $elements", 'many chunks of one upload');
cmp_ok($memory, '<', 400, 'take memory in step');
foreach my $call ("advance_uploads($same, $offsets, $ones)", "advance_uploads($ids, $zeros, $zeros)", "get_uploads($ids)")
{
	is(sqlstate_of($node, "SET statement_timeout = 20; SELECT count(*) FROM $call"), '57014', "$call can be cancelled");
}

is( sqlstate_of($node, "SELECT count(*) FROM advance_uploads(array_fill('x'::text, ARRAY[12000000]), '{}', '{}')"),
	'22023', 'arrays of different sizes');
is( sqlstate_of($node, "SELECT count(*) FROM advance_uploads(array_fill('x'::text, ARRAY[12000000]), array_fill(0, ARRAY[12000000]), array_fill(0, ARRAY[12000000]))"),
	'54000', 'too many chunks for a call');

$node->stop;
done_testing();
