// SPDX-License-Identifier: MIT OR Apache-2.0
// What a line means, found out once for all lines like it.
#include <cmath>

#include "collectors/events/ledger.h"

namespace boxo::events {

namespace {

constexpr std::string_view kOwnClient = "agent.client.";
constexpr std::string_view kDatadogClient = "datadog.dogstatsd.client.";

/// How many samples one with this rate stands for. A client that merged n of them writes 1/n, rounded; n is
/// meant.
double weight_of(double rate) {
  const double weight = 1 / rate;
  const double whole = std::round(weight);
  return std::fabs(weight - whole) <= whole * 1e-12 ? whole : weight;
}

}  // namespace

Ledger::Action Ledger::resolve(const Line& line) {
  if (line.name.starts_with(kOwnClient) || line.name.starts_with(kDatadogClient)) return resolve_client(line);
  if (in_builtin_namespace(line.name)) return resolve_builtin(line);
  return resolve_custom(line);
}

Ledger::Action Ledger::rejection(Reason reason) {
  Action action;
  action.reason = reason;
  action.dropped = nullptr;
  return action;
}

Ledger::Action Ledger::resolve_builtin(const Line& line) {
  const BuiltinEvent* const event = find_builtin(line.name);
  if (event == nullptr) return rejection(Reason::kUnknownName);
  if (event->type != (line.type == 'd' ? 'h' : line.type)) return rejection(Reason::kTypeChanged);
  Action action;
  action.weight = weight_of(line.rate);
  if (event->type == 'g') {
    action.what = Action::Do::kLevel;
    action.negative_ok = true;
    action.cell = &levels_[event->slot];
  } else if (event->type == 'c') {
    action.what = Action::Do::kCount;
    action.cell = &counts_[event->slot];
  } else {
    action.what = Action::Do::kTimed;
    action.timed = &timed_[event->slot];
  }
  if (event->rule == TagRule::kResult) {
    const std::string_view result = line.tag("result");
    if (!result.empty() && result != "ok" && result != "error") return rejection(Reason::kTag);
    if (result == "error") action.also = &counts_[static_cast<std::size_t>(Count::kResponseErrors)];
  }
  if (event->rule == TagRule::kDuplicate) {
    const std::string_view duplicate = line.tag("duplicate");
    if (!duplicate.empty() && duplicate != "true" && duplicate != "false") return rejection(Reason::kTag);
    if (duplicate == "true") action.also = &counts_[static_cast<std::size_t>(Count::kBlocksDuplicated)];
  }
  if (const std::string_view peer = line.tag("peer"); event->peer != PeerField::kNone && !peer.empty()) {
    action.field = event->peer;
    action.peer = &peers_.find(label_value(peer), now_);
    action.generation = action.peer->generation;
  }
  return action;
}

Ledger::Action Ledger::resolve_client(const Line& line) {
  Action action;
  action.what = Action::Do::kIgnore;
  const auto dropped = [&](std::string_view reason) {
    action.what = Action::Do::kCount;
    action.cell = &clients_.dropped(reason);
    action.weight = weight_of(line.rate);
  };
  if (line.name.starts_with(kDatadogClient)) {
    // What else these clients tell of themselves is accepted, and of no use here.
    action.negative_ok = true;
    const std::string_view name = line.name.substr(kDatadogClient.size());
    if (line.type == 'c' && name == "packets_dropped") dropped("client_datagrams");
    if (line.type == 'c' && name == "metric_dropped_on_receive") dropped("client_lines");
    if (action.what == Action::Do::kCount) action.negative_ok = false;
    return action;
  }
  const std::string_view name = line.name.substr(kOwnClient.size());
  if (name != "dropped" && name != "sequence") return rejection(Reason::kUnknownName);
  if (line.type != (name == "dropped" ? 'c' : 'g')) return rejection(Reason::kTypeChanged);
  if (name == "dropped") {
    const std::string_view reason = line.tag("reason");
    dropped(reason.empty() ? "other" : reason);
    return action;
  }
  if (line.tag("client").empty()) return rejection(Reason::kTag);
  action.what = Action::Do::kSequence;
  action.client = &clients_.find(line.tag("client"), now_);
  action.generation = action.client->generation;
  return action;
}

Ledger::Action Ledger::resolve_custom(const Line& line) {
  const Custom::Found found = custom_.find(line);
  if (found.series == nullptr) {
    Action action = rejection(found.reason);
    action.dropped = found.dropped;
    return action;
  }
  Action action;
  action.weight = weight_of(line.rate);
  action.negative_ok = line.type != 'c' && line.type != 'm';
  if (line.type == 'c' || line.type == 'g') {
    action.what = line.type == 'c' ? Action::Do::kCount : Action::Do::kLevel;
    action.cell = &found.series->cell;
  } else {
    action.what = Action::Do::kSample;
    action.tally = found.series->tally.get();
  }
  return action;
}

}  // namespace boxo::events
