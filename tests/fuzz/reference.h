// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "collectors/events/ledger.h"

namespace boxo::fuzz {

/// What was counted, as plain as can be: names of samples with their labels, and what they are.
struct Totals {
  double received = 0;
  std::map<std::string, double> rejected;                    ///< by reason
  std::map<std::string, double> values;                      ///< counters and gauges
  std::map<std::string, std::pair<double, double>> samples;  ///< histograms: count and sum
  std::map<std::string, std::vector<double>>
      windows;  ///< built-in samples: the last ones, while none is weighted
};

/// Counts lines by the rules of boxo-agent-events(7), written once more: slow, with strings and maps, and
/// sharing no code with the program. Series are not limited, peers are summed.
class Reference {
 public:
  explicit Reference(std::size_t history) : history_(history) {}
  void packet(const std::string& bytes, bool cut);
  void reject(const std::string& reason);
  Totals totals() const;

 private:
  struct Parsed {
    std::string name;
    std::string type;
    std::vector<double> values;
    std::vector<bool> is_signed;
    double rate = 1;
    std::map<std::string, std::string> tags;
  };
  /// "" or the reason.
  static std::string parse(std::string line, Parsed& out);
  void line(const std::string& text);
  std::string count(const Parsed& line);
  std::string count_builtin(const Parsed& line);
  std::string count_client(const Parsed& line);
  std::string count_custom(const Parsed& line);
  static std::string check_values(const Parsed& line, bool negative_ok);
  void add_samples(const std::string& name, const Parsed& line, double unit);

  std::size_t history_;
  Totals totals_;
  std::map<std::string, std::string> type_of_;      ///< custom: by the name in the line
  std::map<std::string, std::string> exported_by_;  ///< custom: which name in a line has the exported name
  std::map<std::string, double> last_sequence_;
  bool weighted_ = false;
};

/// The same of a Ledger, by what it publishes.
Totals totals_of(events::Ledger& ledger, std::size_t history);

/// Ends the program, saying what differs, unless both are the same.
void compare(const Totals& ledger, const Totals& reference);

}  // namespace boxo::fuzz
