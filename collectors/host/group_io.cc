// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/group_io.h"

#include <array>
#include <optional>
#include <utility>

#include "collectors/host/text.h"

namespace boxo::host {

namespace {

constexpr Metric kBytes{
    "boxo_resource_cgroup_io_bytes_total",
    MetricType::kCounter,
    "bytes",
    "device,operation",
    Source::kCgroup,
    "Bytes that the target's cgroup read from, wrote to and discarded on each block device, those of more than 64 as other. With cgroup version 1 without what "
    "the kernel writes back later."};
constexpr Metric kRequests{"boxo_resource_cgroup_io_requests_total",
                           MetricType::kCounter,
                           "",
                           "device,operation",
                           Source::kCgroup,
                           "The requests that moved them."};
constexpr Metric kAll[] = {kBytes, kRequests};

constexpr std::array<const char*, 3> kOperations = {"read", "write", "discard"};
constexpr std::size_t kStatSize = 1 << 20;

bool is_device(std::string_view word) {
  const std::size_t colon = word.find(':');
  return colon != std::string_view::npos && to_number(word.substr(0, colon)) && to_number(word.substr(colon + 1));
}

}  // namespace

GroupIo::GroupIo(const std::string& names) {
  if (auto links = Dir::open(names)) links_ = std::move(*links);
}

std::span<const Metric> GroupIo::metrics() { return kAll; }

/// "sda" for "8:0", also when the kernel has forgotten it before its counts.
std::string GroupIo::name_of(const std::string& number) const {
  const auto link = links_ ? links_.link(number) : Result<std::string>(Error{});
  if (link) return link->substr(link->rfind('/') + 1);
  const auto known = names_.find(number);
  return known == names_.end() ? number : known->second;
}

GroupIo::Devices GroupIo::parse_v2(std::string_view io_stat) {
  constexpr std::array<std::string_view, kDiscards + 1> kKeys = {"rbytes=", "wbytes=", "dbytes=", "rios=", "wios=", "dios="};
  Devices devices;
  while (!io_stat.empty()) {
    std::string_view line = next_line(io_stat);
    const std::string_view device = next_word(line);
    if (!is_device(device)) continue;
    for (std::string_view word = next_word(line); !word.empty(); word = next_word(line))
      for (std::size_t i = 0; i < kKeys.size(); ++i)
        if (word.starts_with(kKeys[i]))
          if (const auto value = to_number(word.substr(kKeys[i].size()))) devices[std::string(device)][i] = *value;
  }
  return devices;
}

GroupIo::Devices GroupIo::parse_v1(std::string_view bytes, std::string_view requests) {
  constexpr std::array<std::string_view, 3> kKeys = {"Read", "Write", "Discard"};
  Devices devices;
  for (const auto& [first, file] : {std::pair(kReadBytes, bytes), std::pair(kReads, requests)}) {
    std::string_view text = file;
    while (!text.empty()) {
      std::string_view line = next_line(text);
      const std::string_view device = next_word(line);
      const std::string_view operation = next_word(line);
      const auto value = to_number(next_word(line));
      if (!is_device(device) || !value) continue;
      for (std::size_t i = 0; i < kKeys.size(); ++i)
        if (operation == kKeys[i]) devices[std::string(device)][static_cast<std::size_t>(first) + i] = *value;
    }
  }
  return devices;
}

std::optional<GroupIo::Devices> GroupIo::read(const CgroupView& view) {
  const auto text = [&view](const char* file) { return view.group().read(file, kStatSize); };
  if (view.version == 2) {
    const auto stat = text("io.stat");
    return stat ? std::optional(parse_v2(*stat)) : std::nullopt;
  }
  const auto bytes = text("blkio.throttle.io_service_bytes_recursive");
  const auto requests = text("blkio.throttle.io_serviced_recursive");
  return bytes && requests ? std::optional(parse_v1(*bytes, *requests)) : std::nullopt;
}

void GroupIo::count(std::uint64_t place, const Devices& devices) {
  Devices by_name;
  decltype(names_) names;
  for (const auto& [number, values] : devices) {
    const std::string& name = names[number] = name_of(number);
    auto& sums = by_name[name];
    for (std::size_t i = 0; i < values.size(); ++i) sums[i] += values[i];
  }
  names_ = std::move(names);
  devices_.update(place, by_name);
}

void GroupIo::show(Snapshot& out) const {
  devices_.each([&out](const std::string& name, const auto& total) {
    for (std::size_t i = 0; i < kOperations.size(); ++i) {
      out.add(kBytes, static_cast<double>(total[i]), {{"device", name}, {"operation", kOperations[i]}});
      out.add(kRequests, static_cast<double>(total[kReads + i]), {{"device", name}, {"operation", kOperations[i]}});
    }
  });
}

void GroupIo::add(Snapshot& out, TargetGroup& group) {
  const CgroupView* const view = group.view("io");
  if (view != nullptr) {
    last_ = read(*view);
    if (last_) count(TargetGroup::place(view->group()), *last_);
  }
  std::string why;
  if (!last_)
    why = view == nullptr ? group.trouble() : "the I/O of this cgroup cannot be read: the io controller is off in it";
  else if (devices_.empty())
    why = view != nullptr && view->version == 1
              ? "the cgroup has used no block device, or has no I/O limit: version 1 counts only where there is one"
              : "the cgroup has used no block device yet";
  if (why.empty()) return show(out);
  for (const Metric& metric : kAll) out.absent(metric.name, why);
}

}  // namespace boxo::host
