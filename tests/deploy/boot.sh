#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Boots this machine's systemd in namespaces of its own, over this machine's file systems: what it writes goes to a tmpfs,
# and it has groups of its own in every hierarchy.
#
#   boot.sh DIRECTORY GROUP UNIT
#
# DIRECTORY   upper/ in it holds files that are added to the root file system
# GROUP       an existing group, the same in every hierarchy (below /sys/fs/cgroup)
set -eu

if [ "${1:-}" != --inside ]; then
  for procs in "/sys/fs/cgroup/$2/cgroup.procs" /sys/fs/cgroup/*/"$2/cgroup.procs"; do
    if [ -e "$procs" ]; then echo $$ >"$procs"; fi
  done
  exec unshare --mount --propagation private --pid --cgroup --net --uts --ipc --fork --kill-child "$0" --inside "$@"
fi

directory=$2 group=$3 unit=$4
root=$directory/root
mkdir -p "$root"
mount -t tmpfs tmpfs "$root"
mkdir "$root/upper" "$root/work" "$root/all"
cp -a "$directory/upper/." "$root/upper/"
mount -t overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" overlay "$root/all"
cd "$root/all"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
for place in run tmp; do mount -t tmpfs -o mode=0755 tmpfs "$place"; done
mount -t tmpfs -o mode=0755 tmpfs dev
for device in null zero full random urandom tty; do
  : >"dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mount -t cgroup2 cgroup sys/fs/cgroup
else
  mount -t tmpfs -o mode=0755 cgroup sys/fs/cgroup
  for hierarchy in /sys/fs/cgroup/*/; do
    name=$(basename "$hierarchy")
    mkdir "sys/fs/cgroup/$name"
    mount --bind "$hierarchy/$group" "sys/fs/cgroup/$name"
  done
fi
ip link set lo up
mkdir -p run/old
pivot_root . run/old
umount -l /run/old
exec env -i container=test PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --log-target=console --log-level=info --unit="$unit"
