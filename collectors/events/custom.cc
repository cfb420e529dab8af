// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/events/custom.h"

#include <algorithm>
#include <utility>

#include "collectors/events/builtin.h"

namespace boxo::events {

namespace {

// Room for names and labels, on average for each series.
constexpr std::size_t kBytesPerSeries = 1024;

std::string sanitised(std::string_view name) {
  std::string out(name);
  for (char& c : out)
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))) c = '_';
  return out;
}

void end_with(std::string& name, std::string_view suffix) {
  if (!name.ends_with(suffix)) name += suffix;
}

/// A Metric with its texts: what the shared pointer to the Metric keeps alive.
struct OwnedMetric {
  std::string name;
  std::string help;
  Metric metric;
};

std::shared_ptr<const Metric> make_metric(std::string name, char type, std::string_view raw) {
  auto owned = std::make_shared<OwnedMetric>();
  owned->name = std::move(name);
  owned->help = "Sent by the application as " + std::string(raw) + ".";
  const MetricType kind = type == 'c'   ? MetricType::kCounter
                          : type == 'g' ? MetricType::kGauge
                                        : MetricType::kHistogram;
  owned->metric = {owned->name, kind, type == 'm' ? "seconds" : "", "", Source::kApp, owned->help};
  const Metric* const metric = &owned->metric;
  return {std::move(owned), metric};
}

}  // namespace

Custom::Custom(std::size_t limit, std::vector<std::string> constant_labels)
    : limit_(limit), bytes_left_(limit * kBytesPerSeries), constant_labels_(std::move(constant_labels)) {}

CustomFamily* Custom::make_family(const Line& line, char type, Reason& reason) {
  const std::string base = sanitised(line.name);
  if (is_reserved(base)) return reason = Reason::kNameConflict, nullptr;
  std::string name = "boxo_" + base;
  if (type == 'c') end_with(name, "_total");
  if (type == 'm') end_with(name, "_seconds");
  std::vector<std::string> samples = {name};
  if (type == 'm' || type == 'h')
    for (const std::string_view suffix : {"_bucket", "_sum", "_count"})
      samples.push_back(name + std::string(suffix));
  for (const std::string& sample : samples)
    if (by_exported_.contains(sample)) return reason = Reason::kNameConflict, nullptr;

  CustomFamily& family = families_.emplace_back();
  family.type = type;
  family.metric = make_metric(std::move(name), type, line.name);
  for (std::string& sample : samples) by_exported_.emplace(std::move(sample), &family);
  by_name_.emplace(line.name, &family);
  return &family;
}

Custom::Found Custom::find(const Line& line) {
  const char type = line.type == 'd' ? 'h' : line.type;
  // First what the line alone says: it is remembered as the reason, whatever the name comes to mean later.
  for (std::size_t i = 0; i < line.tag_count; ++i) {
    const std::string_view key = line.tags[i].key;
    if ((type == 'm' || type == 'h') && key == "le") return {nullptr, Reason::kTag};
    if (std::find(constant_labels_.begin(), constant_labels_.end(), key) != constant_labels_.end())
      return {nullptr, Reason::kTag};
  }
  // Labels as they are exported: neither holds a newline and keys no '=', so no two series have the same key.
  key_.assign(line.name);
  for (std::size_t i = 0; i < line.tag_count; ++i) {
    key_ += '\n';
    key_ += line.tags[i].key;
    key_ += '=';
    key_ += label_value(line.tags[i].value);
  }
  const auto named = by_name_.find(key_.substr(0, line.name.size()));
  CustomFamily* family = named == by_name_.end() ? nullptr : named->second;
  if (family != nullptr && family->type != type) return {nullptr, Reason::kTypeChanged};
  if (const auto it = by_key_.find(key_); it != by_key_.end()) return {it->second};
  // The key and the labels, which hold the same text.
  const std::size_t bytes = 2 * key_.size() + line.tag_count * sizeof(Label);
  if (series_.size() >= limit_ || bytes > bytes_left_)
    return {nullptr, Reason::kSeriesLimit, family != nullptr ? &family->dropped : &dropped_names_};
  if (family == nullptr) {
    Reason reason{};
    family = make_family(line, type, reason);
    if (family == nullptr) return {nullptr, reason};
  }
  bytes_left_ -= bytes;
  CustomSeries& series = series_.emplace_back();
  series.labels.reserve(line.tag_count);
  for (std::size_t i = 0; i < line.tag_count; ++i)
    series.labels.push_back({std::string(line.tags[i].key), label_value(line.tags[i].value)});
  if (type == 'm' || type == 'h') {
    series.tally = std::make_unique<Tally>();
    series.tally->buckets = type == 'm' ? &kCustomTimeBuckets : &kCustomSampleBuckets;
  }
  family->series.push_back(&series);
  by_key_.emplace(key_, &series);
  return {&series};
}

}  // namespace boxo::events
