#!/usr/bin/env bash
# Sourced by test/run: the tests with another major version of PostgreSQL.
#
# It comes from another suite of the distribution, in a minimal system of that suite
# (test/lib/system.sh), which is kept for the next run.  test/run runs there as on any
# bare machine.

. "$checkout/test/lib/system.sh"

# run_with_major MAJOR ARGUMENT...
# Runs test/run with that version, or with the newest that the suites have, and exits.
# Returns where that version is installed, with PG_CONFIG set.
run_with_major() {
	local wanted=$1 major=$1 suite version system offered
	shift
	[[ -z ${PG_CONFIG-} ]] || usage_error "--major and PG_CONFIG exclude each other"
	! is_installed "$wanted" || return 0
	if (($(id -u) != 0)); then
		command -v sudo >/dev/null ||
			cannot_be_had "neither root nor sudo is there to make a system with it"
		exec sudo env ${TMPDIR:+TMPDIR="$TMPDIR"} ${XDG_CACHE_HOME:+XDG_CACHE_HOME="$XDG_CACHE_HOME"} \
			"$script" --major "$wanted" "$@"
	fi
	trap 'exit 130' INT TERM HUP
	check_tmpdir
	unshare --mount --pid --ipc --fork true 2>/dev/null ||
		cannot_be_had "namespaces for a system with it cannot be made here"
	(install_packages mmdebstrap) || cannot_be_had "mmdebstrap is missing"

	work=$(mktemp -d "$tmpdir/vali_blob.XXXXXX")
	chmod 755 "$work" # for the system's user postgres
	trap leave_system EXIT
	offered=$(offered_majors "$work/apt") ||
		cannot_be_had "the distribution's suites cannot be asked"
	[[ $wanted != newest ]] || major=$(tail -n 1 <<<"$offered" | cut -d ' ' -f 1)
	! is_installed "$major" || return 0
	read -r _ version suite < <(grep "^$major " <<<"$offered") ||
		cannot_be_had "the distribution's suites have $(cut -d ' ' -f 1 <<<"$offered" | paste -sd ' ')"
	keep_system || cannot_be_had "a system with it could not be made"
	run_in_system "$@"
}

is_installed() {
	local bin=/usr/lib/postgresql/$1/bin
	[[ -x $bin/postgres && -x $bin/pg_config ]] || return
	[[ -z ${work-} ]] || leave_system
	trap - EXIT
	export PG_CONFIG=$bin/pg_config
}

# What was asked for by number must be there; of the newest one cannot ask more than there is.
cannot_be_had() {
	[[ $wanted == newest ]] || fail "PostgreSQL $wanted cannot be had: $1"
	echo "ok 1 # SKIP the newest PostgreSQL cannot be had: $1"
	echo
	echo "0 passed, 0 failed, 1 skipped"
	exit 0
}

# offered_majors FOLDER
# What the distribution's suites have, in lines "MAJOR VERSION SUITE", the newest last.
# A version that several have is the first one's.  The lists are in a folder of our own.
offered_majors() {
	local mirror suite apt
	mirror=$(system_mirror) || return
	mkdir -p "$1"/{lists/partial,cache/archives/partial,parts}
	for suite in oldstable stable testing unstable experimental; do
		echo "deb $mirror $suite main"
	done >"$1/sources.list"
	: >"$1/status"
	apt=(-o "Dir::State::Lists=$1/lists" -o "Dir::State::Status=$1/status"
		-o "Dir::Cache=$1/cache" -o Dir::Cache::PkgCache=cache.bin # which images switch off
		-o "Dir::Etc::SourceList=$1/sources.list" -o "Dir::Etc::SourceParts=$1/parts"
		-o Dir::Etc::TrustedParts=/usr/share/keyrings/ -o APT::Sandbox::User=root
		-o Acquire::Languages=none -o Acquire::Check-Valid-Until=false)
	apt-get --quiet=2 "${apt[@]}" update >&2 || true # of some
	apt-cache "${apt[@]}" pkgnames postgresql- | grep -E '^postgresql-[0-9]+$' |
		xargs -r apt-cache "${apt[@]}" madison |
		sed -nE 's/^ *postgresql-([0-9]+) \| *([^ ]+) \| [^ ]+ ([^ ]+)\/main .*/\1 \2 \3/p' |
		sort --stable --numeric-sort --key=1,1 | awk '!seen[$1]++' | grep .
}

