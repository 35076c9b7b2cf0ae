# Sourced by test/run: the section "scripts".  The Makefile, and the scripts as
# whoever calls them sees them.

scripts() {
	local source=$PWD copy=$TMPDIR/copy fake=$TMPDIR/fake calls=$TMPDIR/calls without_packages
	make_fakes
	make --silent distclean
	cp -r . "$copy"

	check "a build elsewhere leaves nothing, here or installed" builds_elsewhere
	check "make distclean leaves nothing" cleans
	check "the archive has META.json's version" \
		says 0 "*/vali_blob-$(meta_version).zip HEAD" make --dry-run dist
	check "which must be the control file's" refuses_version
	check "make installcheck as root says that it cannot be" \
		says 2 '*cannot run as root*"TAP_TESTS="*' env PATH="$fake/root:$PATH" make installcheck

	local script
	for script in demo/run test/run bench/run; do
		check "$script --help helps" \
			says 0 "Usage: $script*--help*PG_CONFIG*TMPDIR*postgresql-server-dev-N*" $script --help
		check "$script -h, by a link" called_by_link $script
		check "$script refuses an option that it does not know" \
			says 2 "$script: *--sections; see $script --help" $script --sections
		check "$script refuses a TMPDIR with a space" \
			says 1 "$script: TMPDIR: make cannot cope *$TMPDIR/a b" env TMPDIR="$TMPDIR/a b" $script
		check "$script refuses a TMPDIR that is none" \
			says 1 "$script: TMPDIR=/nowhere is not a folder*" env TMPDIR=/nowhere $script
		check "$script refuses a PG_CONFIG that is none" \
			says 1 "$script: PG_CONFIG=/nowhere: *" env PG_CONFIG=/nowhere $script
		check "$script refuses a PG_CONFIG that is no program" \
			says 1 "$script: PG_CONFIG=*/META.json: *" env PG_CONFIG="$PWD/META.json" $script
		check "$script refuses a PG_CONFIG that is another program" \
			says 1 "$script: PG_CONFIG=/bin/true is not*" env PG_CONFIG=/bin/true $script
		check "$script refuses a PostgreSQL without headers" \
			says 1 "$script: *no server headers*" env PG_CONFIG="$fake/headless/pg_config" $script
	done

	check "test/run names what one section lacks, and how to install it" \
		says 1 "*neither root nor sudo *apt-get install * postgresql-99 postgresql-server-dev-99 make gcc libc6-dev" \
		"${without_packages[@]}" test/run regress
	check "and what another lacks" \
		says 1 "* libc6-dev postgresql-99-pgtap libipc-run-perl python3-boto3 python3-psycopg2*" "${without_packages[@]}" test/run tap
	check "the headers are to be of the version of a server that is there" \
		says 1 "*install --no-install-recommends postgresql-server-dev-99=99.1 make*" \
		env FAKE_SERVER=postgresql-99 FAKE_PACKAGE=postgresql-server-dev-99=99.1 "${without_packages[@]}" test/run regress
	check "or of another one, if those cannot be had" \
		says 1 "*install --no-install-recommends postgresql-server-dev-99 make*" \
		env FAKE_SERVER=postgresql-99 "${without_packages[@]}" test/run regress
	check "but a package that is of no major version is wanted in any" \
		says 1 "* postgresql-server-dev-all lintian *" \
		env FAKE_SERVER=postgresql-99 FAKE_PACKAGE=postgresql-server-dev-all=99.1 "${without_packages[@]}" test/run packages
	check "test/run refuses a major version that is no number" \
		says 2 "test/run: --major wants a number, or newest; see test/run --help" test/run --major x
	check "and one beside PG_CONFIG" \
		says 2 "test/run: --major and PG_CONFIG exclude each other*" env PG_CONFIG=/nowhere test/run --major 99
	check "a major version that nobody may install cannot be had" \
		says 1 "test/run: PostgreSQL 99 cannot be had: neither root nor sudo*" "${without_sudo[@]}" test/run --major 99
	check "nor one that the suites do not have; it says which they have" \
		says 1 "test/run: PostgreSQL 99 cannot be had: the distribution's suites have 97 98" \
		"${with_suites[@]}" test/run --major 99
	check "nor one whose system cannot be made" \
		says 1 "*Making a system of experimental with PostgreSQL 98~rc1-1,*no such suite*98 cannot be had: a system*" "${with_suites[@]}" test/run --major 98
	check "but if it is only the newest, it is skipped" \
		says 0 "*PostgreSQL 98~rc1-1,*ok 1 # SKIP the newest PostgreSQL cannot be had: *
0 passed, 0 failed, 1 skipped" "${with_suites[@]}" test/run --major newest
	check "and nothing is left of a system" says 0 "" find "$TMPDIR/suites" -path "*/suites/*vali_blob?*"
	check "Ctrl-C ends a download, and the run" is_interrupted download "update begin"
	check "Ctrl-C lets dpkg end, and ends the run" \
		is_interrupted install "update begin end begin end"
	check "test/run refuses an option without its number" \
		says 2 "test/run: --fuzz-seconds wants a whole number; *" test/run --fuzz-seconds fuzz
	check "demo/run keeps all its promises, with parallel parts and a fenced writer, and says how long it took" \
		says 0 "*Another upload comes in +([0-9]) parts, from +([0-9]) processes, in any order
*A server has the lease of an upload, and stops (SIGSTOP)
*finish_reclaim: the queue is empty
*
+([0-9]) promises kept in +([0-9]) seconds." demo/run
	check "test/run | head ends quietly, and leaves nothing" ends_quietly
	check "so does what the demo writes" says 0 "    line 0" \
		bash -c 'python3 -c "$1" | head -n 1' - "$(screen '[note(f"line {i}") for i in range(50000)]')"
	check "a bar is shown where it stops" says 0 "*200 MB of 1000 MB*249 MB of 1000 MB
    done" \
		python3 -c "$(screen 'bar = Bar(1000 * 2**20); [bar.show(i * 2**20) for i in range(250)]; note("done")')"
	check "what is skipped is counted" counts_skipped
}

