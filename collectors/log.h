// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <optional>
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

/// Writes "boxo-agent: LEVEL: MESSAGE" as one line on standard error (info without its level). Line breaks and other
/// control characters in the message become '?': a message may hold text from outside. Callable from any thread.
void log_error(std::string_view message);
void log_warn(std::string_view message);
void log_info(std::string_view message);
void log_debug(std::string_view message);

}  // namespace boxo