# Makes the system, unless one of this version is kept; older ones of that major version go.
keep_system() {
	local cache=${XDG_CACHE_HOME:-/var/cache}/vali_blob how old
	how=$(declare -f make_system make_major add_pgtap | cksum | cut -d ' ' -f 1)
	system=$cache/system-$major-${version//[^[:alnum:].+-]/_}-$how
	mkdir -p "$cache"
	if [[ ! -e $system ]]; then
		echo "Making a system of $suite with PostgreSQL $version, in $system; takes some minutes" >&2
		for old in "$cache/system-$major-"*; do
			[[ ! -e $old ]] || flock --nonblock "$old" rm -rf --one-file-system "$old" || true # in use
		done
		set -m # so that Ctrl-C comes here only
		make_major &
		set +m
		job=$!
		wait $job || return
	fi
	exec {lock}<"$system"
	flock --shared $lock
}

# It appears in the cache as a whole, or not at all.
make_major() {
	local packages=("${build_packages[@]//@/$major}") new
	new=$(mktemp -d "$system.XXXXXX") || return
	# shellcheck disable=SC2064 # the local variable is gone by then
	trap "rm -rf --one-file-system '$new'" EXIT
	trap 'exit 130' INT TERM HUP
	make_system "$new/system" "$suite" "${packages[@]}" || return
	in_system "$new/system" bash -c "$(declare -f add_pgtap); add_pgtap $major" >"$new/log" 2>&1 || {
		cat "$new/log" >&2
		return 1
	}
	mv -T "$new/system" "$system" || [[ -e $system ]] # by another run
}

# add_pgtap MAJOR
# pgTAP comes later to a distribution than a new PostgreSQL.  It is the same for all of
# them, so what is packaged for another one is packaged again.
add_pgtap() {
	local other
	set -euo pipefail
	apt-get --quiet=2 update
	! apt-cache show "postgresql-$1-pgtap" >/dev/null 2>&1 || return 0
	other=$(apt-cache pkgnames postgresql- | sed -nE 's/^postgresql-([0-9]+)-pgtap$/\1/p' | sort -n | tail -n 1)
	cd "$(mktemp --directory --tmpdir=/tmp)"
	apt-get --quiet=2 -o APT::Sandbox::User=root download "postgresql-$other-pgtap"
	dpkg-deb --raw-extract ./*.deb package
	mv "package/usr/share/postgresql/$other" "package/usr/share/postgresql/$1"
	sed -i -E "s/^(Package: postgresql-)$other/\1$1/; s/^Depends: .*/Depends: postgresql-$1/" package/DEBIAN/control
	rm -f package/DEBIAN/md5sums
	dpkg-deb --build package pgtap.deb
	dpkg --install pgtap.deb
}

# Runs the tests there, on a copy of the checkout.
run_in_system() {
	mkdir "$work/source" "$work/tmp"
	tar -C "$checkout" --exclude=./.git --exclude=./tmp_check -cf - . | tar -C "$work/source" -xf -
	"$checkout/test/lib/release.sh" "$work/release-1.0" 2>/dev/null || rm -rf "$work/release-1.0"
	set -m # so that Ctrl-C comes here only
	TMPDIR=$tmpdir in_system "$system" env TMPDIR="$work/tmp" VALI_BLOB_MAJOR="$major" \
		RELEASE_1_0="$work/release-1.0" ${NO_COLOR:+NO_COLOR="$NO_COLOR"} \
		"$work/source/test/run" "$@" </dev/null &
	set +m
	job=$!
	wait $job
	exit
}

leave_system() {
	trap '' INT TERM HUP
	if [[ -n ${job-} ]]; then
		kill -s TERM -- "-$job" # what makes a system removes what it has
		wait $job
	fi 2>/dev/null || true
	rm -rf --one-file-system "$work"
}
