#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Starts a program as a container runtime would: with a root file system, mounts and cgroup of its own, inside the
# process, network, ipc and host-name namespaces of a sandbox, and with exactly the credentials given.
#
#   container.sh SANDBOX_PID ROOT ROOT_MODE CGROUP VOLUMES SETPRIV_OPTIONS PROGRAM_FILE COMMAND...
#
# ROOT           an empty directory; the tmpfs that is mounted there is the container's root, read-only
# CGROUP         the path of an existing group, the same in every hierarchy (below /sys/fs/cgroup)
# VOLUMES        "SOURCE:DESTINATION:rw|ro ..."
# ROOT_MODE      "ro" or "rw": whether the root file system may be written to
# PROGRAM_FILE   "SOURCE:DESTINATION": the one file the image adds to the machine's /usr
set -eu

if [ "${1:-}" != --inside ]; then
  sandbox=$1
  for procs in "/sys/fs/cgroup/$4/cgroup.procs" /sys/fs/cgroup/*/"$4/cgroup.procs"; do
    if [ -e "$procs" ]; then echo $$ >"$procs"; fi
  done
  exec nsenter --target "$sandbox" --pid --net --ipc --uts \
    unshare --mount --propagation private --cgroup "$0" --inside "$@"
fi

shift 2
root=$1 root_mode=$2 cgroup=$3 volumes=$4 credentials=$5 program=$6
shift 6

mount -t tmpfs -o mode=0755 root "$root"
cd "$root"
mkdir -p proc sys dev etc usr tmp old "$(dirname ".${program#*:}")"
for link in bin sbin lib lib64; do ln -s "usr/$link" "$link"; done
mount --rbind -o ro /usr usr
mount -o remount,ro,bind usr
for file in passwd group ld.so.cache nsswitch.conf; do
  if [ -e "/etc/$file" ]; then cp "/etc/$file" etc/; fi
done
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t tmpfs -o mode=0755,size=64k dev dev
for device in null zero full random urandom; do
  : >"dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
: >".${program#*:}"
mount --bind "${program%%:*}" ".${program#*:}"

# A container sees its own groups: version 2 through its cgroup namespace, version 1 as bind mounts of them.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mount -t cgroup2 -o ro,nosuid,nodev,noexec cgroup sys/fs/cgroup
else
  mount -t tmpfs -o mode=0755 cgroup sys/fs/cgroup
  for hierarchy in /sys/fs/cgroup/*/; do
    name=$(basename "$hierarchy")
    mkdir "sys/fs/cgroup/$name"
    if [ -e "$hierarchy/cgroup.controllers" ]; then
      mount -t cgroup2 -o ro,nosuid,nodev,noexec cgroup "sys/fs/cgroup/$name"
    else
      mount --bind "$hierarchy/$cgroup" "sys/fs/cgroup/$name"
      mount -o remount,ro,bind "sys/fs/cgroup/$name"
    fi
  done
  mount -o remount,ro,bind sys/fs/cgroup
fi

for volume in $volumes; do
  mode=${volume##*:}
  volume=${volume%:*}
  mkdir -p ".${volume#*:}"
  mount --bind "${volume%%:*}" ".${volume#*:}"
  mount -o "remount,bind,$mode" ".${volume#*:}"
done

mount -o "remount,bind,$root_mode" "$root"
cd "$root"
pivot_root . old
umount -l /old
# shellcheck disable=SC2086
exec setpriv $credentials "$@"
