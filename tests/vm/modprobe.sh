#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=sh
# What the kernel calls when it wants a module: modprobe -q -- NAME. /modules/wanted says which files that takes.
for name; do :; done
while read -r alias modules; do
  [ "$alias" = "$name" ] || continue
  for module in $modules; do /bin/busybox insmod "/modules/$module.ko" 2>/dev/null; done
done </modules/wanted
