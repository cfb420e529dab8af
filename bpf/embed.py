# SPDX-License-Identifier: MIT OR Apache-2.0
"""Writes a C++ file with compiled probes as arrays, so that the program carries them: embed.py OUT FUNCTION OBJECT..."""
import pathlib
import sys

out, function, objects = sys.argv[1], sys.argv[2], [pathlib.Path(p) for p in sys.argv[3:]]
with open(out, "w") as f:
    f.write('#include "collectors/kernel/probes.h"\n\nnamespace boxo::kernel {\n\nnamespace {\n\n')
    for o in objects:
        data = o.read_bytes()
        f.write(f"alignas(8) constexpr unsigned char k_{o.name.split('.')[0]}[] = {{\n")
        for i in range(0, len(data), 32):
            f.write(",".join(map(str, data[i:i + 32])) + ",\n")
        f.write("};\n")
    f.write("\nconstexpr EmbeddedProbe kProbes[] = {\n")
    for o in objects:
        n = o.name.split(".")[0]
        f.write(f'    {{"{n}", k_{n}, sizeof(k_{n})}},\n')
    f.write("};\n\n}  // namespace\n\n"
            f"std::span<const EmbeddedProbe> {function}();\n"
            f"std::span<const EmbeddedProbe> {function}() {{ return kProbes; }}\n\n"
            "}  // namespace boxo::kernel\n")
