// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/events/ledger.h"

#include <sys/random.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace boxo::events {

namespace {

// Beyond this nothing is a count, a size or a time of anything; sums of such values stay finite.
constexpr double kLargest = 0x1p63;
// A counter that grew by more at once could no longer count ones.
constexpr double kLargestCount = 0x1p53;
constexpr std::size_t kKeptOfBadLine = 256;

const char* find_byte(const char* p, char byte, const char* end) {
  return static_cast<const char*>(std::memchr(p, byte, static_cast<std::size_t>(end - p)));
}

std::string_view text(const char* begin, const char* end) {
  return {begin, static_cast<std::size_t>(end - begin)};
}

/// Means of bandwidth are over a tenth of the samples that the others are over.
std::size_t bandwidth_samples(std::size_t history) { return std::max<std::size_t>(history / 10, 1); }

std::uint64_t random_seed() {
  std::uint64_t seed = 0x5bd1e9955bd1e995;
  // Without randomness (a very early boot) the table still works, only predictably.
  [[maybe_unused]] const ssize_t n = ::getrandom(&seed, sizeof seed, GRND_NONBLOCK);
  return seed;
}

}  // namespace

Ledger::Ledger(const EventOptions& options)
    : peers_(options.peers, std::max<std::size_t>(options.history, 1), bandwidth_samples(options.history)),
      custom_(options.series, options.constant_labels),
      memo_(random_seed()) {
  for (std::size_t i = 0; i < kTimings; ++i) {
    const auto which = static_cast<Timing>(i);
    timed_[i].tally.buckets = &buckets_of(which);
    timed_[i].window =
        std::make_unique<Window>(which == Timing::kBandwidth ? bandwidth_samples(options.history)
                                                             : std::max<std::size_t>(options.history, 1));
  }
  last_refused_.reserve(kKeptOfBadLine);
}

void Ledger::packet(std::string_view packet, std::uint64_t now, bool cut) {
  now_ = now;
  if (cut) {
    const std::size_t last = packet.rfind('\n');
    const std::size_t whole = last == std::string_view::npos ? 0 : last + 1;
    reject(Reason::kTooLong, packet.substr(whole));
    packet = packet.substr(0, whole);
    if (packet.empty()) return;
  }
  const char* p = packet.data();
  const char* const end = p + packet.size();
  bool empty = true;
  while (p < end) {
    if (*p == '\n') {
      ++p;
      continue;
    }
    empty = false;
    ++received_;
    // A line like one before: the end of the line is looked for behind its number. A name that runs over the
    // end of a line was never remembered; then, and whenever something does not fit, the slow way looks again
    // from the start.
    const char* line_end = nullptr;
    const char* const colon =
        find_byte(p, ':', static_cast<std::size_t>(end - p) > kMaxName ? p + kMaxName + 1 : end);
    if (colon != nullptr) {
      const Number number = parse_number(colon + 1, end);
      if (number.end != nullptr && number.end != end && *number.end == '|') {
        line_end = find_byte(number.end, '\n', end);
        if (line_end == nullptr) line_end = end;
        const std::string_view line = text(p, line_end);
        const Action* const action = memo_.find(text(p, colon), text(number.end, line_end));
        if (action != nullptr && line.size() <= kMaxLine && apply_one(*action, number, line)) {
          p = line_end;
          continue;
        }
      }
    }
    line_end = find_byte(p, '\n', end);
    if (line_end == nullptr) line_end = end;
    slow_line(text(p, line_end));
    p = line_end;
  }
  if (empty) reject(Reason::kEmpty, {});
}

void Ledger::slow_line(std::string_view line) {
  // Of a packed line like one before only the values have to be looked at.
  const std::size_t colon = line.substr(0, kMaxName + 1).find(':');
  const std::size_t bar = line.find('|');
  if (colon < bar && bar != std::string_view::npos && line.size() <= kMaxLine) {
    const Action* const action = memo_.find(line.substr(0, colon), line.substr(bar));
    if (action != nullptr && apply_all(*action, line.substr(colon + 1, bar - colon - 1), line)) return;
  }
  line_ = Line{};
  if (const auto reason = split(line, line_)) return refuse(*reason, line);
  const Action action = resolve(line_);
  apply_all(action, line_.values, line);
  // Timestamps change; a line with one is not like another.
  if (!line_.has_timestamp) memo_.insert(line_.name, line.substr(bar), action);
}

Ledger::Verdict Ledger::judge(const Action& action, const Number& number) {
  using Do = Action::Do;
  if (action.what == Do::kReject) return Verdict::kRefuse;
  if (action.peer != nullptr && action.peer->generation != action.generation) return Verdict::kStale;
  if (action.what == Do::kSequence && action.client->generation != action.generation) return Verdict::kStale;
  if (number.value < 0 && !action.negative_ok) return Verdict::kRefuse;
  const double size = action.what == Do::kCount ? number.value * action.weight : std::fabs(number.value);
  return size <= (action.what == Do::kCount ? kLargestCount : kLargest) ? Verdict::kGood : Verdict::kRefuse;
}

bool Ledger::apply_one(const Action& action, const Number& number, std::string_view line) {
  const Verdict verdict = judge(action, number);
  if (verdict == Verdict::kGood) count(action, number);
  if (verdict == Verdict::kRefuse) refuse(action, line);
  return verdict != Verdict::kStale;
}

