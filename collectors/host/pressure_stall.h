// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "collectors/host/continued.h"
#include "collectors/host/target_group.h"

namespace boxo::host {

/// How long one resource (cpu, memory, io) held tasks up, as the kernel's pressure stall information tells
/// it: of the target's cgroup, or of the host where the target has no group with such files.
class PressureStall {
 public:
  using Clock = std::chrono::steady_clock;

  explicit PressureStall(std::string resource) : resource_(std::move(resource)) {}

  void update(const Target& target, TargetGroup& group);

  /// Seconds in which some task, or all of them, waited for the resource.
  double some_seconds() const { return static_cast<double>(totals_.total()[0]) * 1e-6; }
  /// Nothing where the kernel does not tell how long all of them waited.
  std::optional<double> full_seconds() const {
    return has_full_ ? std::optional(static_cast<double>(totals_.total()[1]) * 1e-6) : std::nullopt;
  }
  /// The share of the time between the last two updates in which some task waited, 0 to 1.
  std::optional<double> share() const { return share_; }
  /// "cgroup" or "host"; nullptr if the last update could not read it, see trouble().
  const char* scope() const { return scope_; }
  const std::string& trouble() const { return trouble_; }

 private:
  void take(std::uint64_t place, const char* scope, std::string_view text);

  const std::string resource_;
  Continued<2> totals_;
  bool has_full_ = false;
  std::optional<double> share_;
  std::optional<Clock::time_point> last_;
  std::uint64_t place_ = 0;
  const char* scope_ = nullptr;
  std::string trouble_;
};

/// The total in microseconds of the line that begins with `kind` ("some" or "full"); nothing if there is no
/// such line.
std::optional<std::uint64_t> stalled_us(std::string_view text, std::string_view kind);

}  // namespace boxo::host
