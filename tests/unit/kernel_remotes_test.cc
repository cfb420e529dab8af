// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <utility>

#include "collectors/kernel/remotes.h"

using namespace boxo::kernel;

namespace {

RemoteAddress address(unsigned n) {
  RemoteAddress out{};
  out[10] = out[11] = 0xff;
  out[12] = 10;
  out[13] = static_cast<std::uint8_t>(n >> 16);
  out[14] = static_cast<std::uint8_t>(n >> 8);
  out[15] = static_cast<std::uint8_t>(n);
  return out;
}

RemoteValues values(std::uint64_t bytes) {
  RemoteValues out{};
  out[0] = bytes;
  out[REMOTE_VALUES / 2] = 1;
  return out;
}

/// What increase() makes of the pages, summed over all series: of one that was not there the last time all is new.
class Increase {
 public:
  std::uint64_t look(const Remotes& remotes) {
    std::map<RemoteAddress, std::uint64_t> now{{RemoteAddress{}, remotes.other()[0]}};
    for (const auto& series : remotes.own()) now[series.address] = series.values[0];
    for (const auto& [address, value] : now) total_ += value - std::min(value, last_[address]);
    last_ = std::move(now);
    return total_;
  }

 private:
  std::map<RemoteAddress, std::uint64_t> last_;
  std::uint64_t total_ = 0;
};

}  // namespace

TEST_CASE("addresses as people write them") {
  CHECK(text_of(address(0x010203)) == "10.1.2.3");
  CHECK(text_of({0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}) == "2001:db8::1");
  CHECK(text_of({}) == "::");
}

TEST_CASE("the busiest have series; a remote that gains one starts at zero") {
  Remotes remotes(2);
  Increase increase;
  for (unsigned i = 1; i <= 3; ++i) remotes.see(address(i), values(i == 1 ? 100 : 105), 1);
  remotes.settle(1);
  CHECK(remotes.own().size() == 2);
  CHECK(increase.look(remotes) == 310);
  CHECK(remotes.other()[0] == 105);
  // The third is clearly busier than one of the two. What that had shown stays its own, what it had since is the others'.
  remotes.see(address(1), values(110), 2);
  remotes.see(address(2), values(106), 2);
  remotes.see(address(3), values(5000), 2);
  remotes.settle(2);
  CHECK(remotes.other()[0] == 5001);
  CHECK(increase.look(remotes) == 5216);
  remotes.see(address(1), values(115), 3);
  remotes.see(address(2), values(109), 3);
  remotes.see(address(3), values(5050), 3);
  remotes.settle(3);
  CHECK(increase.look(remotes) == 5274);
  bool found = false;
  for (const auto& series : remotes.own())
    if (series.address == address(3)) {
      found = true;
      CHECK(series.values[0] == 50);
      CHECK(series.all[0] == 5050);
    }
  CHECK(found);
}

TEST_CASE("who is silent leaves, and what was counted of it stays") {
  Remotes remotes(1);
  Increase increase;
  remotes.see(address(1), values(10), 0);
  remotes.see(address(2), values(20), 0);
  CHECK(remotes.settle(0).empty());
  CHECK(increase.look(remotes) == 30);
  remotes.see(address(1), values(10), 500);
  remotes.see(address(2), values(21), 500);
  CHECK(remotes.settle(500).empty());
  CHECK(increase.look(remotes) == 31);
  remotes.see(address(1), values(10), 601);
  remotes.see(address(2), values(21), 601);
  const auto leaving = remotes.settle(601);
  REQUIRE(leaving.size() == 1);
  CHECK(leaving[0] == address(1));
  // Something arrived after the last look.
  remotes.gone(address(1), values(12), 601);
  CHECK(increase.look(remotes) == 33);
  // The same address again, with a new entry.
  remotes.see(address(1), values(3), 602);
  CHECK(increase.look(remotes) == 36);
}

TEST_CASE("no series of its own for anybody") {
  Remotes remotes(0);
  remotes.see(address(1), values(7), 0);
  remotes.settle(0);
  CHECK(remotes.own().empty());
  CHECK(remotes.other()[0] == 7);
}

TEST_CASE("whatever comes and goes, other never goes back and all series together grow by what was counted") {
  constexpr std::size_t kRoom = 64;
  Remotes remotes(8, kRoom);
  Increase increase;
  std::map<unsigned, std::uint64_t> entries;
  std::uint64_t truth = 0;
  std::uint64_t other = 0;
  RemoteValues unlisted{};
  std::mt19937 random(7);
  for (int tick = 0; tick < 3000; ++tick) {
    for (int i = 0; i < 20; ++i) {
      const unsigned who = random() % (tick % 500 < 250 ? 20 : 2000);
      const std::uint64_t bytes = random() % 1500;
      truth += bytes;
      if (entries.contains(who) || entries.size() < kRoom)
        entries[who] += bytes;
      else
        unlisted[0] += bytes;
    }
    for (const auto& [who, bytes] : entries) remotes.see(address(who), values(bytes), tick);
    remotes.unlisted(unlisted);
    for (const RemoteAddress& leaving : remotes.settle(tick)) {
      const unsigned who = static_cast<unsigned>(leaving[13]) << 16 | static_cast<unsigned>(leaving[14]) << 8 | leaving[15];
      REQUIRE(entries.contains(who));
      remotes.gone(leaving, values(entries[who]), tick);
      entries.erase(who);
    }
    REQUIRE(entries.size() < kRoom);
    REQUIRE(increase.look(remotes) == truth);
    REQUIRE(remotes.other()[0] >= other);
    REQUIRE(remotes.own().size() <= 8);
    other = remotes.other()[0];
  }
}
