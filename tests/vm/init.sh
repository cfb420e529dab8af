#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=sh
# Process 1 of the test machine. The host's root file system comes in read-only over 9p, with a tmpfs laid over it, so that
# nothing has to be packed and nothing that happens here reaches the host, but for /out. Runs /out/job there, leaves its
# exit status in /out/status, and switches off.
b=/bin/busybox
$b mkdir -p /proc /sys /dev /host /over /root /out
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
exec </dev/null
fail() { echo "init: $*"; $b poweroff -f; }

while read -r module; do
  $b insmod "/modules/$module.ko" || echo "init: module $module refused"
done </modules/first

$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /host || fail "no 9p"
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none out /out || fail "no /out"
$b mount -t tmpfs -o size=75% over /over
$b mkdir /over/upper /over/work
$b mount -t overlay -o lowerdir=/hot:/host,upperdir=/over/upper,workdir=/over/work over /root || fail "no overlay"
for d in proc sys dev run out; do $b mkdir -p /root/$d; done
for d in proc sys dev out; do $b mount --move /$d /root/$d; done
cd /root || fail "no root"
$b mount -t tmpfs run run
$b mkdir -p dev/pts dev/shm
for n in 0:stdin 1:stdout 2:stderr; do $b ln -s "/proc/self/fd/${n%:*}" "dev/${n#*:}"; done
$b ln -s /proc/self/fd dev/fd
$b mount -t devpts devpts dev/pts
$b mount -t tmpfs shm dev/shm
$b mount -t tracefs tracefs sys/kernel/tracing
$b mount -t securityfs securityfs sys/kernel/security
$b mount -t bpf bpf sys/fs/bpf
$b ip link set lo up
# A disk, where the tests want one: an overlay's and a tmpfs' files are on none.
$b mkdir -p scratch
$b mount -t ext4 dev/vda scratch || fail "no scratch disk"
$b mkdir -m 1777 scratch/var-tmp
$b mount --bind scratch/var-tmp var/tmp

# Moved, and not only changed into: entering a mount namespace begins at its root. What the kernel calls (modprobe) and
# this script still see the first file system.
$b mount --move . /
$b chroot . /bin/sh /out/job >dev/ttyS1 2>&1
echo $? >out/status
$b sync
$b poweroff -f
