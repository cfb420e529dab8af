// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "collectors/collector.h"
#include "collectors/log.h"
#include "collectors/result.h"
#include "collectors/target.h"

namespace boxo {

/// The command line and the configuration file, checked.
struct Options {
  TargetSpec target;
  std::vector<std::string> command;  ///< what follows `--`; empty: none
  std::string listen = "127.0.0.1:9559";
  Labels labels;
  bool once = false;
  bool check = false;
  bool list = false;
  CollectorOptions collection;
  std::vector<std::string> collectors_on;
  std::vector<std::string> collectors_off;
  LogLevel log_level = LogLevel::kInfo;

  /// Whether the collector of this name is wanted.
  bool wants(std::string_view collector) const;
};

/// --help or --version: what to print before leaving with status 0.
struct Printout {
  std::string text;
};

/// What --collector and --probe accept.
struct KnownNames {
  std::vector<std::string> collectors;
  std::vector<std::string> probes;
  /// The probes that can be attached for a share of the time: others would take what begins in one window and ends in
  /// another for one long wait.
  std::vector<std::string> with_share;
  std::string base;  ///< the probe that the others cannot do without
};

/// Reads the command line. An Error is one line that names the option, the value and the mend.
Result<std::variant<Options, Printout>> parse_options(int argc, const char* const* argv, const KnownNames& known);

/// "250ms", "5s", "1.5m", "1h" as a duration.
Result<std::chrono::nanoseconds> parse_duration(const std::string& text);

}  // namespace boxo
