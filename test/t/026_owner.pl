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
		ALTER TABLE upload_part OWNER TO $owner;
		GRANT ALL ON upload_session, upload_reclaim, upload_part TO eve;
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
	await($node, $dbname, qq{last_error LIKE '%$reason%' AND last_error_at > (SELECT max(created_at) FROM upload_session) FROM sweeper_status()});
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

# --- limits of a superuser's tables: calls of clients change these as the owner

create_database('limits', 'app');
$node->safe_psql('limits', q{
	SELECT grant_upload_access('eve');
	GRANT ALL ON upload_quota, upload_live TO eve;
	SELECT set_upload_quota('limited', 10);
	SET ROLE eve;
	SELECT start_upload('file', owner => 'limited', upload_id => 'live');
});
my %change = (
	upload_live => {
		INSERT => q{SELECT start_upload('file', owner => 'limited')},
		UPDATE => q{SELECT declare_upload_size('live', 10)},
		DELETE => q{SELECT abort_upload('live')},
	},
	upload_quota => {
		INSERT => q{SET vali_blob.max_live_uploads = 5; SET ROLE eve; SELECT start_upload('file', owner => 'set')},
	});

foreach my $table (sort keys %change)
{
	foreach my $event (sort keys %{ $change{$table} })
	{
		my $call = "SET ROLE eve; $change{$table}{$event}" =~ s/SET ROLE eve; (?=SET vali_blob)//r;

		$node->safe_psql('limits', "SET ROLE eve; CREATE TRIGGER see AFTER $event ON $table FOR EACH ROW EXECUTE FUNCTION see()");
		is(sqlstate_of($node, $call, 'limits'), '42501', "no trigger of an ordinary role fires as superuser: $event on $table");
		$node->safe_psql('limits', "ALTER TABLE $table OWNER TO app");
		is(sqlstate_of($node, "BEGIN; $call; ROLLBACK", 'limits'), '00000', '... but as a role that is none');
		$node->safe_psql('limits', "DROP TRIGGER see ON $table; ALTER TABLE $table OWNER TO postgres; GRANT ALL ON $table TO eve");
		is(sqlstate_of($node, "BEGIN; $call; ROLLBACK", 'limits'), '00000', '... and without it all is well');
	}
}
$node->safe_psql('limits', q{CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE TRIGGER nothing AFTER INSERT ON upload_live FOR EACH ROW EXECUTE FUNCTION nothing()});
is(sqlstate_of($node, "SET ROLE eve; $change{upload_live}{INSERT}", 'limits'), '00000', "a superuser's own trigger fires");
$node->safe_psql('limits', q{DROP TRIGGER nothing ON upload_live; CREATE RULE nothing AS ON INSERT TO upload_live DO ALSO NOTHING});
is(sqlstate_of($node, "SET ROLE eve; $change{upload_live}{INSERT}", 'limits'), '42501', 'a rule does not run');

# --- parts of a superuser, whose sessions belong to a role that is none

create_database('parts', 'app');
$node->safe_psql('parts', q{
	ALTER TABLE upload_part OWNER TO postgres;
	GRANT ALL ON upload_part TO eve;
	GRANT SELECT ON upload_part TO app;
	SET ROLE eve;
	CREATE TRIGGER see AFTER DELETE ON upload_part FOR EACH ROW EXECUTE FUNCTION see();
	RESET ROLE;
	SELECT start_upload('file', upload_id => 'live', any_order => true), start_upload('file', upload_id => 'done', any_order => true);
	SELECT advance_upload('live', 10, 10), advance_upload('done', 10, 10), abort_upload('done');
	UPDATE upload_session SET expires_at = '2001-01-01'});
