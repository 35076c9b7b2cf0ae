#!/usr/bin/env bash
# Sourced by demo/run and test/run: a place where they can run.
#
# enter_workplace installs the packages that are missing, copies this source
# tree and PostgreSQL into a temporary folder, and runs the calling script
# again from there as an ordinary user.  The checkout and the installed
# PostgreSQL are only read.  However the script ends, what it started is
# stopped and the folder is removed.
#
# PG_CONFIG chooses a PostgreSQL.  TMPDIR chooses where the temporary folder
# is (default: /var/tmp, which is on a disk).

set -euo pipefail

# shellcheck disable=SC2034 # for the scripts that source this
build_packages=(postgresql-@ postgresql-server-dev-@ make gcc libc6-dev)

# enter_workplace PACKAGE... -- ARGUMENT...
# Returns only inside the workplace.  An "@" in the name of a package stands
# for the major version of PostgreSQL.
enter_workplace() {
	if [[ -n ${VALI_BLOB_WORKPLACE-} ]]; then
		cd "$VALI_BLOB_WORKPLACE/source"
		return
	fi

	local packages=()
	while [[ $1 != -- ]]; do
		packages+=("$1")
		shift
	done
	install_packages "${packages[@]}"
	make_workplace
	run_in_workplace "${@:2}"
}

# build_extension COMPILER
# Builds the extension and installs it into the workplace's PostgreSQL.  A
# warning is an error, unless it is about PostgreSQL's headers or about flags
# of PostgreSQL's that clang does not know.  Without the linker's plugin clang
# cannot do what Ubuntu's flags ask for, optimization while linking.
build_extension() {
	local flags
	flags="-Wall -Wextra -Werror -isystem $(pg_config --includedir-server)"
	[[ $1 != clang ]] ||
		flags+=" -Wno-unknown-warning-option -Wno-ignored-optimization-argument -fno-lto"
	make --silent clean &&
		make --silent --jobs=2 CC="$1" COPT="$flags" &&
		make --silent install
}

fail() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# --- packages ---------------------------------------------------------------

