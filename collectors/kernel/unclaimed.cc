// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/unclaimed.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bpf/endings.h"

namespace boxo::kernel {

Result<> read_unclaimed(const Probe& probe, Used& out) {
  std::vector<used> cpus(static_cast<std::size_t>(::libbpf_num_possible_cpus()));
  const std::uint32_t index = 0;
  if (::bpf_map_lookup_elem(probe.map_fd("unclaimed"), &index, cpus.data()) != 0) return errno_error("unclaimed");
  out = {};
  for (const used& cpu : cpus) {
    out.user_ns += cpu.user_ns;
    out.system_ns += cpu.system_ns;
    out.minor_faults += cpu.minor_faults;
    out.major_faults += cpu.major_faults;
    out.chars_read += cpu.chars_read;
    out.chars_written += cpu.chars_written;
    out.reads += cpu.reads;
    out.writes += cpu.writes;
    out.bytes_read += cpu.bytes_read;
    out.bytes_written += cpu.bytes_written;
    out.bytes_cancelled += cpu.bytes_cancelled;
  }
  return {};
}

}  // namespace boxo::kernel
