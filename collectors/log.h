// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace boxo {

enum class LogLevel { kError, kWarn, kInfo, kDebug };

std::string_view name_of(LogLevel level);  ///< "error", "warn", "info", "debug"
/// The level with this name, as in --log-level.
std::optional<LogLevel> log_level(std::string_view name);

/// Messages above this level are not written. Info unless set.
void set_log_level(LogLevel level);
/// For messages that are costly to make.
bool log_enabled(LogLevel level);

/// Writes "boxo-agent: LEVEL: MESSAGE" as one line on standard error (info without its level). Line breaks, other
/// control characters and what is no UTF-8 become '?': a message may hold text from outside. Callable from any thread.
void log_error(std::string_view message);
void log_warn(std::string_view message);
void log_info(std::string_view message);
void log_debug(std::string_view message);

/// Keeps what flaps from filling the log: of one thing a change is told at once, but no two within a minute. What was told
/// last becomes true again within that minute.
class Changes {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::minutes kApart{1};

  /// `state` is what everybody takes for granted.
  explicit Changes(std::string state) : told_(state), state_(std::move(state)) {}

  /// Nothing if there is nothing to tell now; else what to add to the message: how many changes went untold before, or "".
  std::optional<std::string> update(const std::string& state, Clock::time_point now = Clock::now());

 private:
  std::string told_;
  std::string state_;
  std::size_t changes_ = 0;  // since it was told
  std::optional<Clock::time_point> at_;
};

}  // namespace boxo
