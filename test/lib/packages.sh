#!/usr/bin/env bash
# Sourced by test/run: the section "packages".  The archive for PGXN, and Debian's packages.
#
# Packages are built in the workplace, by its user, and installed in a minimal system of
# the same release, see system.sh.  That takes root: what was started outside of the
# workplace waits for the packages, and runs test/lib/packages_life.sh on them.

. "$checkout/test/lib/system.sh"

# Outside of the workplace: makes that system, and keeps it for the next run.
make_packages_system() {
	local cache=${XDG_CACHE_HOME:-/var/cache}/vali_blob major version how
	major=$(installed_major)
	packages_system=
	packages_missing="PG_CONFIG is not the distribution's"
	is_packaged || return 0
	packages_missing="only root can make a system of its own"
	((EUID == 0)) || return 0

	# shellcheck disable=SC2016 # dpkg's variable
	version=$(dpkg-query -W -f '${Version}' "postgresql-$major" 2>/dev/null || true)
	how=$(declare -f make_packages_system make_system | cksum | cut -d ' ' -f 1)
	packages_system=$cache/packages-${version//[^[:alnum:].+-]/_}-$how
	[[ ! -e $packages_system ]] || return 0
	echo "Making a minimal system with PostgreSQL $version, in $packages_system; takes some minutes" >&2
	mkdir -p "$cache"
	# shellcheck disable=SC1091
	make_system "$packages_system" "$(. /etc/os-release && echo "$VERSION_CODENAME")" \
		"postgresql-$major" postgresql-server-dev-all make autopkgtest || {
		packages_system=
		packages_missing="a system with PostgreSQL $version could not be made"
	}
}

# Outside of the workplace: gives it a clone, for the archive, and waits for packages.
furnish_packages() {
	mkdir "$workplace/packages"
	git clone --quiet "$checkout" "$workplace/packages/clone" 2>/dev/null || true
	is_packaged || touch "$workplace/packages/unpackaged"
	if [[ -z $packages_system ]]; then
		echo "$packages_missing" >"$workplace/packages/missing"
		return
	fi
	mkfifo "$workplace/packages/request" "$workplace/packages/answer"
	(
		cd "$workplace" # so that it ends with the workplace
		read -ra arguments <packages/request
		cp -a "$packages_system" system
		# the workplace as a whole is there, too
		TMPDIR=$tmpdir in_system "$workplace/system" \
			bash "$workplace/source/test/lib/packages_life.sh" "${arguments[@]}" >packages/answer 2>&1 || true
		rm -rf --one-file-system system
	) &
}

# --- inside ---------------------------------------------------------------------------

packages() {
	local built=$VALI_BLOB_WORKPLACE/packages major old=none
	major=$(installed_major)
	make --silent distclean
	packages_archive
	check "a build for PostgreSQL 14 is refused, with the command that helps" \
		says 2 "*needs PostgreSQL 15 or later*make PG_CONFIG=/usr/lib/postgresql/*" make --dry-run MAJORVERSION=14
	if [[ -e $built/unpackaged ]]; then
		skip_packages "$(cat "$built/missing")"
		return
	fi
	check "so is a package" says 2 "*apt-get install postgresql-server-dev-all*" \
		env PG_SUPPORTED_VERSIONS=14 debian/rules clean
	check "each version of PostgreSQL has a package, and scripts of its own" makes_packages_of 15 16

	build_package 1.0.0 "$VALI_BLOB_WORKPLACE/release-1.0" nocheck >"$built/1.0.0.log" 2>&1 &
	check "the packages are built, of a source package, and their tests pass" build_package 1.1.0 "$PWD" ""
	check "there is one of this version of PostgreSQL, and its symbols" \
		says 0 "postgresql-$major-vali-blob-dbgsym_*.deb postgresql-$major-vali-blob_*.deb" \
		bash -c 'cd "$0" && echo *.deb' "$built/1.1.0"
	if [[ -e $VALI_BLOB_WORKPLACE/release-1.0/Makefile ]]; then
		check "the package of 1.0 is built" wait $!
		old=$(echo "$built/1.0.0/postgresql-$major-vali-blob"_*.deb)
	else
		skip_packages "git does not have the commit of release 1.0: no package to upgrade from"
	fi
	check "lintian finds nothing" says 0 "" \
		lintian --info --display-info --pedantic "$built"/1.1.0/*.changes
	if [[ -e $built/missing ]]; then
		skip_packages "$(cat "$built/missing")"
		return
	fi
	# shellcheck disable=SC2016 # arguments of that shell
	run bash -c 'echo "${@:2}" >"$1/request" && cat "$1/answer"' - "$built" "$major" "$old" \
		"$built/1.1.0/postgresql-$major-vali-blob"_*.deb "$built/1.1.0/vali-blob-1.1.0"
}

packages_archive() {
	local archive=dist/vali_blob-$(meta_version).zip
	if [[ ! -e $VALI_BLOB_WORKPLACE/packages/clone ]]; then
		skip_packages "git does not have this checkout: no archive"
		return
	fi
	check "the archive for PGXN is made" make --silent --directory="$VALI_BLOB_WORKPLACE/packages/clone" dist
	cp -r "$VALI_BLOB_WORKPLACE/packages/clone/dist" .
	check "the archive for PGXN conforms to its specification" \
		says 0 "" python3 test/lib/pgxn_archive.py "$archive"
	check "pgxn installs it" pgxn_installs "./$archive"
	make --silent distclean
}

# Installed anew, all of it
pgxn_installs() {
	local control
	control=$(pg_config --sharedir)/extension/vali_blob.control
	rm -f "$control"
	mkdir -p "$(pg_config --libdir)" # which pgxn wants to be there
	pgxn install --pg_config "$PG_CONFIG" --make make --nosudo "$1" >"$output" 2>&1 && [[ -e $control ]] || {
		tail -n 20 "$output"
		return 1
	}
}

# makes_packages_of MAJOR MAJOR
# Whether debian/ has a package for each, with files of its own.  Nothing is built, so their
# servers need not be there.
makes_packages_of() (
	cp -r . "$TMPDIR/packages_of" && cd "$TMPDIR/packages_of" || return
	unset PG_CONFIG
	export PG_SUPPORTED_VERSIONS="$1 $2" PATH=/usr/bin:/bin
	made=(postinst prerm README.Debian lintian-overrides)
	pg_buildext updatecontrol && debian/rules "${made[@]/#/make-}" >/dev/null &&
		is_like "$(printf 'Package: postgresql-%s-vali-blob\n' "$@")" "$(grep ^Package: debian/control)" &&
		is_like "$(printf 'vali_blob for PostgreSQL %s.\n' "$@")" "$(grep -o 'vali_blob for .*' debian/control)" &&
		is_like "" "$(grep -rE 'PGVERSION|#CLUSTERS#' debian/control debian/postgresql-*)" || return
	for name in "${made[@]}"; do
		has_only "$1" "$2" "debian/postgresql-$1-vali-blob.$name" &&
			has_only "$2" "$1" "debian/postgresql-$2-vali-blob.$name" || return
	done
	sh -n debian/postgresql-*.postinst && sh -n debian/postgresql-*.prerm
)

# has_only MAJOR OTHER FILE
has_only() {
	grep -qw "$1" "$3" && ! grep -w "$2" "$3" || {
		echo "$3 is not of PostgreSQL $1 only"
		return 1
	}
}

# build_package VERSION FOLDER OPTIONS
# With the same debian/, whatever the version
build_package() (
	name=vali-blob-$1
	mkdir "$VALI_BLOB_WORKPLACE/packages/$1" && cd "$VALI_BLOB_WORKPLACE/packages/$1" || exit
	mkdir "$name" &&
		tar -C "$2" --exclude=./debian --exclude=./.git -cf - . | tar -C "$name" -xf - &&
		tar -czf "vali-blob_$1.orig.tar.gz" "$name" &&
		cp -r "$VALI_BLOB_WORKPLACE/source/debian" "$name/" &&
		sed -i "1s/(.*)/($1-1)/" "$name/debian/changelog" &&
		cd "$name" || exit
	env --unset=PG_CONFIG PATH=/usr/bin:/bin DEB_BUILD_OPTIONS="parallel=2 $3" \
		PG_SUPPORTED_VERSIONS="$(installed_major)" \
		dpkg-buildpackage --unsigned-source --unsigned-changes >../log 2>&1 || {
		tail -n 40 ../log
		exit 1
	}
)

skip_packages() {
	echo "ok 1 # SKIP $1"
	((++skipped))
}
