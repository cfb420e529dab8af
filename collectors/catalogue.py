# SPDX-License-Identifier: MIT OR Apache-2.0
"""Writes catalogue.cc: the list of all collectors, from the names in the rooms' meson.build files."""
import sys

out, names = sys.argv[1], sys.argv[2:]
with open(out, "w") as f:
    f.write('#include "collectors/catalogue.h"\n\nnamespace boxo {\n\n')
    for n in names:
        f.write(f"extern const CollectorInfo {n}_collector;\n")
    f.write("\nstd::vector<const CollectorInfo*> catalogue() {\n  return {\n")
    for n in names:
        f.write(f"      &{n}_collector,\n")
    f.write("  };\n}\n\n}  // namespace boxo\n")
