// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace boxo::events {

/// Remembers what lines meant: from everything in a line but its value ("name" and "|ms|#result:ok") to an
/// Action, so that a line like one before costs one hash and one comparison. An open-addressing table that
/// forgets everything when it is full, which bounds it whatever arrives.
template <class Action>
class Memo {
 public:
  static constexpr std::size_t kMaxKey = 512;

  /// `seed` keeps senders from knowing which lines collide.
  explicit Memo(std::uint64_t seed) : seed_(seed), slots_(kFirstSlots) {}

  /// What is remembered, or nullptr. Valid until the next insert().
  Action* find(std::string_view name, std::string_view tail) {
    const std::uint64_t hash = hash_of(name, tail);
    const std::size_t mask = slots_.size() - 1;
    for (std::size_t at = (hash >> 1) & mask;; at = (at + 1) & mask) {
      Slot& slot = slots_[at];
      if (slot.hash == hash && slot.name_size == name.size() && slot.tail_size == tail.size()) {
        const char* const key = keys_.data() + slot.key;
        if (std::memcmp(key, name.data(), name.size()) == 0 &&
            std::memcmp(key + name.size(), tail.data(), tail.size()) == 0)
          return &slot.action;
      }
      if (slot.hash == 0) return nullptr;
    }
  }

  /// Remembers a line, which may replace what was known of the same one.
  void insert(std::string_view name, std::string_view tail, const Action& action) {
    if (name.size() + tail.size() > kMaxKey) return;
    if (Action* known = find(name, tail)) {
      *known = action;
      return;
    }
    if (used_ >= kMaxEntries || keys_.size() + kMaxKey > kMaxKeyBytes)
      clear();
    else if (used_ * 2 >= slots_.size())
      grow();
    const auto key = static_cast<std::uint32_t>(keys_.size());
    keys_.insert(keys_.end(), name.begin(), name.end());
    keys_.insert(keys_.end(), tail.begin(), tail.end());
    place({hash_of(name, tail), key, static_cast<std::uint16_t>(name.size()),
           static_cast<std::uint16_t>(tail.size()), action});
    ++used_;
  }

 private:
  static constexpr std::size_t kFirstSlots = 512;
  static constexpr std::size_t kMaxEntries = 16384;
  static constexpr std::size_t kMaxKeyBytes = 1 << 21;

  struct Slot {
    std::uint64_t hash = 0;  ///< 0: free
    std::uint32_t key = 0;   ///< where in keys_
    std::uint16_t name_size = 0;
    std::uint16_t tail_size = 0;
    Action action{};
  };

  static std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
  }
  static std::uint64_t load(const char* p, std::size_t n) {
    std::uint64_t out = 0;
    std::memcpy(&out, p, n);
    return out;
  }
  /// Folds `text` into `state`, 16 bytes at a time, the last ones overlapping.
  static std::uint64_t fold(std::uint64_t state, std::string_view text) {
    constexpr std::uint64_t kOdd1 = 0x9e3779b97f4a7c15;
    constexpr std::uint64_t kOdd2 = 0xd6e8feb86659fd93;
    const char* p = text.data();
    std::size_t left = text.size();
    state ^= left * kOdd2;
    while (left > 16) {
      state = mix(load(p, 8) ^ kOdd1, load(p + 8, 8) ^ state);
      p += 16;
      left -= 16;
    }
    if (left >= 8) return mix(load(p, 8) ^ kOdd1, load(p + left - 8, 8) ^ state);
    if (left >= 4) return mix(load(p, 4) ^ kOdd1, load(p + left - 4, 4) ^ state);
    if (left > 0) {
      const auto byte = [&](std::size_t i) {
        return static_cast<std::uint64_t>(static_cast<unsigned char>(p[i]));
      };
      return mix((byte(0) << 16 | byte(left / 2) << 8 | byte(left - 1)) ^ kOdd1, kOdd2 ^ state);
    }
    return mix(state, kOdd1);
  }
  std::uint64_t hash_of(std::string_view name, std::string_view tail) const {
    return fold(fold(seed_, name), tail) | 1;
  }

  void place(const Slot& slot) {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = (slot.hash >> 1) & mask;
    while (slots_[at].hash != 0) at = (at + 1) & mask;
    slots_[at] = slot;
  }
  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old)
      if (slot.hash != 0) place(slot);
  }
  void clear() {
    for (Slot& slot : slots_) slot = Slot{};
    keys_.clear();
    used_ = 0;
  }

  std::uint64_t seed_;
  std::size_t used_ = 0;
  std::vector<Slot> slots_;
  std::vector<char> keys_;
};

}  // namespace boxo::events