bool Ledger::apply_all(const Action& action, std::string_view values, std::string_view line) {
  const char* const end = values.data() + values.size();
  // First all of them are looked at. What is no number makes the line a bad one whatever its name is worth.
  Verdict verdict = Verdict::kGood;
  for (const char* p = values.data();; ++p) {
    const Number number = parse_number(p, end);
    if (number.end == nullptr || (number.end != end && *number.end != ':')) return false;
    if (verdict == Verdict::kGood) verdict = judge(action, number);
    p = number.end;
    if (p == end) break;
  }
  if (verdict == Verdict::kRefuse) refuse(action, line);
  if (verdict != Verdict::kGood) return verdict == Verdict::kRefuse;
  for (const char* p = values.data();; ++p) {
    const Number number = parse_number(p, end);
    count(action, number);
    p = number.end;
    if (p == end) return true;
  }
}

void Ledger::count(const Action& action, const Number& number) {
  using Do = Action::Do;
  const double value = number.value;
  const double weight = action.weight;
  switch (action.what) {
    case Do::kCount:
      action.cell->value += value * weight;
      action.cell->set_at = now_;
      action.cell->seen = true;
      if (action.also != nullptr) action.also->value += value * weight;
      break;
    case Do::kLevel:
      action.cell->value = number.is_signed ? action.cell->value + value : value;
      action.cell->seen = true;
      action.cell->set_at = now_;
      break;
    case Do::kSample:
      action.tally->add(value, weight);
      break;
    case Do::kTimed:
      action.timed->tally.add(value, weight);
      action.timed->window->add(value, weight, now_);
      action.timed->seen = true;
      if (action.also != nullptr) action.also->value += weight;
      break;
    case Do::kSequence:
      clients_.sequence(*action.client, value, now_);
      break;
    case Do::kIgnore:
    case Do::kReject:
      break;
  }
  if (action.peer != nullptr) peers_.add(*action.peer, action.field, value, weight, now_);
}

void Ledger::reject(Reason reason, std::string_view what) {
  ++received_;
  refuse(reason, what);
}

void Ledger::refuse(const Action& action, std::string_view line) {
  if (action.what != Action::Do::kReject) return refuse(Reason::kValue, line);
  if (action.dropped != nullptr) ++*action.dropped;
  refuse(action.reason, line);
}

void Ledger::refuse(Reason reason, std::string_view line) {
  ++rejected_[static_cast<std::size_t>(reason)];
  any_refused_ = true;
  last_reason_ = reason;
  last_refused_.assign(line.substr(0, kKeptOfBadLine));
}

void Ledger::forget(std::uint64_t before) {
  if (before <= forgotten_) return;
  forgotten_ = before;
  const auto forget_cell = [before](Cell& cell) {
    if (cell.seen && cell.set_at < before) cell = Cell{};
  };
  std::for_each(levels_.begin(), levels_.end(), forget_cell);
  custom_.for_each_gauge(forget_cell);
  for (const Timed& timed : timed_) timed.window->forget(before);
  peers_.forget(before);
}

void Ledger::read(Reading& out, std::uint64_t now) {
  peers_.maintain(now);
  out.at = now;
  out.forgotten = forgotten_;
  out.received = received_;
  out.rejected = rejected_;
  out.losses.assign(clients_.losses().begin(), clients_.losses().end());
  out.counts = counts_;
  out.levels = levels_;
  for (std::size_t i = 0; i < kTimings; ++i) {
    out.timings[i].tally = timed_[i].tally;
    out.timings[i].seen = timed_[i].seen;
    out.timings[i].last = timed_[i].window->last();
    out.timings[i].values = timed_[i].window->values();
    out.timings[i].weights = timed_[i].window->weights();
    timed_[i].window->mark();
  }
  read_peers(out);
  read_custom(out);
  out.last_refused.clear();
  if (any_refused_) out.last_refused = std::string(name_of(last_reason_)) + ": " + printable(last_refused_);
  any_refused_ = false;
}

void Ledger::read_peers(Reading& out) const {
  out.peers.clear();
  const auto add = [&](std::string_view name, const PeerRecord& record) {
    PeerReading reading{std::string(name), record.sent, record.received, record.errors, {}, {}};
    const auto mean = [&](const std::unique_ptr<Window>& window) {
      return window && !window->empty() && out.is_fresh(window->last()) ? std::optional(window->mean())
                                                                        : std::nullopt;
    };
    reading.latency_ms = mean(record.latency);
    reading.bandwidth = mean(record.bandwidth);
    out.peers.push_back(std::move(reading));
  };
  for (const Peer& peer : peers_.all())
    if (peer.own) add(peer.name, peer.record);
  add(kOtherPeers, peers_.other());
}

void Ledger::read_custom(Reading& out) const {
  out.custom.clear();
  out.tallies.clear();
  out.dropped.clear();
  for (const CustomFamily& family : custom_.families()) {
    for (const CustomSeries* series : family.series) {
      out.custom.push_back({&family, series, series->cell, out.tallies.size()});
      if (series->tally) out.tallies.push_back(*series->tally);
    }
    if (family.dropped > 0) out.dropped.push_back({family.metric.get(), family.dropped});
  }
  if (custom_.dropped_names() > 0) out.dropped.push_back({nullptr, custom_.dropped_names()});
}

}  // namespace boxo::events
