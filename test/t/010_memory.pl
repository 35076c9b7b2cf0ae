# A backend that serves 100,000 calls is as big as one that has served a few,
# whatever the outcomes; and a long transaction does not hold what a call has
# used.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use UploadTest;

# Less than the smallest piece of memory for each call of a loop; more than what
# a backend caches now and then.
my $calls = 10_000;
my $slack = 64 * 1024;
my $node = upload_node('main');

$node->safe_psql(
	'postgres', q{
	SELECT count(start_upload('file', owner => 'ann', upload_id => 'u' || i)) FROM generate_series(1, 5000) i;
	SELECT count(advance_upload(upload_id, 0, 1)) FROM upload_session;
	SELECT upload_id FROM start_upload('file', upload_id => 'parts', any_order => true);

	CREATE FUNCTION memory() RETURNS numeric LANGUAGE sql AS
		'SELECT sum(used_bytes) FROM pg_backend_memory_contexts';

	CREATE FUNCTION sqlstate_of(command text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		EXECUTE command;
		RETURN '00000';
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLSTATE;
	END $$;
});

# Growth of a backend over so many transactions, after it has warmed up.
sub growth
{
	my ($statement, $count) = @_;
	my $transactions = sub {
		return "DO \$\$ BEGIN FOR i IN 1 .. $_[0] LOOP $statement; COMMIT; END LOOP; END \$\$;";
	};

	my $output = $node->safe_psql(
		'postgres',
		join "\n", 'SET synchronous_commit = off;',
		$transactions->(300), 'SELECT memory() - 0;',
		$transactions->(300), 'SELECT memory() AS before \gset',
		$transactions->($count), 'SELECT memory() - :before;');
	return (split /\n/, $output)[-1];
}

# Growth inside one statement of one transaction.
sub growth_inside
{
	my ($statement, $count) = @_;

	return $node->safe_psql(
		'postgres', qq{
		CREATE TEMP TABLE growth (bytes numeric);
		DO \$\$
		DECLARE
			before numeric;
			after numeric;
		BEGIN
			FOR i IN 1 .. $count LOOP
				IF i IN (200, 300, $count) THEN
					before := after;
					after := memory();
				END IF;
				$statement;
			END LOOP;
			INSERT INTO growth VALUES (after - before);
		END \$\$;
		SELECT bytes FROM growth;
	});
}

my %writes = (
	chunks => q{
		PERFORM try_advance_upload('u' || i, (SELECT uploaded_bytes FROM get_upload('u' || i)), 1,
			provider_data => '{"etag": "a"}')},
	parts => q{
		PERFORM advance_upload('parts', i * 20, 10, part_number => i, etag => 'a');
		PERFORM try_advance_upload('parts', i * 20, 10, etag => 'b');
		PERFORM try_advance_upload('parts', i * 20, 5);
		PERFORM count(*) FROM list_parts('parts', max_rows => 1);
		PERFORM start_upload('file', upload_id => 'parts', any_order => true, or_resume => true);
		PERFORM delete_upload('parts');
		PERFORM start_upload('file', upload_id => 'parts', any_order => true, or_resume => true)},
	leases => q{
		PERFORM start_upload('file', upload_id => 'l', or_resume => true);
		PERFORM acquire_upload_lease('l', 'a', take_over => true);
		PERFORM acquire_upload_lease('l', 'b');
		PERFORM try_advance_upload('l', 0, 1);
		PERFORM renew_upload_lease('l', i);
		PERFORM release_upload_lease('l', i)},
	limits => q{
		PERFORM set_upload_quota('limited', 1, 10);
		PERFORM start_upload('file', 10, owner => 'limited', upload_id => 'limited');
		PERFORM sqlstate_of($q$SELECT start_upload('file', 10, owner => 'limited')$q$);
		PERFORM upload_usage('limited');
		PERFORM delete_upload('limited')},
	notifications => q{
		SET LOCAL vali_blob.notify = progress;
		PERFORM start_upload('file', 10, upload_id => 'told');
		PERFORM advance_upload('told', 0, 5);
		PERFORM delete_upload('told')},
	concatenations => q{
		PERFORM start_upload('file', 0, upload_id => 'piece', partial => true);
		PERFORM concatenate_uploads('file', '{piece}', 'whole');
		PERFORM concatenate_uploads('file', '{piece}', 'whole');
		PERFORM delete_upload('piece');
		PERFORM delete_upload('whole')},
	lives => q{
		PERFORM start_upload('file', 10, provider_data => '{"a": 1}', upload_id => 'x');
		PERFORM merge_upload_data('x', '{"a": 1}', '{"b": 1}');
		PERFORM abort_upload('x');
		PERFORM delete_upload('x');
		PERFORM fail_reclaim(id, 'no') FROM claim_reclaims();
		PERFORM finish_reclaim(id) FROM upload_reclaim;
		PERFORM sweep_uploads()});
my %other_calls = (
	replays => q{PERFORM try_advance_upload('u1', 0, 1, owner => 'ann')},
	refusals => q{
		PERFORM try_advance_upload('u1', 1000000000, 1);
		PERFORM try_advance_upload('nobody', 0, 1)},
	errors => q{PERFORM sqlstate_of($q$SELECT advance_upload('u1', 1000000000, 1)$q$)},
	batches => q{PERFORM advance_uploads('{u1,u2,u3,nobody}', '{0,0,0,0}', '{1,1,1,1}')},
	reads => q{
		PERFORM get_upload('u1');
		PERFORM get_uploads('{u1,u2,u3}');
		PERFORM list_uploads(max_rows => 5)});

foreach my $name (sort keys %writes)
{
	cmp_ok(growth($writes{$name}, $calls / 4), '<=', $slack, "$name, transaction by transaction");
}
foreach my $name (sort keys %other_calls)
{
	cmp_ok(growth($other_calls{$name}, $calls), '<=', $slack, "$name, transaction by transaction");
	cmp_ok(growth_inside($other_calls{$name}, $calls), '<=', $slack, "$name, in one transaction");
}
# each for another upload: to change one row again and again, as in %writes,
# costs PostgreSQL itself memory until the end of the transaction
cmp_ok(growth_inside($writes{chunks}, $calls / 4), '<=', $slack, 'chunks, in one transaction');

# Calls in one query
foreach my $call ("get_uploads(ARRAY['u1', 'u' || i % 5])", "list_uploads(max_rows => 1 + i % 2)", "get_upload('u' || i)")
{
	foreach my $way ('auto', 'sql')
	{
		cmp_ok(
			$node->safe_psql('postgres', qq{
				SET vali_blob.row_access = $way;
				SELECT max(m) - min(m) FROM (SELECT CASE WHEN i % 1000 = 0 THEN memory() END AS m
					FROM generate_series(2000, 5000) AS i, LATERAL (SELECT count(*) FROM $call) AS x) AS y}),
			'<=', $slack, "$call in one query, row_access = $way");
	}
}

# A new plan is made only for other columns.
is( $node->safe_psql('postgres', q{
		SET vali_blob.row_access = sql;
		CREATE TEMP TABLE plans (n bigint);
		DO $$
		BEGIN
			FOR i IN 1 .. 10 LOOP
				PERFORM start_upload('file', 10, provider_data => '{"a": 1}', upload_id => 'y' || i);
				PERFORM advance_upload('y' || i, 0, 1);
				PERFORM abort_upload('y' || i);
				PERFORM claim_reclaims(1);
				INSERT INTO plans SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource';
				ANALYZE upload_session, upload_reclaim;
			END LOOP;
		END $$;
		SELECT max(n) - min(n) FROM (SELECT n FROM plans OFFSET 2) AS p}),
	0, 'ANALYZE makes no plan anew');

done_testing();
