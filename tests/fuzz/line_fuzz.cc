// SPDX-License-Identifier: MIT OR Apache-2.0
// One line: counted twice, the second time as a known one, it does twice what the reference says.
#include "tests/fuzz/events_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace boxo::fuzz;
  const std::string line(reinterpret_cast<const char*>(data), size);
  if (line.find('\n') != std::string::npos) return 0;
  boxo::events::Ledger ledger(roomy());
  Reference reference(kHistory);
  for (int i = 0; i < 2; ++i) {
    count(ledger, line);
    reference.packet(line, false);
    compare(totals_of(ledger, kHistory), reference.totals());
  }
  return 0;
}
