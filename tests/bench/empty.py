# SPDX-License-Identifier: MIT OR Apache-2.0
"""Writes the twin of a probe: the same hooks, programs that do nothing. What it costs is the floor. empty.py OUT PROBE.bpf.c"""
import pathlib
import re
import sys

out, probe = map(pathlib.Path, sys.argv[1:])
# Of those that take turns (the map `turn`) one is attached at a time.
hooks = re.findall(r'^SEC\("(\??(?:tp_btf|raw_tp|cgroup|cgroup_skb)/\w+)"\)\n(?!.*_turn1\b)', probe.read_text(), re.M)
with out.open("w") as f:
    f.write('// SPDX-License-Identifier: MIT OR GPL-2.0-only\n#include "hist.h"\n\n'
            'char LICENSE[] SEC("license") = "Dual MIT/GPL";\n\nPROBE = {.help = "nothing"};\n')
    for n, hook in enumerate(hooks):
        # 1: a program of a cgroup lets the packet pass.
        f.write(f'\nSEC("{hook}")\nint empty_{n}(void *ctx)\n{{\n\treturn 1;\n}}\n')
