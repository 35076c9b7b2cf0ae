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
	$node->safe_psql($dbname, 'DELETE FROM upload_session');
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

# --- foreign keys of others to a superuser's tables

# A table of eve's that references one of ours, and her trigger on it.
sub build_reference
{
	my ($table, $action) = @_;
	my $key = $table eq 'upload_session' ? 'upload_id' : 'id';
	my $default = $action =~ /DEFAULT/ ? 'DEFAULT zero()' : '';
	my $type = $key eq 'id' ? 'bigint' : 'varchar';

	return qq{
		SET ROLE eve;
		CREATE FUNCTION zero() RETURNS $type LANGUAGE sql AS 'SELECT CASE WHEN public.note(\$q\$DEFAULT\$q\$) THEN NULL::$type END';
		CREATE TABLE evil (key $type $default REFERENCES $table ($key) $action);
		CREATE TRIGGER see AFTER UPDATE OR DELETE ON evil FOR EACH ROW EXECUTE FUNCTION see();
	};
}

# Put all that eve has made away, and her rows.
my $put_away = 'DROP TABLE evil; DROP FUNCTION zero; TRUNCATE upload_session, upload_reclaim, seen';

foreach my $action ('ON DELETE CASCADE', 'ON DELETE SET NULL', 'ON DELETE SET DEFAULT')
{
	$node->safe_psql('super', build_reference('upload_session', $action));
	refused('super', 'foreign key "evil_key_fkey"', 'DROP TABLE evil; DROP FUNCTION zero', "another's $action");
}

# The worker purges nothing for which such a key would run her trigger.
set_database($node, 'super', 'vali_blob.retention' => '0');
$node->safe_psql('super', build_reference('upload_session', 'ON DELETE CASCADE'));
$node->safe_psql('super', q{
	INSERT INTO upload_session (upload_id, path, status, expires_at) VALUES ('done', 'file', 'aborted', '2001-01-01');
	INSERT INTO evil VALUES ('done');
});
await($node, 'super', q{last_error LIKE '%"evil_key_fkey"%' AND last_error_at > (SELECT max(created_at) FROM upload_session) FROM sweeper_status()});
is($node->safe_psql('super', 'SELECT count(*) FROM evil') . seen('super'), '1', q{another's trigger behind a foreign key never runs});
$node->safe_psql('super', $put_away);

# Nor of the queue, whose rows go with time.
$node->safe_psql('super', build_reference('upload_reclaim', 'ON DELETE CASCADE'));
$node->safe_psql('super', q{
	INSERT INTO upload_reclaim (id, upload_id, path, provider_data, reason, enqueued_at) VALUES (7, 'old', 'file', '{}', 'aborted', '2001-01-01');
	INSERT INTO evil VALUES (7);
});
my $inserted = $node->safe_psql('super', 'SELECT now()');
await($node, 'super', qq{last_error LIKE '%"evil_key_fkey"%' AND last_error_at > '$inserted' FROM sweeper_status()});
is($node->safe_psql('super', 'SELECT count(*) FROM evil') . seen('super'), '1', 'nor one on the queue');
$node->safe_psql('super', $put_away);

# Nor at the end of a chain that begins with a superuser's table.
$node->safe_psql('super', q{
	CREATE TABLE file (key varchar PRIMARY KEY REFERENCES upload_session (upload_id) ON DELETE CASCADE);
	GRANT REFERENCES ON file TO eve;
	SET ROLE eve;
	CREATE TABLE evil (key varchar REFERENCES file ON DELETE CASCADE);
	CREATE TRIGGER see AFTER DELETE ON evil FOR EACH ROW EXECUTE FUNCTION see();
});
refused('super', 'foreign key "evil_key_fkey"', 'DROP TABLE evil', 'the end of a chain');

# A superuser's own table that references ours may be changed, with its trigger.
$node->safe_psql('super', q{
	CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.seen VALUES (TG_OP || ' ' || TG_TABLE_NAME, current_user);
		RETURN NULL;
	END $$;
	CREATE TRIGGER witness AFTER DELETE ON file FOR EACH ROW EXECUTE FUNCTION witness();
	INSERT INTO upload_session (upload_id, path, status, expires_at) VALUES ('done', 'file', 'aborted', '2001-01-01');
	INSERT INTO file VALUES ('done');
});
await($node, 'super', 'count(*) = 0 FROM file');
is($node->safe_psql('super', 'SELECT what, who FROM seen'), 'DELETE file|postgres', q{a superuser's own table is changed along});
$node->safe_psql('super', 'DROP TABLE file; TRUNCATE seen');

# A key that only checks is harmless: ON UPDATE, as no key changes, and NO ACTION.
$node->safe_psql('super', q{
	SET ROLE eve;
	CREATE TABLE reader (key varchar REFERENCES upload_session (upload_id) ON UPDATE CASCADE);
});
add_stale($node, 'super', 'u', 1);
await_expired('super');
pass('a foreign key that only checks does not stop the sweep');

# But what checking can run (here, an index expression) might change the
# search_path for a superuser's careless trigger.
$node->safe_psql('super', 'CREATE TRIGGER witness AFTER UPDATE ON upload_session FOR EACH ROW EXECUTE FUNCTION witness()');
refused('super', 'trigger "witness"', 'ALTER FUNCTION witness() SET search_path = pg_catalog', 'a trigger that depends on the search_path');
$node->safe_psql('super', q{
	DROP TRIGGER witness ON upload_session;
	DROP TABLE reader;
	TRUNCATE seen;
});

# Where a sweep would change a key, ON UPDATE counts.
$node->safe_psql('super', q{
	ALTER TABLE upload_session ADD CONSTRAINT upload_session_both_key UNIQUE (upload_id, status);
	GRANT USAGE ON TYPE upload_status TO eve;
	SET ROLE eve;
	CREATE TABLE evil (key varchar, status upload_status,
		CONSTRAINT evil_key_fkey FOREIGN KEY (key, status) REFERENCES upload_session (upload_id, status) ON UPDATE CASCADE);
});
refused('super', 'foreign key "evil_key_fkey"', 'DROP TABLE evil', 'ON UPDATE of a key that changes');
$node->safe_psql('super', 'ALTER TABLE upload_session DROP CONSTRAINT upload_session_both_key');

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
