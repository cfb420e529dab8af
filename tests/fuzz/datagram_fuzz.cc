// SPDX-License-Identifier: MIT OR Apache-2.0
// Datagrams, separated by zero bytes; one that begins with '!' was cut short. Their sums are those of the
// reference.
#include "tests/fuzz/events_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace boxo::fuzz;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  boxo::events::Ledger ledger(roomy());
  Reference reference(kHistory);
  while (!rest.empty()) {
    std::string_view packet = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(packet.size() + 1, rest.size()));
    const bool cut = packet.starts_with('!');
    if (cut) packet.remove_prefix(1);
    count(ledger, packet, cut);
    reference.packet(std::string(packet), cut);
    count_for_ever(packet);
  }
  compare(totals_of(ledger, kHistory), reference.totals());
  return 0;
}
