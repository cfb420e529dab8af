// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "collectors/collector.h"
#include "collectors/events/builtin.h"
#include "collectors/events/clients.h"
#include "collectors/events/custom.h"
#include "collectors/events/line.h"
#include "collectors/events/memo.h"
#include "collectors/events/number.h"
#include "collectors/events/peers.h"
#include "collectors/events/reading.h"

namespace boxo::events {

/// Counts what lines say. One thread; a line like one before allocates nothing; memory is bounded by the
/// options whatever arrives. A line either counts as a whole or is rejected as a whole, with its reason.
class Ledger {
 public:
  explicit Ledger(const EventOptions& options);
  ~Ledger() = default;
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;
  Ledger(Ledger&&) = delete;
  Ledger& operator=(Ledger&&) = delete;

  /// Counts the lines of one datagram or frame that arrived at `now`. `cut`: there was more of it than is
  /// here, so that its last line is not whole.
  void packet(std::string_view packet, std::uint64_t now, bool cut = false);
  /// Counts something that arrived and is no line.
  void reject(Reason reason, std::string_view what);
  /// Gauges that were set before this moment are no longer true, and samples of before no longer belong to a
  /// mean: who sent them has ended. Counters stay.
  void forget(std::uint64_t before);
  /// The end of a tick: copies everything into `out`.
  void read(Reading& out, std::uint64_t now);

 private:
  /// Samples of one built-in name: since the start, and the last ones for mean and percentiles.
  struct Timed {
    Tally tally;
    std::unique_ptr<Window> window;
    bool seen = false;
  };
  /// What a line does, apart from its values.
  struct Action {
    enum class Do : std::uint8_t { kReject, kIgnore, kCount, kLevel, kSample, kTimed, kSequence };
    Do what = Do::kReject;
    Reason reason{};
    PeerField field = PeerField::kNone;
    bool negative_ok = false;
    std::uint32_t generation = 0;  ///< of `peer` or `client` when this was learnt
    double weight = 1;             ///< 1 / rate
    union {
      Cell* cell = nullptr;
      Tally* tally;
      Timed* timed;
      Client* client;
      std::uint64_t* dropped;  ///< kReject: also counted here
    };
    Cell* also = nullptr;  ///< counted, too
    Peer* peer = nullptr;
  };

  void slow_line(std::string_view line);
  enum class Verdict { kGood, kRefuse, kStale };
  /// Whether this value may be counted by the Action, and the Action still holds.
  static Verdict judge(const Action& action, const Number& number);
  /// Counts or refuses a line with one value, or with several: all of them or none. False if the Action is
  /// stale.
  bool apply_one(const Action& action, const Number& number, std::string_view line);
  bool apply_all(const Action& action, std::string_view values, std::string_view line);
  void count(const Action& action, const Number& number);
  void refuse(const Action& action, std::string_view line);
  void refuse(Reason reason, std::string_view line);
  static Action rejection(Reason reason);
  Action resolve(const Line& line);
  Action resolve_builtin(const Line& line);
  Action resolve_client(const Line& line);
  Action resolve_custom(const Line& line);
  void read_custom(Reading& out) const;
  void read_peers(Reading& out) const;

  std::uint64_t now_ = 0;
  std::uint64_t forgotten_ = 0;
  std::uint64_t received_ = 0;
  std::array<std::uint64_t, kReasons> rejected_{};
  std::array<Cell, kCounts> counts_;
  std::array<Cell, kLevels> levels_;
  std::array<Timed, kTimings> timed_;
  Peers peers_;
  Custom custom_;
  Clients clients_;
  Memo<Action> memo_;
  Line line_;                 ///< of slow_line(); a member because it is large
  bool any_refused_ = false;  ///< since the last read()
  Reason last_reason_{};
  std::string last_refused_;
};

}  // namespace boxo::events
