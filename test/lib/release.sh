#!/bin/sh
# release.sh FOLDER: put the sources of release 1.0.0 there, for tests of a library
# that is older than the SQL objects.  Fails where git does not have them, unless they are
# in the folder RELEASE_1_0 already.

commit=623441465a67068364fc4c8aaaaf27a86e804c22

if [ -n "${RELEASE_1_0-}" ]; then
	exec cp -r "$RELEASE_1_0" "$1"
fi
mkdir -p "$1" &&
	git -C "$(dirname "$0")/../.." archive --format=tar -o "$1/release.tar" "$commit" &&
	tar -C "$1" -xf "$1/release.tar"
