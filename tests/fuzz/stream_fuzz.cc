// SPDX-License-Identifier: MIT OR Apache-2.0
// A stream that arrives in pieces, whose sizes the first bytes say: it means the same as in one piece.
#include "collectors/events/frames.h"
#include "tests/fuzz/events_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace boxo::fuzz;
  constexpr std::size_t kSizes = 8;
  if (size < kSizes) return 0;
  const std::string stream(reinterpret_cast<const char*>(data) + kSizes, size - kSizes);

  boxo::events::Ledger ledger(roomy());
  std::string pending;
  std::size_t at = 0;
  bool open = true;
  for (std::size_t i = 0; open && at < stream.size(); ++i) {
    const std::size_t step = std::min<std::size_t>(1 + data[i % kSizes], stream.size() - at);
    const std::string joined = pending + stream.substr(at, step);
    at += step;
    std::string_view bytes(joined);
    open = boxo::events::cut_frames(bytes, [&](std::string_view frame) { count(ledger, frame); }).possible;
    pending.assign(bytes);
  }

  Reference reference(kHistory);
  std::size_t p = 0;
  bool possible = true;
  while (stream.size() - p >= 4) {
    std::size_t length = 0;
    for (std::size_t i = 0; i < 4; ++i)
      length += static_cast<std::size_t>(static_cast<unsigned char>(stream[p + i])) << (8 * i);
    possible = length <= 65536;
    if (!possible || stream.size() - p - 4 < length) break;
    reference.packet(stream.substr(p + 4, length), false);
    p += 4 + length;
  }
  if (open != possible || (open && pending != stream.substr(p))) std::abort();
  compare(totals_of(ledger, kHistory), reference.totals());
  return 0;
}
