# As whom the sweep runs: as the owner of the tables, in a security-restricted
# context, with a safe search_path; never as superuser through what somebody
# else has attached to the tables.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SweeperTest;
use Test::More;
use UploadTest;

my $node = sweeper_node('main');

$node->safe_psql('postgres', 'CREATE ROLE app; CREATE ROLE eve');

# Make a database whose tables belong to a role, and in which eve has all that a
# careless administrator could give her.
sub create_database
{
	my ($dbname, $owner) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $dbname; REVOKE CONNECT ON DATABASE $dbname FROM PUBLIC");
	$node->safe_psql(
		$dbname, qq{
		CREATE EXTENSION vali_blob;
		ALTER TABLE upload_session OWNER TO $owner;
		ALTER TABLE upload_reclaim OWNER TO $owner;
		GRANT ALL ON upload_session, upload_reclaim TO eve;
		GRANT CREATE ON SCHEMA public TO eve, app;

		CREATE TABLE seen (what text, who text, path text, sqlstates text);
		GRANT ALL ON seen TO PUBLIC;

		CREATE FUNCTION sqlstate_of(command text) RETURNS text LANGUAGE plpgsql AS \$\$
		BEGIN
			EXECUTE command;
			RETURN '00000';
		EXCEPTION WHEN OTHERS THEN
			RETURN SQLSTATE;
		END \$\$;
		CREATE FUNCTION note(what text) RETURNS boolean LANGUAGE plpgsql AS \$\$
		BEGIN
			INSERT INTO public.seen VALUES (what, current_user, current_setting('search_path'),
				public.sqlstate_of('RESET ROLE') || ' ' ||
				public.sqlstate_of('SET SESSION AUTHORIZATION DEFAULT') || ' ' ||
				public.sqlstate_of('CREATE TEMP TABLE t ()'));
			IF what LIKE 'INSERT%' THEN	-- the last of a batch
				PERFORM set_config('search_path', 'public, pg_catalog', false);
			END IF;
			RETURN true;
		END \$\$;
		ALTER FUNCTION sqlstate_of OWNER TO eve;
		ALTER FUNCTION note OWNER TO eve;

		CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM public.note(TG_OP || ' ' || TG_TABLE_NAME);
			RETURN NULL;
		END \$\$;
		ALTER FUNCTION see OWNER TO eve;
	});
	$node->reload;
	return;
}

sub seen
{
	my ($dbname) = @_;
	return $node->safe_psql($dbname, 'SELECT * FROM seen ORDER BY what');
}

sub await_expired
{
	my ($dbname) = @_;

	await($node, $dbname, q{count(*) FILTER (WHERE status = 'expired') > 0
		AND count(*) FILTER (WHERE status = 'pending') = 0 FROM upload_session});
	$node->safe_psql($dbname, 'TRUNCATE upload_session');
	return;
}

# A sweep must fail for this reason, and go on when that is gone.
sub refused
{
	my ($dbname, $reason, $cure, $test_name) = @_;

	add_stale($node, $dbname, 'u', 1);
	await($node, $dbname, "last_error LIKE '%$reason%' FROM sweeper_status()");
	is(statuses($node, $dbname) . seen($dbname), 'u1: pending', "$test_name is refused");
	$node->safe_psql($dbname, $cure);
	$node->reload;
	await_expired($dbname);
	pass("the sweep goes on after $cure");
	return;
}

# --- tables of a role that is no superuser

create_database('owned', 'app');
set_database($node, 'owned', 'vali_blob.sweep_batch_size' => 1);
$node->safe_psql(
	'owned', q{
	SET ROLE eve;
	CREATE TRIGGER see AFTER UPDATE ON upload_session FOR EACH ROW EXECUTE FUNCTION see();
	CREATE TRIGGER see AFTER INSERT ON upload_reclaim FOR EACH STATEMENT EXECUTE FUNCTION see();
});
add_stale($node, 'owned', 'u', 2);
await_expired('owned');
my $seen = 'app|pg_catalog, pg_temp|42501 42501 42501';
is( seen('owned'),
	join("\n", ("INSERT upload_reclaim|$seen") x 2, ("UPDATE upload_session|$seen") x 2),
	'a trigger runs as the owner, cannot change that, and cannot leave a search_path behind');

$node->safe_psql('owned', q{
	DROP TRIGGER see ON upload_session;
	DROP TRIGGER see ON upload_reclaim;
	TRUNCATE seen;
	SET ROLE eve;
	CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON upload_session DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION see();
});
add_stale($node, 'owned', 'u', 1);
await_expired('owned');
is(seen('owned'), "UPDATE upload_session|$seen", 'a trigger that is deferred runs as the owner all the same');
$node->safe_psql('owned', 'DROP TRIGGER late ON upload_session');

$node->safe_psql(
	'owned', q{
	ALTER TABLE upload_session ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	ALTER TABLE upload_reclaim ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	TRUNCATE upload_reclaim;
});
add_stale($node, 'owned', 'u', 2);
await_expired('owned');
is($node->safe_psql('owned', 'SET ROLE app; SELECT count(*) FROM upload_reclaim; RESET ROLE; SELECT count(*) FROM upload_reclaim'),
	"0\n2", 'forced row-level security does not blind the sweep');

# --- tables of a superuser

create_database('super', 'postgres');
$node->safe_psql('super', q{
	SET ROLE eve;
	CREATE TRIGGER see AFTER UPDATE ON upload_session FOR EACH ROW EXECUTE FUNCTION see();
});
refused('super', 'trigger "see"', 'ALTER TABLE upload_session DISABLE TRIGGER see', q{another's trigger});
$node->safe_psql('super', q{
	SET ROLE eve;
	CREATE TRIGGER see BEFORE INSERT ON upload_reclaim FOR EACH STATEMENT EXECUTE FUNCTION see();
});
refused('super', 'trigger "see"', 'DROP TRIGGER see ON upload_reclaim', q{another's trigger on the queue});
$node->safe_psql('super', q{
	SET ROLE eve;
	CREATE TRIGGER conditional BEFORE UPDATE ON upload_session FOR EACH ROW
		WHEN (note('WHEN')) EXECUTE FUNCTION suppress_redundant_updates_trigger();
});
refused('super', 'trigger "conditional"', 'DROP TRIGGER conditional ON upload_session', q{another's condition of a trigger});

$node->safe_psql('super', q{
	ALTER FUNCTION see() SECURITY DEFINER;
	ALTER TABLE upload_session ENABLE TRIGGER see;
});
refused('super', 'trigger "see"', 'DROP TRIGGER see ON upload_session', q{what may cease to be SECURITY DEFINER});

# Children of the table count, too.
$node->safe_psql('super', q{
	CREATE TABLE child () INHERITS (upload_session);
	ALTER TABLE child OWNER TO eve;
});
refused('super', 'different owners', 'DROP TABLE child', q{another's child table});

# --- tables of two roles

create_database('mixed', 'postgres');
$node->safe_psql(
	'mixed', q{
	ALTER TABLE upload_reclaim OWNER TO app;
	SET ROLE app;
	CREATE FUNCTION zero() RETURNS integer LANGUAGE sql AS $$SELECT public.note('DEFAULT')::integer - 1$$;
	ALTER TABLE upload_reclaim ALTER attempts SET DEFAULT zero();
});
add_stale($node, 'mixed', 'u', 1);
sweep_now($node, 'owned', 2);
unlike(seen('mixed'), qr/postgres/, q{nothing of app's runs as superuser});

$node->stop;
done_testing();
