#!/usr/bin/env bash
# packages_life.sh MAJOR OLD.deb NEW.deb SOURCE: the life of a package on a machine, in TAP.
#
# Runs as root in a system of its own, which has PostgreSQL and no network: the old
# package is installed on a server with data, upgraded, refused to be removed, removed
# and purged; then the source package's own tests run, with the package installed anew.
# OLD.deb may be "none".

set -u
major=$1 old=$2 new=$3 source=$4
package=postgresql-$major-vali-blob
output=$(mktemp)
export DEBIAN_FRONTEND=noninteractive PGCONNECT_TIMEOUT=10
tests=0
cd / # the user postgres may not enter the workplace's folder

# ok DESCRIPTION COMMAND...
ok() {
	((++tests))
	if "${@:2}" >"$output" 2>&1; then
		echo "ok $tests - $1"
	else
		echo "not ok $tests - $1"
		sed 's/^/    # /' "$output"
	fi
}

# fails COMMAND...
fails() {
	! "$@"
}

# says PATTERN COMMAND...
# Whether a command ends well and says so
says() {
	local said
	said=$("${@:2}" 2>&1) || {
		echo "status $?: $said"
		return 1
	}
	# shellcheck disable=SC2053 # a pattern
	[[ $said == $1 ]] || {
		echo "$said"
		return 1
	}
}

# sql COMMAND...
# In the database of the sessions, whose name needs quotes
sql() {
	printf '%s;\n' "$@" | runuser -u postgres -- psql --cluster "$major/main" -XAtq -v ON_ERROR_STOP=1 -d "it's" 2>&1
}

postmaster() {
	head -n 1 "/var/lib/postgresql/$major/main/postmaster.pid"
}

# All files but those that say what has happened on a machine, or what apt knows
files() {
	find / -xdev \( -path /tmp -o -path /var/log -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt \
		-o -path /var/tmp -o -path /proc -o -path /dev -o -path /run -o -path /etc/ld.so.cache \) -prune -o -print | sort
}

# The commands that a message has, which are indented
commands() {
	sed -n 's/^    //p' "$1" | grep -v FORCE
}

remove() {
	dpkg --remove "$package"
}

is_installed() {
	[[ $(dpkg-query --show --showformat '${db:Status-Status} ${db:Status-Eflag}' "$package") == "installed ok" ]]
}

# --- an installation on a server with data ----------------------------------------

files >/tmp/before
if [[ $old != none ]]; then
	ok 'the 1.0 package is installed' dpkg --install "$old"
else
	dpkg --install "$new" >/dev/null
fi
sed -i "/^create_main_cluster/d" /etc/postgresql-common/createcluster.d/*.conf 2>/dev/null
pg_createcluster "$major" main >/dev/null 2>&1
pg_conftool "$major" main set shared_preload_libraries 'pg_stat_statements, vali_blob'
ok 'a server preloads its library' pg_ctlcluster "$major" main start
runuser -u postgres -- createdb --cluster "$major/main" "it's"
sql 'CREATE EXTENSION vali_blob' "SELECT upload_id FROM start_upload('a', 100, upload_id => 'a')" \
	"SELECT outcome FROM advance_upload('a', 0, 10)" >/dev/null

# --- the upgrade --------------------------------------------------------------------

if [[ $old != none ]]; then
	ok 'it has the objects of 1.0' says 1.0 sql "SELECT extversion FROM pg_extension WHERE extname = 'vali_blob'"
	coproc SESSION { runuser -u postgres -- psql --cluster "$major/main" -XAtq -d "it's" 2>&1; }
	# asks the session that was there before the upgrade
	ask_session() {
		local answer
		[[ -n ${SESSION[1]-} ]] || return
		echo "$1;" >&"${SESSION[1]}"
		read -r -t 60 answer <&"${SESSION[0]}"
		echo "$answer"
	}
	ask_session "SELECT outcome FROM advance_upload('a', 10, 10)" >/dev/null
	server=$(postmaster)

	dpkg --install "$new" >/tmp/upgrade 2>&1
	ok 'the package is upgraded' is_installed
	ok 'and leaves the server alone' says "$server" postmaster
	ok 'a session of before goes on' says advanced ask_session "SELECT outcome FROM advance_upload('a', 20, 10)"
	ok 'a new one has what was confirmed' says 30 sql "SELECT uploaded_bytes FROM get_upload('a')"
	commands /tmp/upgrade >/tmp/commands
	ok 'the upgrade says how to go on' says 'pg_ctlcluster * restart
runuser *ALTER EXTENSION vali_blob UPDATE*' cat /tmp/commands

	ok 'an update without the restart, which fails, ...' fails sql 'ALTER EXTENSION vali_blob UPDATE'
	ok '... leaves the old version working' \
		says advanced sql "SELECT outcome FROM advance_upload('a', 30, 10)"
	while IFS= read -r command; do
		ok "works: $command" eval "$command"
	done </tmp/commands
	ok 'the objects are of 1.1' says 1.1 sql "SELECT extversion FROM pg_extension WHERE extname = 'vali_blob'"
	ok 'the data is there' says 40 sql "SELECT uploaded_bytes FROM get_upload('a')"
	ok 'what is new works' says advanced sql "SELECT outcome FROM advance_upload('a', 40, 10, part_number => 3)"

	dpkg-reconfigure "$package" >"$output" 2>&1
	ok 'where nothing is left to do, nothing is said' says '' cat "$output"
fi

documents=/usr/share/doc/$package
for file in README.md doc/vali_blob.md doc/administration.md; do
	ok "it has $file" cmp "$source/$file" <(zcat "$documents/${file##*/}.gz")