# says STATUS PATTERN COMMAND...
# Whether a command, called outside of the workplace, ends so and says so.
says() {
	local said ended=0
	said=$(timeout 600 env --unset=VALI_BLOB_WORKPLACE "${@:3}" 2>&1) || ended=$?
	# shellcheck disable=SC2053 # a pattern
	[[ $ended == "$1" && $said == $2 ]] || {
		echo "status $ended: $said"
		return 1
	}
}

# --- the Makefile -----------------------------------------------------------

builds_elsewhere() (
	mkdir "$copy/elsewhere"
	cd "$copy/elsewhere" || return
	elsewhere="make --silent --file=../Makefile VPATH=.. DESTDIR=$TMPDIR/installed"
	$elsewhere --jobs=2 && $elsewhere install || return
	[[ $(find "$TMPDIR/installed" -type f) == */vali_blob.md* ]] &&
		$elsewhere uninstall && is_like "" "$(find "$TMPDIR/installed" -type f)" &&
		rm -r "$copy/elsewhere" && has_only_sources
)

cleans() (
	cd "$copy" || return
	touch src/api.{o,bc} vali_blob.so regression.{diffs,out}
	mkdir dist results log tmp_check tmp_check_iso output_iso {bench,demo}/__pycache__
	make --silent distclean && has_only_sources
)

has_only_sources() {
	is_like "$(cd "$source" && find . | sort)" "$(cd "$copy" && find . | sort)"
}

is_like() {
	diff <(echo "$1") <(echo "$2")
}

meta_version() {
	python3 -c 'import json; print(json.load(open("META.json"))["version"])'
}

refuses_version() (
	cd "$copy" || return
	sed -i 's/"version": "1/"version": "2/' META.json
	says 2 "*META.json has version 2*" make --dry-run dist
)

# --- the scripts ------------------------------------------------------------

