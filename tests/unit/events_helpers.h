// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <string_view>

#include "collectors/events/ledger.h"
#include "collectors/events/publisher.h"
#include "collectors/snapshot.h"

namespace boxo::events {

inline EventOptions small(std::size_t history = 1000, std::size_t peers = 100, std::size_t series = 1000) {
  EventOptions options;
  options.history = history;
  options.peers = peers;
  options.series = series;
  return options;
}

/// Lines in, a Snapshot out, with a clock of its own.
class Desk {
 public:
  explicit Desk(const EventOptions& options = {}) : ledger(options), publisher(options.history, now) {}

  Desk& send(std::string_view packet) {
    ledger.packet(packet, now);
    return *this;
  }
  Desk& tick(double seconds = 1) {
    now += static_cast<std::uint64_t>(seconds * 1e9);
    ledger.read(reading, now);
    page = Snapshot();
    publisher.publish(reading, page);
    return *this;
  }
  /// The sample of the last tick whose labels are exactly these.
  const Sample* sample(std::string_view name, const Labels& labels = {}) const {
    const Family* const family = page.find(name);
    if (family == nullptr) return nullptr;
    for (const Sample& sample : family->samples) {
      bool same = sample.labels.size() == labels.size();
      for (std::size_t i = 0; same && i < labels.size(); ++i)
        same = sample.labels[i].name == labels[i].name && sample.labels[i].value == labels[i].value;
      if (same) return &sample;
    }
    return nullptr;
  }
  std::optional<double> value(std::string_view name, const Labels& labels = {}) const {
    const Sample* const found = sample(name, labels);
    return found == nullptr ? std::nullopt : std::optional(std::get<double>(found->value));
  }
  const Histogram& histogram(std::string_view name, const Labels& labels = {}) const {
    const Sample* const found = sample(name, labels);
    REQUIRE(found != nullptr);
    return std::get<Histogram>(found->value);
  }
  double rejected(Reason reason) const {
    return *value("boxo_agent_events_rejected_total", {{"reason", std::string(name_of(reason))}});
  }
  double received() const { return *value("boxo_agent_events_received_total"); }
  double rejected() const {
    double sum = 0;
    for (std::size_t i = 0; i < kReasons; ++i) sum += rejected(static_cast<Reason>(i));
    return sum;
  }

  std::uint64_t now = 1'000'000'000'000;
  Ledger ledger;
  Publisher publisher;
  Reading reading;
  Snapshot page;
};

}  // namespace boxo::events
