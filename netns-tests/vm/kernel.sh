# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The kernels of Debian's suites, as a guest wants them, in the cache. Source common.sh first.

FLAVOUR=cloud-amd64

# kernel_packages SUITE: what its newest kernel is made of.
kernel_packages() {
	local image version
	image=$(apt_at "$1" apt-cache show "linux-image-$FLAVOUR" |
		sed -n 's/^Depends:.*\(linux-image-[0-9][^ ,]*\).*/\1/p' | head -n 1)
	[ -n "$image" ] || return 1
	version=${image#linux-image-}
	# Newer ones have packages of their own for the kernel and its modules.
	if apt_at "$1" apt-cache show "linux-modules-$version" >/dev/null 2>&1; then
		printf '%s\n' "linux-binary-$version" "linux-modules-$version" "linux-base-$version"
	else
		printf '%s\n' "$image"
	fi
}

# unpack_bzimage FILE OUT: the ELF kernel of a bzImage (Documentation/arch/x86/boot.rst), which QEMU
# starts through its PVH entry: unpacking would take a guest long where it is emulated.
unpack_bzimage() {
	local setup offset length magic filter
	setup=$(od -An -tu1 -j $((0x1f1)) -N 1 "$1")
	offset=$(od -An -tu4 -j $((0x248)) -N 4 "$1")
	length=$(od -An -tu4 -j $((0x24c)) -N 4 "$1")
	offset=$((offset + (setup + 1) * 512))
	magic=$(od -An -tx1 -j "$offset" -N 4 "$1" | tr -d ' ')
	case $magic in
	28b52ffd) filter=zstd ;;
	02214c18) filter=lz4 ;;
	fd377a58) filter=xz ;;
	1f8b08*) filter=gzip ;;
	*) return 1 ;;
	esac
	# The last four bytes are the unpacked size, no part of the stream.
	tail -c +$((offset + 1)) "$1" | head -c $((length - 4)) | "$filter" -dcq >"$2"
	[ "$(head -c 4 "$2" | tr -d '\0')" = $'\177ELF' ]
}

# Of the modules on standard input, those that a guest may need.
guest_modules() {
	grep -E -e '^kernel/(net|crypto|lib|arch/x86/crypto|drivers/virtio)/' \
		-e '^kernel/fs/(fuse|overlayfs|ext4|jbd2|mbcache|netfs|fscache)' \
		-e '^kernel/drivers/net/([^/]*|bonding/.*|vxlan/.*|wireguard/.*)$' \
		-e '^kernel/drivers/(block/virtio_blk|char/hw_random/virtio-rng)'
}

# cpio_of DIR: an initramfs of it, on standard output.
cpio_of() {
	(cd "$1" && find . | LC_ALL=C sort | "$BUSYBOX" cpio -o -H newc 2>/dev/null)
}

# Sets BUSYBOX: a static one, for the guest.
prepare_tools() {
	BUSYBOX=$CACHE/tools/bin/busybox
	[ ! -x "$BUSYBOX" ] || return 0
	note "fetching busybox-static"
	apt_at bookworm apt-get update >&2
	unpack bookworm "$CACHE/tools" busybox-static
	[ -x "$BUSYBOX" ] || ln -s ../usr/bin/busybox "$BUSYBOX"
}

# initramfs_root MODULE_DIR RELEASE ROOT: busybox and modules in ROOT.
initramfs_root() {
	local modules=$3/lib/modules/$2
	mkdir -p "$modules" "$3/bin" "$3/proc" "$3/sys" "$3/dev"
	(cd "$1" && find kernel -name '*.ko*' | guest_modules |
		tar -cf - -T - modules.order modules.builtin modules.builtin.modinfo) | tar -xf - -C "$modules"
	find "$modules" -name '*.ko.xz' -print0 | xargs -0 -r -n 64 xz -d
	/sbin/depmod -b "$3" "$2"
	cp "$BUSYBOX" "$3/bin/busybox"
}

# prepare_kernel SUITE: sets KERNEL to a folder with vmlinux, initramfs and release.
prepare_kernel() {
	local recipe work image modules release packages
	KERNEL=$CACHE/kernel/$1
	# A change of these functions makes stale what is cached.
	recipe=$(declare -f prepare_kernel initramfs_root unpack_bzimage guest_modules | sha256sum)
	[ "$recipe" != "$(cat "$KERNEL/recipe" 2>/dev/null)" ] || return 0
	note "fetching the kernel of $1"
	apt_at "$1" apt-get update >&2
	packages=$(kernel_packages "$1") || die "\"$1\" has no linux-image-$FLAVOUR"
	work=$(mktemp -d "$SCRATCH/kernel.XXXXXX")
	# shellcheck disable=SC2086 # names of packages
	unpack "$1" "$work/deb" $packages
	image=$(find "$work/deb" -type f -name 'vmlinuz*' -print -quit)
	modules=$(find "$work/deb" -type f -name modules.order -printf '%h' -quit)
	release=${modules##*/}
	if [ -z "$image" ] || [ -z "$release" ]; then
		die "$1: kernel packages of an unknown layout: $packages"
	fi

	mkdir "$work/out"
	unpack_bzimage "$image" "$work/out/vmlinux" || cp "$image" "$work/out/vmlinux"
	initramfs_root "$modules" "$release" "$work/root"
	cpio_of "$work/root" >"$work/out/initramfs"
	printf '%s\n' "$release" >"$work/out/release"
	printf '%s\n' "$recipe" >"$work/out/recipe"
	rm -rf "$KERNEL"
	mkdir -p "${KERNEL%/*}"
	mv "$work/out" "$KERNEL"
}