done
ok 'it has what monitors read' diff -r "$source/monitoring" "$documents/monitoring"
for file in vali_blob_ef_view.sql vali_blob_router.sql; do
	ok "it has $file" cmp "$source/contrib/$file" "/usr/share/postgresql/$major/extension/$file"
done
ok 'it has vali_blob_move.sh' cmp "$source/contrib/vali_blob_move.sh" "$documents/examples/vali_blob_move.sh"
ok 'a script that is run by hand can be run where it is' test -x "$documents/examples/vali_blob_move.sh"

# --- the removal --------------------------------------------------------------------

# Another cluster, which is down, has the library in a file that is included.
pg_createcluster "$major" second >/dev/null 2>&1
echo "shared_preload_libraries = '\$libdir/vali_blob'" >"/etc/postgresql/$major/second/conf.d/uploads.conf"
sql "ALTER SYSTEM SET shared_preload_libraries = 'vali_blob', 'pg_stat_statements'" >/dev/null

ok 'it is not removed while it is in use' fails remove
cp "$output" /tmp/refusal
ok 'and remains installed' is_installed
ok 'which it says, and how to end that' says "*$package is not removed*DROP EXTENSION*FORCE_REMOVE*" cat /tmp/refusal
script=/var/lib/dpkg/info/$package.prerm
ok 'an upgrade is not refused' "$script" upgrade 9
ok 'nor a removal that is forced' env VALI_BLOB_FORCE_REMOVE=1 "$script" remove
echo "postgresql-$major deinstall" | dpkg --set-selections
ok 'nor one that removes the server, too' "$script" remove
echo "postgresql-$major install" | dpkg --set-selections

commands /tmp/refusal >/tmp/commands
ok 'the refusal has five commands' says 5 grep -c . /tmp/commands
while IFS= read -r command; do
	ok 'it is still refused' fails remove
	ok "works: $command" eval "$command"
done </tmp/commands
ok 'it is removed after that' remove
ok 'its files are gone' says '' find / -xdev -path /var/tmp -prune -o -path /proc -prune -o -path /tmp -prune -o \
	-name '*vali*blob*' ! -path '/var/lib/dpkg/info/*' ! -path '/var/log/*' -print
ok 'the server starts again' pg_ctlcluster "$major" main restart
ok 'with the other library that it preloads' says pg_stat_statements sql 'SHOW shared_preload_libraries'
ok 'the other cluster starts' pg_ctlcluster "$major" second start
ok 'and preloads nothing' says '' \
	runuser -u postgres -- psql --cluster "$major/second" -XAtc 'SHOW shared_preload_libraries'
dpkg --purge "$package" >/dev/null 2>&1
pg_dropcluster --stop "$major" main
rm "/etc/postgresql/$major/second/conf.d/uploads.conf"
pg_dropcluster --stop "$major" second
files >/tmp/after
ok 'purged, it leaves nothing' diff /tmp/before /tmp/after
ok 'not even in the list of packages' fails dpkg-query --show "$package"

# --- the tests of the source package ------------------------------------------------

# autopkgtest installs the package, and judges each of its tests
cp -r "$source" /tmp/source
autopkgtest --no-built-binaries /tmp/source "$new" -- null >/tmp/autopkgtest 2>&1
for test in $(sed -n 's/^Tests: //p' /tmp/source/debian/tests/control | tr -d ,); do
	ok "autopkgtest: $test" grep -E "^(autopkgtest.*: )?$test +PASS" /tmp/autopkgtest
done
grep -qE '^installcheck +PASS' /tmp/autopkgtest || sed 's/^/# /' /tmp/autopkgtest

# --- together with the server -------------------------------------------------------

pg_createcluster "$major" main >/dev/null 2>&1
pg_conftool "$major" main set shared_preload_libraries vali_blob
dpkg --install "$new" >/dev/null 2>&1
ok 'it is removed together with the server that preloads it' \
	apt-get --quiet --yes remove "postgresql-$major" "$package"
ok 'and is gone' fails is_installed
echo "1..$tests"