install_packages() {
	local major missing
	major=$(installed_major)
	[[ -n $(missing_packages "$major" "$@") ]] || return 0

	as_root apt-get update --quiet=2 ||
		echo "apt-get update failed; going on with the lists that are there" >&2
	[[ -n $major ]] ||
		major=$(apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-//p')
	missing=$(missing_packages "$major" "$@" | paste -sd ' ')
	echo "Installing $missing"
	as_root bash -c "$(declare -f apt_install); apt_install $missing"
}

# The major version that PG_CONFIG names, or of the newest server installed.
installed_major() {
	if [[ -n ${PG_CONFIG-} ]]; then
		"$PG_CONFIG" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/'
	else
		local server
		for server in /usr/lib/postgresql/*/bin/postgres; do
			[[ ! -e $server ]] || cut -d/ -f5 <<<"$server"
		done | sort -n | tail -1
	fi
}

# Whether PostgreSQL is, or will be, one of the distribution's packages.
is_packaged() {
	[[ -z ${PG_CONFIG-} || $("$PG_CONFIG" --bindir) == /usr/lib/postgresql/* ]]
}

# missing_packages MAJOR PACKAGE...
missing_packages() {
	local major=$1 package
	shift
	for package; do
		[[ $package != *@* ]] || is_packaged || continue
		package=${package//@/$major}
		[[ -n $(installed_version "$package") ]] ||
			echo "$package$(headers_version "$package" "$major")"
	done
}

installed_version() {
	dpkg-query -W -f '${db:Status-Status} ${Version}\n' "$1" 2>/dev/null |
		sed -n 's/^installed //p'
}

# headers_version PACKAGE MAJOR
# With the headers of a newer minor version than the server's an extension may
# not load, so those of the same version are asked for, if there are any.
headers_version() {
	local version
	version=$(installed_version "postgresql-$2")
	if [[ $1 == postgresql-server-dev-* && -n $version ]] &&
		apt-cache show "$1=$version" >/dev/null 2>&1; then
		echo "=$version"
	fi
}

# Runs as root.  Only adds: a server that is there already must not be upgraded,
# for that restarts it.
apt_install() {
	set -euo pipefail
	export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
	local install=(apt-get install --quiet=2 --yes --no-install-recommends
		--no-upgrade --no-remove -o APT::Get::Upgrade-By-Source-Package=false
		-o DPkg::Lock::Timeout=300)
	if "${install[@]}" --simulate "$@" | grep -E '^Inst postgresql-[0-9]+ \['; then
		echo "this would upgrade a PostgreSQL server; please install by hand: $*" >&2
		exit 1
	fi
	no_cluster=/etc/postgresql-common/createcluster.d/vali_blob.conf
	log=$(mktemp)
	trap 'rm -f "$no_cluster" "$log"' EXIT

	# A new server's package makes a cluster and starts it, unless told not to.
	{
		"${install[@]}" postgresql-common &&
			mkdir -p "${no_cluster%/*}" &&
			echo "create_main_cluster = false" >"$no_cluster" &&
			"${install[@]}" "$@"
	} </dev/null >"$log" 2>&1 || {
		cat "$log" >&2
		exit 1
	}
}

as_root() {
	if ((EUID == 0)); then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		fail "must be root, or have sudo, to install what is missing"
	fi
}

# --- the workplace ----------------------------------------------------------

make_workplace() {
	local pg_config=${PG_CONFIG:-/usr/lib/postgresql/$(installed_major)/bin/pg_config}
	local dir headers

	checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
	workplace=$(mktemp -d "${TMPDIR:-/var/tmp}/vali_blob.XXXXXX")
	trap leave_workplace EXIT
	trap 'exit 130' INT TERM HUP
	mkdir "$workplace"/{source,home,tmp,root}
	tar -C "$checkout" --exclude=./.git --exclude=./tmp_check -cf - . |
		tar -C "$workplace/source" -xf -

	# At the same paths under another root, PostgreSQL finds its own parts.
	for dir in bindir pkglibdir sharedir; do
		dir=$("$pg_config" --$dir)
		mkdir -p "$workplace/root${dir%/*}"
		[[ -e $workplace/root$dir ]] || cp -aL "$dir" "$workplace/root$dir"
	done
	dir=$("$pg_config" --includedir)
	mkdir -p "$workplace/root${dir%/*}"
	ln -s "$dir" "$workplace/root$dir"
	bindir=$workplace/root$("$pg_config" --bindir)

	headers=$(sed -n 's/^#define PG_VERSION "\(.*\)"/\1/p' \
		"$("$pg_config" --includedir-server)/pg_config.h")
	[[ $("$bindir/postgres" --version) == *" $headers" ]] ||
		echo "Beware: PostgreSQL's headers are of $headers, the server is not" >&2
}

run_in_workplace() {
	local script as_user=()
	script=$(realpath "$0")

	if ((EUID == 0)); then
		chown -R postgres: "$workplace"
		as_user=(setpriv --reuid=postgres --regid=postgres --init-groups)
		"${as_user[@]}" test -w "$workplace" ||
			fail "the user postgres cannot enter ${workplace%/*}; choose another TMPDIR"
	fi

	set -m # so that Ctrl-C comes here only
	"${as_user[@]}" env -i \
		VALI_BLOB_WORKPLACE="$workplace" HOME="$workplace/home" TMPDIR="$workplace/tmp" \
		PG_CONFIG="$bindir/pg_config" PATH="$bindir:/usr/bin:/bin" \
		LANG=C.UTF-8 TERM="${TERM-dumb}" ${NO_COLOR:+NO_COLOR="$NO_COLOR"} \
		bash "$workplace/source${script#"$checkout"}" "$@" </dev/null &
	set +m
	wait $!
	exit
}

leave_workplace() {
	local signal=TERM rounds=0 processes
	trap '' INT TERM HUP
	while mapfile -t processes < <(workplace_processes) && ((${#processes[@]} > 0)); do
		((++rounds < 100)) || signal=KILL
		kill -s $signal "${processes[@]}" 2>/dev/null || true
		sleep 0.1
	done
	rm -rf "$workplace"
}

# Whatever has its working directory in the workplace: scripts, servers.
workplace_processes() {
	local process
	for process in /proc/[0-9]*; do
		[[ $(readlink "$process/cwd") != "$workplace"* ]] || echo "${process#/proc/}"
	done 2>/dev/null
}
