#!/usr/bin/env bash
# Sourced by test/run: a PostgreSQL with assertions.
#
# Distributions build PostgreSQL without them.  build_assertions builds the same
# version from the distribution's source package, which takes some minutes, and
# keeps it for the next run.  A PostgreSQL that cannot be had is no error: the
# sections that need it are skipped, and say why.

# build_assertions
# Runs outside of the workplace, after the packages are installed.
build_assertions() {
	local package version how cache=/var/cache job
	((EUID == 0)) || cache=~/.cache
	cache=${XDG_CACHE_HOME:-$cache}/vali_blob

	assertions=
	assertions_missing="PG_CONFIG is not the distribution's"
	is_packaged || return 0

	package=postgresql-$(installed_major)
	# shellcheck disable=SC2016 # dpkg's variable
	version=$(dpkg-query -W -f '${source:Version}' "$package" 2>/dev/null || true)
	how=$(declare -f make_assertions | cksum | cut -d ' ' -f 1)
	assertions_missing="the source of PostgreSQL $version could not be had, or not be built"
	assertions=$cache/postgresql-${version//[^[:alnum:].+-]/_}-$how
	[[ ! -e $assertions ]] || return 0

	echo "Building PostgreSQL $version with assertions, in $assertions; takes some minutes" >&2
	# In the background, as "set -e" does not hold in a condition, and with a process
	# group of its own, as a signal for this script must end make, too
	set -m
	make_assertions "$package=$version" "$cache" </dev/null >&2 &
	set +m
	job=$!
	trap 'kill -- -$job; wait $job || true; exit 130' INT TERM HUP
	wait $job || assertions=
	trap 'exit 130' INT TERM HUP
}

# make_assertions PACKAGE=VERSION CACHE
# It appears in the cache as a whole, or not at all.  Its name there has a checksum of
# this function: what is built otherwise is another build.
make_assertions() {
	local work list apt target
	set -euo pipefail
	mkdir -p "$2"
	work=$(mktemp -d "$2/build.XXXXXX")
	# shellcheck disable=SC2064 # the local variable is gone by then
	trap "rm -rf '$work'" EXIT
	cd "$work"

	# The sources of the packages' origins, in lists of our own; the rest of what
	# apt's lists say, keys for example, stays.
	mkdir -p lists/partial cache/archives/partial sources.list.d
	for list in /etc/apt/sources.list{,.d/*.list,.d/*.sources}; do
		[[ ! -e $list ]] ||
			sed -E 's/^deb[[:blank:]]/deb-src /; s/^Types:.*/Types: deb-src/' "$list" >"${list#/etc/apt/}"
	done
	apt=(apt-get --quiet=2 -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache"
		-o "Dir::Etc::SourceList=$work/sources.list" -o "Dir::Etc::SourceParts=$work/sources.list.d"
		-o APT::Sandbox::User=root)
	"${apt[@]}" update || echo "apt-get update failed; going on with the lists that are there"
	"${apt[@]}" source --download-only "$1"
	tar -xf postgresql-*.orig.tar.*[!c] # not a signature, .asc
	cd postgresql-*/

	./configure --quiet --prefix="$assertions" --enable-cassert --enable-debug --enable-tap-tests \
		--without-readline --without-zlib --without-icu CFLAGS=-O1 >/dev/null
	for target in all install; do
		make --silent --jobs=2 $target DESTDIR="$work/installed" >/dev/null
		make --silent --jobs=2 --directory=contrib $target DESTDIR="$work/installed" >/dev/null
	done
	mv -T "$work/installed$assertions" "$assertions" || [[ -e $assertions ]] # by another run
}

# copy_assertions
# Into the workplace, where the extension is installed into it; with pgTAP, which
# is the same for all builds.
copy_assertions() {
	if [[ -z $assertions ]]; then
		echo "$assertions_missing" >"$workplace/no_assertions"
		return
	fi
	cp -a "$assertions" "$workplace/assertions"
	cp "$("$pg_config" --sharedir)"/extension/pgtap* \
		"$("$workplace/assertions/bin/pg_config" --sharedir)/extension/" 2>/dev/null || true
}

# with_assertions COMMAND...
# Runs a command of test/run on that PostgreSQL, and counts it as skipped if there
# is none.
with_assertions() {
	local bin=$VALI_BLOB_WORKPLACE/assertions/bin ended=0
	if [[ ! -x $bin/postgres ]]; then
		echo "ok 1 # SKIP no PostgreSQL with assertions: $(cat "$VALI_BLOB_WORKPLACE/no_assertions")"
		((++skipped))
		return
	fi
	local before=$PATH before_config=$PG_CONFIG
	export PATH=$bin:$PATH PG_CONFIG=$bin/pg_config
	build_extension gcc && "$@" || ended=1
	export PATH=$before PG_CONFIG=$before_config
	return $ended
}