# Programs that say what is not so here, and packages that are missing.
make_fakes() {
	mkdir -p "$fake"/{root,headless,packages,sudo} "$TMPDIR/a b"
	fake root/id 'echo 0'
	fake headless/pg_config "case \$1 in
		--bindir) pg_config --bindir ;;
		--version) pg_config --version ;;
		*) echo /nowhere ;;
		esac"
	fake packages/pg_config 'case $1 in
		--version) echo PostgreSQL 99.0 ;;
		*) echo /usr/lib/postgresql/99/bin ;;
		esac'
	# The only server that is installed, if any, and the only package that can be had by its version
	fake packages/dpkg-query '[[ ${!#} != "$FAKE_SERVER" ]] || echo "installed 99.1"'
	fake packages/apt-cache '[[ $2 != "$FAKE_PACKAGE" ]] || echo "Package: $FAKE_PACKAGE"'
	fake sudo/sudo 'exec "$@"'
	# It says that one of its calls may be interrupted, once it is there.
	fake sudo/apt-get 'case " $* " in
		*" update "*) echo -n update >>"$CALLS"; exit ;;
		*" --simulate "*) echo "Inst postgresql-common (1)"; exit ;;
		*" --download-only "*) call=download ;;
		*) call=install; trap "" INT ;;
		esac
		echo -n " begin" >>"$CALLS"
		if [[ $call == "$SLOW" ]]; then echo >>"$CALLS.slow"; sleep 3; fi
		echo -n " end" >>"$CALLS"'
	make_fake_suites
	mkdir "$fake/no_sudo"
	ln -s /usr/bin/* "$fake/no_sudo"
	rm -f "$fake/no_sudo/sudo"
	without_sudo=(env --unset=PG_CONFIG PATH="$fake/no_sudo")
	without_packages=(env PG_CONFIG="$fake/packages/pg_config" PATH="$fake/packages:$fake/no_sudo")
}

# Suites that have 97 and 98, to one who is root, where no system can be made of them
make_fake_suites() {
	mkdir -p "$fake/suites" "$TMPDIR/suites/cache"
	fake suites/id 'echo 0'
	fake suites/unshare '[[ "$*" != *mmdebstrap* ]] || { echo "no such suite"; exit 1; }'
	fake suites/dpkg-query 'echo "installed 1"'
	fake suites/apt-get '[[ $1 != indextargets ]] || echo http://mirror.invalid/debian'
	fake suites/apt-cache 'case "$*" in
		*pkgnames*) printf "%s\n" postgresql-97 postgresql-98 postgresql-98-pgtap ;;
		*) printf "%s\n" "postgresql-98 | 98~rc1-1 | http://mirror.invalid experimental/main amd64 Packages" \
			"postgresql-97 | 97.1-1 | http://mirror.invalid testing/main amd64 Packages" \
			"postgresql-97 | 97.1-1 | http://mirror.invalid unstable/main amd64 Packages" ;;
		esac'
	with_suites=(env --unset=PG_CONFIG TMPDIR="$TMPDIR/suites" XDG_CACHE_HOME="$TMPDIR/suites/cache" PATH="$fake/suites:$PATH")
}

fake() {
	printf '#!/bin/bash\n%s\n' "$2" >"$fake/$1"
	chmod +x "$fake/$1"
}

called_by_link() {
	ln -sf "$PWD/$1" "$TMPDIR/link"
	says 0 "Usage: $1*" "$TMPDIR/link" -h
}

# is_interrupted CALL CALLS
# Whether the run ends with Ctrl-C in this call of apt-get, after these calls
is_interrupted() {
	local job ended=0
	rm -f "$calls" "$calls.slow"
	set -m
	env --unset=VALI_BLOB_WORKPLACE "${without_packages[@]}" CALLS="$calls" SLOW="$1" \
		PATH="$fake/sudo:$fake/packages:$fake/no_sudo" demo/run >"$calls.output" 2>&1 &
	set +m
	job=$!
	until [[ -e $calls.slow ]] || ! kill -0 $job; do
		sleep 0.1
	done
	kill -s INT -- -$job
	wait $job || ended=$?
	is_like "130 $2" "$ended $(cat "$calls")" || {
		cat "$calls.output"
		return 1
	}
}

ends_quietly() {
	mkdir "$TMPDIR/quiet"
	says 0 $'\n=== regress\n---*auto' env TMPDIR="$TMPDIR/quiet" bash -c \
		'test/run regress 2> >(grep -Ev "^(WARNING|DETAIL|HINT):" >&2) | head -n 3' &&
		rmdir "$TMPDIR/quiet"
}

screen() {
	echo "import sys; sys.path.insert(0, 'demo'); from screen import *; $1"
}

counts_skipped() (
	passed=0 failed=0 skipped=0
	run printf '%s\n' 'ok 1 - a' 'ok 2 - b # SKIP why' 'not ok 3 - c' '1..0 # SKIP why' >/dev/null
	is_like "1 1 2" "$passed $failed $skipped"
)
