// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/description.h"

#include <bpf/libbpf.h>

#include <cstring>

#include "collectors/kernel/libbpf.h"
#include "collectors/log.h"

namespace boxo::kernel {

namespace {

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::size_t end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return parts;
}

template <std::size_t N>
bool ends(const char (&text)[N]) {
  return std::memchr(text, '\0', N) != nullptr;
}

/// Every combination of the label values, the last label changing fastest.
std::vector<Labels> combine(const std::vector<std::string>& names, const std::vector<std::vector<std::string>>& values) {
  std::vector<Labels> rows{{}};
  for (std::size_t i = 0; i < names.size(); ++i) {
    std::vector<Labels> longer;
    for (const Labels& row : rows)
      for (const std::string& value : values[i]) {
        longer.push_back(row);
        longer.back().push_back({names[i], value});
      }
    rows = std::move(longer);
  }
  return rows;
}

std::string_view unit_name(std::uint32_t unit) {
  switch (unit) {
    case UNIT_NANOSECONDS: return "seconds";
    case UNIT_BYTES: return "bytes";
    default: return "";
  }
}

/// The content of the map with this name as it stands in the object file; empty if there is none.
std::span<const std::byte> section(const bpf_object* object, const char* name) {
  const bpf_map* map = ::bpf_object__find_map_by_name(object, name);
  std::size_t size = 0;
  const void* data = map != nullptr ? ::bpf_map__initial_value(const_cast<bpf_map*>(map), &size) : nullptr;
  return {static_cast<const std::byte*>(data), data != nullptr ? size : 0};
}

}  // namespace

Result<ProbeMetric> describe_metric(const metric& raw) {
  if (!ends(raw.map) || !ends(raw.name) || !ends(raw.help) || !ends(raw.labels) || !ends(raw.values) ||
      !ends(raw.programs) || !ends(raw.tracepoint) || !ends(raw.data_on))
    return Error{"a text of a metric is too long"};
  ProbeMetric out;
  out.raw = std::make_shared<const metric>(raw);
  const metric& kept = *out.raw;
  const bool histogram = kept.kind == METRIC_HISTOGRAM;
  if (kept.kind > METRIC_REMOTES || kept.unit > UNIT_BYTES) return Error{std::string(kept.name) + ": bad kind or unit"};
  if (histogram && (kept.base == 0 || kept.edges == 0 || kept.edges > HIST_EDGES))
    return Error{std::string(kept.name) + ": bad buckets"};

  auto names = split(kept.labels, ',');
  std::vector<std::vector<std::string>> values;
  for (const std::string& list : split(kept.values, ';')) values.push_back(split(list, ','));
  if (names.size() != values.size())
    return Error{std::string(kept.name) + ": as many lists of values as labels, please"};
  out.by_remote = kept.kind == METRIC_REMOTES;
  if (out.by_remote) {
    if (names.empty() || names[0] != "remote" || values[0] != std::vector<std::string>{"*"})
      return Error{std::string(kept.name) + ": the first label is remote, its value *, please"};
    names.erase(names.begin());
    values.erase(values.begin());
  }
  out.tracepoint = kept.tracepoint;
  out.arguments = kept.arguments;

  out.exported = {kept.name,   histogram ? MetricType::kHistogram : MetricType::kCounter,
                  unit_name(kept.unit), kept.labels,
                  Source::kKernel,      kept.help};
  out.map = kept.map;
  out.first = kept.first;
  out.not_measured = kept.not_measured;
  out.needs_cgroup = kept.needs_cgroup != 0;
  out.data_on = split(kept.data_on, ',');
  out.rows = combine(names, values);
  const auto programs = split(kept.programs, ',');
  const bool by_filesystem = !out.data_on.empty() && out.data_on.front() != "*";
  if (!programs.empty() && programs.size() != (by_filesystem ? out.data_on.size() : values.empty() ? 1 : values[0].size()))
    return Error{std::string(kept.name) + ": a program for each value of the first label, or each file system, please"};
  if (by_filesystem) out.programs = programs;
  for (const std::string& program : by_filesystem ? std::vector<std::string>() : programs)
    out.programs.insert(out.programs.end(), out.rows.size() / programs.size(), program);
  if (out.by_remote && (out.first > REMOTE_VALUES || out.rows.size() > REMOTE_VALUES - out.first))
    return Error{std::string(kept.name) + ": a remote has fewer values"};
  out.scale = kept.unit == UNIT_NANOSECONDS ? 1e-9 : 1;
  if (histogram)
    for (std::uint32_t i = 0; i < kept.edges; ++i) {
      // Divided, not multiplied: 1000 ns / 1e9 is the double nearest to 1e-06, as a person would write it.
      const double edge = static_cast<double>(std::uint64_t{kept.base} << i);
      out.bounds.push_back(kept.unit == UNIT_NANOSECONDS ? edge / 1e9 : edge);
    }
  return out;
}

Result<Description> describe(const EmbeddedProbe& embedded) {
  Messages messages;
  auto object = open_object(embedded);
  if (!object) return object.error();
  Description out{embedded, {}, false, {}};

  const auto about = section(object->get(), ".rodata.probe");
  if (about.size() < sizeof(probe)) return Error{"no PROBE"};
  probe read;
  std::memcpy(&read, about.data(), sizeof(read));
  if (!ends(read.help)) return Error{"PROBE: the help is too long"};
  out.help = read.help;
  out.on_request = read.on_request != 0;

  const auto table = section(object->get(), ".rodata.metrics");
  for (std::size_t at = 0; at + sizeof(metric) <= table.size(); at += sizeof(metric)) {
    metric raw;
    std::memcpy(&raw, table.data() + at, sizeof(raw));
    auto one = describe_metric(raw);
    if (!one) return one.error();
    out.metrics.push_back(std::move(*one));
  }
  return out;
}

const std::vector<Description>& descriptions() {
  static const std::vector<Description> all = [] {
    std::vector<Description> read;
    for (const EmbeddedProbe& object : embedded_probes()) {
      auto one = describe(object);
      if (one)
        read.push_back(std::move(*one));
      else
        log_error("probe " + std::string(object.name) + ": " + one.error().text());
    }
    return read;
  }();
  return all;
}

}  // namespace boxo::kernel
