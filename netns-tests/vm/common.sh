# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# For the scripts beside it: the cache, and packages of any Debian suite in it.

CACHE=${FWD_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fwd-vm}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# What the scripts exit with, apart from the guest's command.
# shellcheck disable=SC2034 # some of them by each script
readonly RC_USAGE=2 RC_TIMEOUT=124 RC_VM=125

note() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
	note "$*"
	exit "$RC_VM"
}

# quote WORD...: the words, each quoted for any POSIX shell.
quote() {
	local word
	for word; do
		printf "'%s' " "${word//\'/\'\\\'\'}"
	done
}

# find_mirror: MIRROR is the Debian mirror, as the environment says, else the one that this machine's apt uses.
find_mirror() {
	# shellcheck disable=SC2016 # apt expands
	MIRROR=${FWD_VM_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | grep -m 1 '/debian/*$' || :)}
	[ -n "$MIRROR" ] || die "apt's sources name no Debian mirror: set FWD_VM_MIRROR to one"
}

# Some /dev/kvm (nested, made by software) cannot run a stock kernel: the processor has to say so, too.
accelerator() {
	if [ -n "${FWD_VM_ACCEL:-}" ]; then
		printf '%s\n' "$FWD_VM_ACCEL"
	elif [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then
		echo kvm
	else
		echo tcg
	fi
}

# lock NAME: one process at a time fills this part of the cache; until unlock.
lock() {
	mkdir -p "$CACHE"
	exec 9>"$CACHE/$1.lock"
	flock 9
}

unlock() {
	exec 9>&-
}

# apt_at SUITE TOOL ARG...: an apt tool with the lists of one suite, kept apart from this machine's.
apt_at() {
	local suite=$1 tool=$2 dir=$CACHE/apt/$1
	shift 2
	find_mirror
	mkdir -p "$dir/lists/partial" "$dir/archives/partial"
	: >"$dir/status"
	printf 'deb [signed-by=%s] %s %s main\n' "$KEYRING" "$MIRROR" "$suite" >"$dir/sources.list"
	"$tool" -q -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$dir/lists" -o Dir::State::status="$dir/status" \
		-o Dir::Cache="$dir" -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}

# unpack SUITE DIR PACKAGE...: downloads packages and unpacks them in DIR.
unpack() {
	local suite=$1 dir=$2 downloads deb
	shift 2
	downloads=$(mktemp -d "$SCRATCH/unpack.XXXXXX")
	(cd "$downloads" && apt_at "$suite" apt-get download "$@") >&2
	mkdir -p "$dir"
	for deb in "$downloads"/*.deb; do
		dpkg -x "$deb" "$dir"
	done
}
