// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/log.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <string>

namespace boxo {

namespace {

constexpr std::array kLevels{LogLevel::kError, LogLevel::kWarn, LogLevel::kInfo, LogLevel::kDebug};

std::atomic<LogLevel> highest{LogLevel::kInfo};

void write_line(LogLevel level, std::string_view message) {
  if (!log_enabled(level)) return;
  std::string line = "boxo-agent: ";
  if (level != LogLevel::kInfo) line.append(name_of(level)).append(": ");
  for (const char c : message) line += static_cast<unsigned char>(c) < ' ' || c == '\x7f' ? '?' : c;
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

}  // namespace boxo
