// SPDX-License-Identifier: MIT OR Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>

#include "collectors/events/publisher.h"
#include "tests/fuzz/reference.h"

namespace boxo::fuzz {

namespace {

// Computed from what is compared already, or from windows, which are compared on their own.
bool derived(std::string_view name) {
  if (name.starts_with("boxo_agent_")) return true;
  for (const std::string_view end :
       {"_average_seconds", "_p95_seconds", "_p99_seconds", "_rate", "_per_second"})
    if (name.ends_with(end))
      return name.starts_with("boxo_bitswap_") || name.starts_with("boxo_blockstore_") ||
             name.starts_with("boxo_network_");
  return name == "boxo_network_peer_latency_seconds";
}

const char* const kTimingNames[] = {"bitswap.response_time", "blockstore.read_time", "blockstore.write_time",
                                    "network.latency",       "resource.gc_pause",    "network.bandwidth"};

void fail(const std::string& what, double ledger, double reference) {
  std::fprintf(stderr, "%s: the ledger says %.17g, the reference %.17g\n", what.c_str(), ledger, reference);
  std::abort();
}

bool same(double a, double b) {
  return std::fabs(a - b) <= 1e-9 * std::max({std::fabs(a), std::fabs(b), 1e-3});
}

void compare_values(const char* what, const std::map<std::string, double>& ledger,
                    const std::map<std::string, double>& reference) {
  for (const auto& [name, value] : reference) {
    const auto it = ledger.find(name);
    if (it == ledger.end()) fail(what + (" " + name) + " is missing", NAN, value);
    if (!same(it->second, value)) fail(what + (" " + name), it->second, value);
  }
  for (const auto& [name, value] : ledger)
    if (!reference.count(name)) fail(what + (" " + name) + " is too much", value, NAN);
}

}  // namespace

Totals totals_of(events::Ledger& ledger, std::size_t history) {
  events::Publisher publisher(history, 1);
  events::Reading reading;
  Snapshot page;
  ledger.read(reading, 2'000'000'000);
  Totals out;
  out.received = static_cast<double>(reading.received);
  for (std::size_t i = 0; i < events::kReasons; ++i)
    if (reading.rejected[i] > 0)
      out.rejected[std::string(name_of(static_cast<events::Reason>(i)))] =
          static_cast<double>(reading.rejected[i]);
  for (const events::Loss& loss : reading.losses) out.values["lost"] += loss.cell.value;
  bool weighted = false;
  for (std::size_t i = 0; i < events::kTimings; ++i) {
    if (!reading.timings[i].seen) continue;
    weighted = weighted || !reading.timings[i].weights.empty();
    out.windows[kTimingNames[i]] = reading.timings[i].values;
  }
  if (weighted) out.windows.clear();
  publisher.publish(reading, page);
  for (const Family& family : page.families()) {
    if (derived(family.metric->name)) continue;
    const bool peers = family.metric->name.starts_with("boxo_network_peer_");
    for (const Sample& sample : family.samples) {
      std::string key(family.metric->name);
      if (!peers)
        for (const Label& label : sample.labels) key += "\n" + label.name + "=" + label.value;
      if (const double* const value = std::get_if<double>(&sample.value)) {
        out.values[key] += *value;
      } else {
        const Histogram& histogram = std::get<Histogram>(sample.value);
        out.samples[key] = {static_cast<double>(std::accumulate(histogram.counts.begin(),
                                                                histogram.counts.end(), std::uint64_t{0})),
                            histogram.sum};
      }
    }
  }
  return out;
}

void compare(const Totals& ledger, const Totals& reference) {
  if (ledger.received != reference.received) fail("received", ledger.received, reference.received);
  compare_values("rejected", ledger.rejected, reference.rejected);
  // A window that holds a weighted sample no more still says so: only compared when neither does.
  if (!ledger.windows.empty() && !reference.windows.empty()) {
    for (auto [name, values] : reference.windows) {
      std::vector<double> found =
          ledger.windows.count(name) ? ledger.windows.at(name) : std::vector<double>();
      std::sort(values.begin(), values.end());
      std::sort(found.begin(), found.end());
      if (found != values)
        fail("window of " + name, static_cast<double>(found.size()), static_cast<double>(values.size()));
    }
  }
  const auto part = [](const Totals& totals, bool count) {
    std::map<std::string, double> out;
    for (const auto& [name, pair] : totals.samples) out[name] = count ? pair.first : pair.second;
    return out;
  };
  compare_values("sum of", part(ledger, false), part(reference, false));
  // Counts are rounded when they are exported, one bucket at a time.
  for (const auto& [name, count] : part(reference, true))
    if (std::fabs(part(ledger, true)[name] - count) > 13 + 1e-9 * count)
      fail("count of " + name, part(ledger, true)[name], count);
  auto ours = ledger.values;
  auto theirs = reference.values;
  if (const auto it = ours.find("boxo_bitswap_responses_total");
      it != ours.end() && std::fabs(it->second - theirs[it->first]) <= 13 + 1e-9 * it->second)
    theirs[it->first] = it->second;
  compare_values("value of", ours, theirs);
}

}  // namespace boxo::fuzz
