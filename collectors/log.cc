// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/log.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <string>

#include "collectors/utf8.h"

namespace boxo {

namespace {

constexpr std::array kLevels{LogLevel::kError, LogLevel::kWarn, LogLevel::kInfo, LogLevel::kDebug};

std::atomic<LogLevel> highest{LogLevel::kInfo};

void write_line(LogLevel level, std::string_view message) {
  if (!log_enabled(level)) return;
  std::string line = "boxo-agent: ";
  if (level != LogLevel::kInfo) line.append(name_of(level)).append(": ");
  while (!message.empty()) {
    const char first = message.front();
    const std::size_t length = first == '\x7f' || (first >= 0 && first < ' ') ? 0 : utf8_length(message);
    line += length == 0 ? "?" : message.substr(0, length);
    message.remove_prefix(std::max<std::size_t>(length, 1));
  }
  line += '\n';
  // One write, so that lines of several threads are not mixed. There is nowhere to report that it failed.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

std::string_view name_of(LogLevel level) {
  switch (level) {
    case LogLevel::kError: return "error";
    case LogLevel::kWarn: return "warn";
    case LogLevel::kInfo: return "info";
    case LogLevel::kDebug: return "debug";
  }
  return "";
}

std::optional<LogLevel> log_level(std::string_view name) {
  for (const LogLevel level : kLevels)
    if (name_of(level) == name) return level;
  return std::nullopt;
}

void set_log_level(LogLevel level) { highest.store(level, std::memory_order_relaxed); }
bool log_enabled(LogLevel level) { return level <= highest.load(std::memory_order_relaxed); }

void log_error(std::string_view message) { write_line(LogLevel::kError, message); }
void log_warn(std::string_view message) { write_line(LogLevel::kWarn, message); }
void log_info(std::string_view message) { write_line(LogLevel::kInfo, message); }
void log_debug(std::string_view message) { write_line(LogLevel::kDebug, message); }

std::optional<std::string> Changes::update(const std::string& state, Clock::time_point now) {
  if (state != state_) ++changes_;
  state_ = state;
  if (state == told_ || (at_ && now - *at_ < kApart)) return std::nullopt;
  const std::size_t untold = changes_ - 1;
  told_ = state;
  changes_ = 0;
  at_ = now;
  return untold == 0 ? std::string() : " (" + std::to_string(untold) + " changes before were not logged)";
}

}  // namespace boxo
