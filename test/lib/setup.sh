#!/usr/bin/env bash
# Sourced by demo/run, test/run and bench/run: a place where they can run.
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

script=$(realpath "$0")
checkout=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
program=${script#"$checkout/"}

# shellcheck disable=SC2034 # for the scripts that source this
build_packages=(postgresql-@ postgresql-server-dev-@ make gcc libc6-dev)

# enter_workplace PACKAGE... -- ARGUMENT...
# Returns only inside the workplace.  An "@" in the name of a package stands
# for the major version of PostgreSQL.  The variables prepare and furnish may name
# functions to call when the packages and when the workplace are there.
enter_workplace() {
	if [[ -n ${VALI_BLOB_WORKPLACE-} ]]; then
		cd "$VALI_BLOB_WORKPLACE/source"
		return
	fi

	local packages=() pg_config=${PG_CONFIG-}
	while [[ $1 != -- ]]; do
		packages+=("$1")
		shift
	done
	trap 'exit 130' INT TERM HUP
	check_tmpdir
	[[ -z $pg_config ]] || check_pg_config
	is_packaged || check_postgresql
	install_packages "${packages[@]}"
	: "${pg_config:=/usr/lib/postgresql/$(installed_major)/bin/pg_config}"
	check_postgresql
	[[ -z ${prepare-} ]] || $prepare
	make_workplace
	[[ -z ${furnish-} ]] || $furnish
	run_in_workplace "${@:2}"
}

# help_on_workplace PACKAGE...
# What --help says of all this
help_on_workplace() {
	local packages
	packages=$(printf '  %s\n' "${@//@/N}")
	cat <<-END

		Environment:
		  PG_CONFIG   the pg_config of the PostgreSQL to use; otherwise it is the
		              distribution's, of the newest major version N installed
		  TMPDIR      where the temporary folder is made; otherwise /var/tmp

		All work is done in the temporary folder, on servers of its own, and the
		folder is removed at the end.  An existing cluster is never touched.

		Packages of these that are missing are installed first, as root or with sudo
		(with PG_CONFIG not the distribution's, none of PostgreSQL):
		$packages
	END
}

# build_extension COMPILER
# Builds the extension and installs it into the workplace's PostgreSQL.  A
# warning is an error, unless it is about PostgreSQL's headers or about flags
# of PostgreSQL's that clang does not know.  Without the linker's plugin clang
# cannot do what Ubuntu's flags ask for, optimization while linking.  PostgreSQL's own
# PG_SIG_IGN casts between types of functions, which PostgreSQL lets clang pass, too.
build_extension() {
	local flags
	flags="-Wall -Wextra -Werror -isystem $(pg_config --includedir-server)"
	[[ $1 != clang ]] ||
		flags+=" -Wno-unknown-warning-option -Wno-ignored-optimization-argument \
			-Wno-cast-function-type-strict -fno-lto"
	make --silent clean &&
		make --silent --jobs=2 CC="$1" COPT="$flags" &&
		make --silent install
}

fail() {
	echo "$program: $*" >&2
	exit 1
}

usage_error() {
	echo "$program: $*; see $program --help" >&2
	exit 2
}

# --- what must be so ---------------------------------------------------------

# A socket's path has 107 characters at most; its end is ours.
check_tmpdir() {
	tmpdir=$(realpath -m "${TMPDIR:-/var/tmp}")
	[[ -d $tmpdir && -w $tmpdir ]] ||
		fail "TMPDIR=$tmpdir is not a folder that can be written to"
	check_path TMPDIR "$tmpdir"
	((${#tmpdir} <= 58)) ||
		fail "TMPDIR=$tmpdir is too long for the path of a server's socket"
}

check_path() {
	[[ $2 != *[^[:alnum:]_./+,@=~-]* ]] ||
		fail "$1: make cannot cope with a space or the like in a path: $2"
}

check_pg_config() {
	command -v "$pg_config" >/dev/null ||
		fail "PG_CONFIG=$pg_config: there is no such program"
	[[ $("$pg_config" --version 2>/dev/null) == "PostgreSQL "[0-9]* ]] ||
		fail "PG_CONFIG=$pg_config is not a pg_config of PostgreSQL"
}

check_postgresql() {
	local bindir headers
	bindir=$("$pg_config" --bindir)
	headers=$("$pg_config" --includedir-server)
	check_path PG_CONFIG "$bindir"
	[[ -x $bindir/postgres ]] || fail "$pg_config: there is no server in $bindir"
	[[ -e $headers/pg_config.h && -e $("$pg_config" --pgxs) ]] ||
		fail "$pg_config: there are no server headers in $headers, or PGXS is missing"
}

# --- packages ---------------------------------------------------------------

install_packages() {
	local major missing by_hand
	major=$(installed_major)
	[[ -n $(missing_packages "$major" "$@") ]] || return 0

	if ((EUID == 0)) || command -v sudo >/dev/null; then
		echo "Packages are missing; updating the lists of packages" >&2
		as_root apt-get update --quiet=2 ||
			echo "apt-get update failed; going on with the lists that are there" >&2
	fi
	[[ -n $major ]] ||
		major=$(apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-//p')
	[[ -n $major ]] ||
		fail "the lists of packages do not have postgresql; as root: apt-get update"
	missing=$(missing_packages "$major" "$@" | paste -sd ' ')
	by_hand="as root: apt-get install --no-install-recommends $missing"
	((EUID == 0)) || command -v sudo >/dev/null ||
		fail "neither root nor sudo is there to install what is missing; $by_hand"
	echo "Missing: $missing" >&2
	as_root bash -c "$(declare -f apt_install apt_step apt_progress); apt_install $missing" ||
		fail "what is missing could not be installed; $by_hand"
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
	# apt-cache also succeeds if the archive does not have that version
	if [[ $1 == "postgresql-server-dev-$2" && -n $version &&
		-n $(apt-cache show "$1=$version" 2>/dev/null) ]]; then
		echo "=$version"
	fi
}

# Runs as root, with the two functions below.  Only adds: a server that is
# there already must not be upgraded, for that restarts it.
apt_install() {
	set -euo pipefail
	export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C
	apt=(apt-get install --quiet=2 --yes --no-install-recommends
		--no-upgrade --no-remove -o APT::Get::Upgrade-By-Source-Package=false
		-o DPkg::Lock::Timeout=300)
	local plan
	plan=$("${apt[@]}" --simulate "$@")
	if grep -E '^Inst postgresql-[0-9]+ \[' <<<"$plan"; then
		echo "this would upgrade a PostgreSQL server; please install by hand: $*" >&2
		exit 1
	fi
	echo "Installing $(grep -c '^Inst ' <<<"$plan") packages, these and what they need" >&2

	no_cluster=/etc/postgresql-common/createcluster.d/vali_blob.conf
	log=$(mktemp)
	interrupted=
	trap 'rm -f "$no_cluster" "$log"' EXIT
	trap 'interrupted=yes' INT TERM HUP
	trap '' PIPE # an end in the middle, because nobody reads, would be no better

	# A new server's package makes a cluster and starts it, unless told not to.
	if grep -q '^Inst postgresql-common ' <<<"$plan"; then
		apt_step Downloading --download-only postgresql-common
		apt_step Installing postgresql-common
	fi
	if [[ -d ${no_cluster%/*/*} ]]; then
		mkdir -p "${no_cluster%/*}"
		echo "create_main_cluster = false" >"$no_cluster"
	fi
	apt_step Downloading --download-only "$@"
	apt_step Installing "$@"
}

# apt_step TITLE ARGUMENT...
# Runs apt in a process group of its own, so that Ctrl-C does not go there.  A
# download ends with it; dpkg does not, for that would leave packages half
# configured, but nothing is begun after it.
apt_step() {
	local job status=0
	echo "$1" >&2
	set -m
	({ "${apt[@]}" -o APT::Status-Fd=3 "${@:2}" 3>&1 >>"$log" 2>&1 &&
		echo "status::100:done"; } </dev/null | apt_progress) &
	set +m
	job=$!
	wait $job || status=$?
	while kill -0 $job 2>/dev/null; do # interrupted
		if [[ $1 == Downloading ]]; then
			kill -s INT -- -$job || true
		else
			echo "Interrupted; apt finishes this step first" >&2
		fi
		wait $job || status=$?
	done
	[[ -z $interrupted ]] || exit 130
	((status == 0)) || {
		cat "$log" >&2
		exit 1
	}
}

# Shows what apt says of its progress: on a terminal a line that changes,
# elsewhere a line for every tenth of the way.
apt_progress() {
	local kind percent what tenth
	while IFS=: read -r kind _ percent what; do
		percent=${percent%.*}
		if [[ $kind != *status ]]; then
			continue
		elif [[ -t 2 ]]; then
			printf '\r  %3d %%  %.60s\033[K' "$percent" "$what"
		elif [[ ${tenth-} != $((percent / 10)) ]]; then
			tenth=$((percent / 10))
			printf '  %3d %%  %s\n' "$percent" "$what"
		fi
	done
	[[ ! -t 2 ]] || echo
} >&2

as_root() {
	local status=0
	if ((EUID == 0)); then
		"$@" || status=$?
	else
		sudo "$@" || status=$?
	fi
	((status != 130)) || exit 130 # Ctrl-C, which sudo may keep to itself
	return $status
}

# --- the workplace ----------------------------------------------------------

make_workplace() {
	local dir headers

	workplace=$(mktemp -d "$tmpdir/vali_blob.XXXXXX")
	trap leave_workplace EXIT
	mkdir "$workplace"/{source,home,tmp,root}
	tar -C "$checkout" --exclude=./.git --exclude=./tmp_check -cf - . |
		tar -C "$workplace/source" -xf -
	# where it cannot be had, the test that needs it is skipped
	"$checkout/test/lib/release.sh" "$workplace/release-1.0" 2>/dev/null || true

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

# Puts PL/Proxy into the workplace's PostgreSQL, without installing it.  Where it cannot be
# had, what needs it is skipped.
fetch_plproxy() {
	[[ ! -e $("$pg_config" --sharedir)/extension/plproxy.control ]] && is_packaged || return 0
	mkdir "$workplace/plproxy"
	(
		cd "$workplace/plproxy"
		apt-get download "postgresql-$("$pg_config" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/')-plproxy"
		dpkg -x ./*.deb "$workplace/root"
	) >/dev/null 2>&1 || true
}

run_in_workplace() {
	local user=postgres as_user=()

	if ((EUID == 0)); then
		id "$user" >/dev/null 2>&1 || user=nobody
		chown -R "$user": "$workplace"
		as_user=(setpriv --reuid="$user" --regid="$(id -g $user)" --init-groups)
		"${as_user[@]}" test -w "$workplace" ||
			fail "the user $user cannot enter $tmpdir; choose another TMPDIR"
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