await($node, 'parts', q{last_error LIKE '%trigger "see"%' FROM sweeper_status()});
await($node, 'parts', q{status = 'expired' FROM upload_session WHERE upload_id = 'live'});
is(statuses($node, 'parts') . seen('parts'), "live: expired, done: aborted", q{another's trigger on parts stops purges, not expiry});
$node->safe_psql('parts', 'ALTER TABLE upload_part OWNER TO app');
$node->reload;
await($node, 'parts', q{count(*) = 0 FROM upload_session WHERE upload_id = 'done'});
is(seen('parts'), "DELETE upload_part|$seen", 'where it runs as a role that is none, it does not');

# --- tables of a superuser

create_database('super', 'postgres');
$node->safe_psql('super', q{
	SET ROLE eve;
	CREATE TRIGGER see AFTER UPDATE ON upload_session FOR EACH ROW EXECUTE FUNCTION see();
});
add_stale($node, 'super', 'u', 1);
await($node, 'super', q{last_error LIKE '%trigger "see"%' FROM sweeper_status()});
$node->safe_psql('super', q{INSERT INTO upload_session (upload_id, path, status, expires_at) VALUES ('done', 'file', 'aborted', '2001-01-01')});
await($node, 'super', q{count(*) = 0 FROM upload_session WHERE upload_id = 'done'});
is(statuses($node, 'super'), 'u1: pending', 'what stops expiry does not stop purges');
$node->safe_psql('super', 'DELETE FROM upload_session');
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
	my $key = $table eq 'upload_session' ? 'upload_id' : 'id, upload_id';
	my $column = $table eq 'upload_session' ? 'key' : 'id, key';
	my $default = $action =~ /DEFAULT/ ? 'DEFAULT zero()' : '';

	return qq{
		SET ROLE eve;
		CREATE FUNCTION zero() RETURNS varchar LANGUAGE sql AS 'SELECT CASE WHEN public.note(\$q\$DEFAULT\$q\$) THEN NULL::varchar END';
		CREATE TABLE evil (id bigint, key varchar $default,
			CONSTRAINT evil_key_fkey FOREIGN KEY ($column) REFERENCES $table ($key) $action);
		CREATE TRIGGER see AFTER UPDATE OR DELETE ON evil FOR EACH ROW EXECUTE FUNCTION see();
	};
}

# Put all that eve has made away, and her rows.
my $put_away = 'DROP TABLE evil; DROP FUNCTION zero; TRUNCATE upload_session, upload_reclaim, seen CASCADE';

# A purge must fail for this reason, expiry must go on, and the purge when the
# reason is gone.
sub purge_refused
{
	my ($reason, $cure, $test_name) = @_;

	set_database($node, 'super', 'vali_blob.retention' => '2 h');
	$node->safe_psql('super', q{
		INSERT INTO upload_session (upload_id, path, status, expires_at) VALUES ('done', 'file', 'aborted', '2001-01-01')
		ON CONFLICT DO NOTHING});
	add_stale($node, 'super', 'u', 1);
	await($node, 'super', qq{last_error LIKE '%$reason%' AND last_error_at > (SELECT max(created_at) FROM upload_session) FROM sweeper_status()});
	await($node, 'super', q{status = 'expired' FROM upload_session WHERE upload_id = 'u1'});
	is(statuses($node, 'super') =~ s/, u1.*|u1[^,]*, //r . seen('super'), 'done: aborted', "$test_name stops the purge, not expiry");
	$node->safe_psql('super', $cure);
	$node->reload;
	await($node, 'super', q{count(*) = 0 FROM upload_session WHERE upload_id = 'done'});
	$node->safe_psql('super', 'DELETE FROM upload_session; DELETE FROM upload_reclaim');
	return;
}

# Whatever the action, a foreign key runs queries on the referencing table, with
# what its owner has attached; here, an index expression.
foreach my $action ('ON DELETE CASCADE', 'ON DELETE SET NULL', 'ON DELETE SET DEFAULT', 'ON DELETE RESTRICT', '')
{
	$node->safe_psql('super', build_reference('upload_session', $action));
	$node->safe_psql('super', q{
		INSERT INTO upload_session (upload_id, path, status, expires_at) VALUES ('done', 'file', 'aborted', '2001-01-01');
		SET ROLE eve;
		CREATE FUNCTION index_expression() RETURNS int IMMUTABLE LANGUAGE plpgsql AS
			$$ BEGIN IF current_setting('application_name') ~ 'vali' THEN PERFORM public.note('INDEX'); END IF; RETURN 1; END $$;
		CREATE INDEX ON evil ((index_expression()));
	});
	$node->safe_psql('super', q{INSERT INTO evil VALUES (1, 'done')}) if $action =~ /CASCADE|SET/;
	purge_refused('foreign key "evil_key_fkey"', 'DROP TABLE evil; DROP FUNCTION zero, index_expression', "another's foreign key $action");
}

# On the queue, it stops the queue only.
$node->safe_psql('super', build_reference('upload_reclaim', 'ON DELETE CASCADE'));
$node->safe_psql('super', q{
	INSERT INTO upload_reclaim (id, upload_id, path, provider_data, reason, enqueued_at) VALUES (7, 'old', 'file', '{}', 'aborted', '2001-01-01');
	INSERT INTO evil VALUES (7, 'old');
	INSERT INTO upload_session (upload_id, path, status, expires_at) VALUES ('done', 'file', 'aborted', '2001-01-01');
});
add_stale($node, 'super', 'u', 1);
await($node, 'super', q{last_error LIKE '%"evil_key_fkey"%' AND last_error_at > (SELECT max(created_at) FROM upload_session) FROM sweeper_status()});
await($node, 'super', q{string_agg(upload_id || status, '') = 'u1expired' FROM upload_session});
is($node->safe_psql('super', 'SELECT count(*) FROM evil') . seen('super'), '1', q{another's foreign key to the queue stops what is dropped from it});
$node->safe_psql('super', $put_away);

# Nor at the end of a chain that begins with a superuser's table.
$node->safe_psql('super', q{
	CREATE TABLE file (key varchar PRIMARY KEY REFERENCES upload_session (upload_id) ON DELETE CASCADE);
	GRANT REFERENCES ON file TO eve;
	SET ROLE eve;
	CREATE TABLE evil (key varchar REFERENCES file ON DELETE CASCADE);
	CREATE TRIGGER see AFTER DELETE ON evil FOR EACH ROW EXECUTE FUNCTION see();
});
purge_refused('foreign key "evil_key_fkey"', 'DROP TABLE evil', 'the end of a chain');

# A row that SET NULL moves to another partition fires INSERT triggers there.
$node->safe_psql('super', q{
	CREATE TABLE moved (key varchar REFERENCES upload_session (upload_id) ON DELETE SET NULL) PARTITION BY LIST (key);
	CREATE TABLE moved_null PARTITION OF moved FOR VALUES IN (NULL);
	CREATE TABLE moved_rest PARTITION OF moved DEFAULT;
	GRANT TRIGGER ON moved_null TO eve;
	SET ROLE eve;
	CREATE TRIGGER see AFTER INSERT ON moved_null FOR EACH ROW EXECUTE FUNCTION see();
});
purge_refused('trigger "see"', 'DROP TABLE moved', 'a row that moves to another partition');

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

# Its partitions, and rules, may be others' again.
$node->safe_psql('super', q{
	CREATE TABLE asset (key varchar REFERENCES upload_session) PARTITION BY LIST (key);
	CREATE TABLE evil PARTITION OF asset DEFAULT;
	ALTER TABLE evil OWNER TO eve;
});
purge_refused('foreign key "asset_key_fkey"', 'DROP TABLE asset', q{another's partition});
$node->safe_psql('super', q{
	CREATE TABLE purged (key varchar);
	CREATE RULE r AS ON DELETE TO upload_session DO ALSO INSERT INTO purged VALUES (OLD.upload_id);
});
refused('super', 'rules of table "upload_session"', 'DROP RULE r ON upload_session', 'a rule');

# Nothing is waited for: a table that references ours is locked, and expiry goes on.
$node->safe_psql('super', 'CREATE TABLE file (key varchar REFERENCES upload_session ON DELETE CASCADE)');
my $lock = $node->background_psql('super');
$lock->query_safe('BEGIN; LOCK TABLE file IN SHARE MODE');
$node->safe_psql('super', q{INSERT INTO upload_session (upload_id, path, status, expires_at) VALUES ('done', 'file', 'aborted', '2001-01-01')});
my $before_lock = $node->safe_psql('super', 'SELECT last_error_at FROM sweeper_status()');
add_stale($node, 'super', 'u', 1);
await($node, 'super', q{status = 'expired' FROM upload_session WHERE upload_id = 'u1'});
sweep_now($node, 'super', 2);
is($node->safe_psql('super', q{SELECT count(*) FROM upload_session WHERE upload_id = 'done'; SELECT last_error_at FROM sweeper_status()}),
	"1\n$before_lock", 'a locked table keeps only purges waiting, and is no error');
$lock->quit;
await($node, 'super', q{count(*) = 0 FROM upload_session WHERE upload_id = 'done'});
$node->safe_psql('super', 'DROP TABLE file, purged; DELETE FROM upload_session; DELETE FROM upload_reclaim');

# Where expiry would change a key, ON UPDATE counts: because the key has a column
# that it changes, because of a trigger, or of a generated column.
foreach (
	[ 'a key that expiry changes', 'UNIQUE (upload_id, status)', 'status', '' ],
	[ 'a key that a trigger might change', 'UNIQUE (path)', 'path', q{
		CREATE FUNCTION alter_path() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN NEW.path = NEW.path || 'x'; RETURN NEW; END $$;
		CREATE TRIGGER alter_path BEFORE UPDATE ON upload_session FOR EACH ROW EXECUTE FUNCTION alter_path()} ],
	[ 'a generated key', 'UNIQUE (twice)', 'twice', q{ALTER TABLE upload_session ADD twice bigint GENERATED ALWAYS AS (uploaded_bytes * 2) STORED} ])
{
	my ($name, $unique, $column, $more) = @$_;
	my $referenced = $unique =~ s/UNIQUE //r;

	$node->safe_psql('super', qq{
		$more;
		ALTER TABLE upload_session ADD CONSTRAINT pair $unique;
		GRANT USAGE ON TYPE upload_status TO eve;
		SET ROLE eve;
		CREATE TABLE evil (upload_id varchar, status upload_status, path varchar, twice bigint,
			CONSTRAINT evil_key_fkey FOREIGN KEY $referenced REFERENCES upload_session $referenced ON UPDATE CASCADE);
	});
	refused('super', 'foreign key "evil_key_fkey"', 'DROP TABLE evil', $name);
	$node->safe_psql('super', 'ALTER TABLE upload_session DROP CONSTRAINT pair; ALTER TABLE upload_session DROP IF EXISTS twice; DROP FUNCTION IF EXISTS alter_path CASCADE');
}

# A cycle of keys is followed to its end.
$node->safe_psql('super', q{
	ALTER TABLE upload_session ADD replaces varchar UNIQUE REFERENCES upload_session ON DELETE SET NULL;
	SET ROLE eve;
	CREATE TABLE evil (key varchar, CONSTRAINT evil_key_fkey FOREIGN KEY (key) REFERENCES upload_session (replaces) ON UPDATE CASCADE);
});
purge_refused('foreign key "evil_key_fkey"', 'DROP TABLE evil; ALTER TABLE upload_session DROP replaces', 'a cycle');

# Foreign keys of the queue to others' tables are checked when a session expires.
$node->safe_psql('super', q{
	SET ROLE eve;
	CREATE TABLE account (name text PRIMARY KEY);
	GRANT REFERENCES ON account TO postgres;
	RESET ROLE;
	ALTER TABLE upload_reclaim ADD CONSTRAINT evil_key_fkey FOREIGN KEY (owner) REFERENCES account;
});
refused('super', 'foreign key "evil_key_fkey"', 'ALTER TABLE upload_reclaim DROP CONSTRAINT evil_key_fkey; DROP TABLE account', 'a key to another\'s table');

# So are those of a session, on a column that expiry changes.
$node->safe_psql('super', q{
	GRANT USAGE ON TYPE upload_status TO eve;
	SET ROLE eve;
	CREATE TABLE known (status upload_status PRIMARY KEY);
	INSERT INTO known SELECT unnest(enum_range(NULL::upload_status));
	GRANT REFERENCES ON known TO postgres;
	RESET ROLE;
	ALTER TABLE upload_session ADD CONSTRAINT evil_key_fkey FOREIGN KEY (status) REFERENCES known;
});
refused('super', 'foreign key "evil_key_fkey"', 'ALTER TABLE upload_session DROP CONSTRAINT evil_key_fkey; DROP TABLE known', 'a key of what expiry changes');

# What a sweep does not fire is not its business.
$node->safe_psql('super', q{
	CREATE TRIGGER harmless BEFORE INSERT ON upload_session FOR EACH ROW WHEN (NEW.path = 'x') EXECUTE FUNCTION suppress_redundant_updates_trigger();
	SET ROLE eve;
	CREATE TRIGGER see AFTER INSERT ON upload_session FOR EACH ROW EXECUTE FUNCTION see();
	RESET ROLE;
	ALTER TABLE upload_session DISABLE TRIGGER ALL;
	ALTER TABLE upload_session ENABLE REPLICA TRIGGER see;
});
add_stale($node, 'super', 'u', 1);
await_expired('super');
pass('triggers that a sweep does not fire do not stop it');

# A row that cannot even be read keeps no other from expiring.
$node->safe_psql('super', q{
	ALTER TABLE upload_session ALTER created_at DROP NOT NULL;
	INSERT INTO upload_session (upload_id, path, created_at, expires_at) VALUES ('unreadable', 'file', NULL, '2001-01-01');
});
add_stale($node, 'super', 'u', 1);
await($node, 'super', q{status = 'expired' FROM upload_session WHERE upload_id = 'u1'});
await($node, 'super', q{last_error LIKE 'upload "unreadable": column "created_at" %' FROM sweeper_status()});
pass('nor does a row that cannot be read');

# An expired session may move to another partition, too.
create_database('moving', 'postgres');
$node->safe_psql('moving', q{
	ALTER TABLE upload_session RENAME TO before;
	CREATE TABLE upload_session (LIKE before INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING IDENTITY) PARTITION BY LIST (status);
	ALTER TABLE upload_session ADD PRIMARY KEY (upload_id, status);
	CREATE INDEX ON upload_session (expires_at, id);
	CREATE TABLE live PARTITION OF upload_session FOR VALUES IN ('pending', 'in_progress');
	CREATE TABLE ended PARTITION OF upload_session DEFAULT;
	GRANT TRIGGER ON ended TO eve;
	SET ROLE eve;
	CREATE TRIGGER see AFTER INSERT ON ended FOR EACH ROW EXECUTE FUNCTION see();
});
refused('moving', 'trigger "see"', 'DROP TRIGGER see ON ended', 'a move to another partition');

# --- tables of two roles

create_database('mixed', 'postgres');
$node->safe_psql(
	'mixed', q{
	ALTER TABLE upload_reclaim OWNER TO app;
	SET ROLE app;
	CREATE FUNCTION zero() RETURNS integer LANGUAGE sql AS $$SELECT public.note('DEFAULT')::integer - 1$$;
	ALTER TABLE upload_reclaim ALTER attempts SET DEFAULT zero();
});
is(sqlstate_of($node, 'SELECT * FROM upload_stats', 'mixed'), '42501', 'upload_stats reads no tables of two roles');
add_stale($node, 'mixed', 'u', 1);
sweep_now($node, 'owned', 2);
unlike(seen('mixed'), qr/postgres/, q{nothing of app's runs as superuser});

$node->stop;
done_testing();
