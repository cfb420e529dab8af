// SPDX-License-Identifier: MIT OR Apache-2.0
#include "agent/report.h"

#include <algorithm>
#include <map>
#include <vector>

#include "collectors/catalogue.h"
#include "collectors/contract.h"
#include "collectors/events/line.h"

namespace boxo {

namespace {

using Row = std::vector<std::string>;

/// Columns padded to their widest cell, two spaces between; the last column as it is.
std::string aligned(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths;
  for (const Row& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (widths.size() <= i) widths.push_back(0);
      widths[i] = std::max(widths[i], row[i].size());
    }
  std::string text;
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      if (i + 1 < row.size()) text.append(widths[i] - row[i].size() + 2, ' ');
    }
    text += '\n';
  }
  return text;
}

std::string or_dash(std::string_view text) { return text.empty() ? "-" : events::label_value(text); }

}  // namespace

std::string list_of_metrics() {
  struct Entry {
    const Metric* metric;
    std::vector<Source> sources;
  };
  std::map<std::string_view, Entry> by_name;
  const auto take = [&](std::span<const Metric> metrics) {
    for (const Metric& metric : metrics) {
      Entry& entry = by_name.try_emplace(metric.name, Entry{&metric, {}}).first->second;
      if (std::find(entry.sources.begin(), entry.sources.end(), metric.source) == entry.sources.end())
        entry.sources.push_back(metric.source);
    }
  };
  for (const CollectorInfo* info : catalogue()) take(info->metrics());
  take(PerformanceMonitor::metrics());

  std::vector<Row> rows{{"NAME", "TYPE", "UNIT", "SOURCE", "HELP"}};
  for (auto& [name, entry] : by_name) {
    std::sort(entry.sources.rbegin(), entry.sources.rend());
    std::string sources;
    for (const Source source : entry.sources) sources += (sources.empty() ? "" : ",") + std::string(name_of(source));
    const std::string labels = entry.metric->labels.empty() ? "" : "{" + std::string(entry.metric->labels) + "}";
    rows.push_back({std::string(name) + labels, std::string(name_of(entry.metric->type)), or_dash(entry.metric->unit),
                    sources, std::string(entry.metric->help)});
  }
  return aligned(rows);
}

std::string table_of_checks(PerformanceMonitor& monitor, const Target& target) {
  std::vector<Row> rows{{"WHAT", "WORKS", "DETAIL"}};
  // The name of a process may hold line breaks, and what a terminal obeys.
  rows.push_back({"target", target.up() ? "yes" : "no", events::label_value(target.describe())});
  const auto& statuses = monitor.statuses();
  for (std::size_t i = 0; i < statuses.size(); ++i) {
    rows.push_back({statuses[i].name, statuses[i].success ? "yes" : "no", or_dash(statuses[i].error)});
    for (const Capability& capability : monitor.collector(i).check())
      rows.push_back({"  " + capability.name, capability.works ? "yes" : "no", or_dash(capability.detail)});
  }
  std::vector<Row> missing;
  if (const auto latest = monitor.latest())
    for (const Absence& absence : latest->absences) missing.push_back({"  " + absence.metric, absence.reason});
  std::sort(missing.begin(), missing.end());
  const std::string text = aligned(rows);
  return missing.empty() ? text : text + "\nNot exported:\n" + aligned(missing);
}

}  // namespace boxo
