# Sourced by scripts that need another release of Debian: a minimal system of it in a
# folder.  It is made and used by root, with the packages mmdebstrap and util-linux.
#
# What is mounted for it is mounted in a namespace that ends with the command that
# needs it, so nothing is ever mounted in such a folder when it is looked at from
# outside, and it can be removed by "rm -rf --one-file-system" at any time.

# make_system FOLDER SUITE PACKAGE...
# Makes a system of that suite, with these packages, from the mirror that apt is
# configured with.  No server is started in it, and no cluster made.  The folder, which
# must not exist, appears as a whole or not at all.
make_system() (
	folder=$1 suite=$2 job=
	shift 2
	mirror=$(system_mirror) && work=$(mktemp -d "$folder.XXXXXX") || exit
	trap '[[ -z $job ]] || { kill -s KILL $job; wait $job; } 2>/dev/null; rm -rf --one-file-system "$work"' EXIT
	trap 'exit 130' INT TERM HUP
	sources=("deb $mirror $suite main")
	[[ $suite != experimental ]] || sources=("deb $mirror unstable main" "${sources[@]}")
	[[ $suite != "$(system_codename)" ]] || mapfile -t sources < <(system_sources)

	printf '%s\n' '#!/bin/sh' 'exit 101' >"$work/policy-rc.d"
	echo 'create_main_cluster = false' >"$work/no_cluster.conf"
	# the parts of experimental that are asked for, with the rest of their source packages
	printf 'Package: src:%s\nPin: release a=experimental\nPin-Priority: 990\n\n' "$@" >"$work/preferences"
	chmod +x "$work/policy-rc.d"

	# with processes and mounts that end with it; unstable's lists may be days old
	unshare --mount --pid --fork --kill-child --mount-proc \
		mmdebstrap --quiet --mode=root --variant=apt --dpkgopt=force-unsafe-io --include="$(IFS=,; echo "$*")" \
		--aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' \
		--aptopt='APT::Install-Recommends "false"' \
		--setup-hook="mkdir -p '$work/system/etc/apt/preferences.d' '$work/system/usr/sbin'" \
		--setup-hook="cp '$work/preferences' '$work/system/etc/apt/preferences.d/suite'" \
		--essential-hook="cp '$work/policy-rc.d' '$work/system/usr/sbin/'" \
		--essential-hook="mkdir -p '$work/system/etc/postgresql-common/createcluster.d'" \
		--essential-hook="cp '$work/no_cluster.conf' '$work/system/etc/postgresql-common/createcluster.d/'" \
		"${suite/experimental/unstable}" "$work/system" "${sources[@]}" </dev/null >"$work/log" 2>&1 &
	job=$!
	wait $job || {
		job=
		tail -n 30 "$work/log" >&2
		exit 1
	}
	job=
	mv -T "$work/system" "$folder"
)

# The address of the distribution's packages, which no file of ours names
system_mirror() {
	local codename mirror
	codename=$(system_codename)
	# shellcheck disable=SC2016 # apt's variable
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
		"Codename: $codename" | head -n 1)
	[[ -n $mirror ]] || {
		echo "apt's lists do not have $codename; as root: apt-get update" >&2
		return 1
	}
	echo "$mirror"
}

# The release of the distribution that is installed
system_codename() (
	# shellcheck disable=SC1091
	. /etc/os-release && echo "$VERSION_CODENAME"
)

# Its sources, with those of its updates
system_sources() {
	local codename
	codename=$(system_codename)
	# shellcheck disable=SC2016 # apt's variables
	apt-get indextargets --format '$(RELEASE) deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		sed -nE "s/^$codename(-(security|updates))? (deb .* main)\$/\3/p" | sort -u
}

# in_system FOLDER COMMAND...
# Runs a command in it as root.  The folder for temporary files ($TMPDIR, or /var/tmp) is
# the one outside, by the same name, and the current directory stays if it is there.
# What the command has started ends with it, and so do its mounts, shared memory included.
in_system() {
	# not "exec", as the first process of a namespace must take what others leave
	# shellcheck disable=SC2016 # variables of that shell
	unshare --mount --pid --ipc --fork --kill-child bash -c '
		mount -t proc proc "$0/proc" &&
			mkdir -p "$0$1" &&
			mount --rbind /dev "$0/dev" &&
			mount -t tmpfs -o mode=1777 tmpfs "$0/dev/shm" &&
			mount --bind "$1" "$0$1" || exit
		cp -L --remove-destination /etc/resolv.conf /etc/hosts "$0/etc/" 2>/dev/null
		inside=/
		[[ $PWD/ != "$1"/* ]] || inside=$PWD
		chroot "$0" env -i --chdir="$inside" HOME=/root TMPDIR="$1" LANG=C.UTF-8 TERM="${TERM-dumb}" \
			PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${@:2}"
		exit' "$1" "$(realpath -m "${TMPDIR:-/var/tmp}")" "${@:2}"
}
