// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/remote_map.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <numeric>

#include "collectors/fd.h"

namespace boxo::kernel {

namespace {

constexpr std::size_t kBatch = 1024;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

RemoteAddress address_of(const remote_address& raw) {
  RemoteAddress out;
  std::ranges::copy(raw.bytes, out.begin());
  return out;
}

RemoteValues values_of(const remote& raw) {
  RemoteValues out;
  std::ranges::copy(raw.values, out.begin());
  return out;
}

}  // namespace

RemoteMap::RemoteMap(int remotes, int unlisted, std::size_t own_limit)
    : remotes_fd_(remotes),
      unlisted_fd_(unlisted),
      remotes_(own_limit),
      keys_(kBatch),
      values_(kBatch),
      per_cpu_(static_cast<std::size_t>(::libbpf_num_possible_cpus())) {}

Result<> RemoteMap::read() {
  const double now = seconds();
  std::uint32_t place = 0;
  for (bool first = true, more = true; more; first = false) {
    __u32 count = kBatch;
    const int error =
        ::bpf_map_lookup_batch(remotes_fd_, first ? nullptr : &place, &place, keys_.data(), values_.data(), &count, nullptr);
    if (error != 0 && errno != ENOENT) return errno_error("map remotes");
    more = error == 0;
    for (std::size_t i = 0; i < count; ++i) remotes_.see(address_of(keys_[i]), values_of(values_[i]), now);
  }
  RemoteValues unlisted{};
  for (std::uint32_t i = 0; i < unlisted.size(); ++i) {
    if (::bpf_map_lookup_elem(unlisted_fd_, &i, per_cpu_.data()) != 0) return errno_error("map unlisted");
    unlisted[i] = std::accumulate(per_cpu_.begin(), per_cpu_.end(), std::uint64_t{0});
  }
  remotes_.unlisted(unlisted);
  for (const RemoteAddress& address : remotes_.settle(now)) remove(address, now);
  return {};
}

void RemoteMap::remove(const RemoteAddress& address, double now) {
  remote last{};
  // In one go since Linux 5.14; before that what arrives between the two calls is lost.
  if (::bpf_map_lookup_and_delete_elem(remotes_fd_, address.data(), &last) != 0) {
    if (::bpf_map_lookup_elem(remotes_fd_, address.data(), &last) != 0) return;
    if (::bpf_map_delete_elem(remotes_fd_, address.data()) != 0) return;
  }
  remotes_.gone(address, values_of(last), now);
}

void RemoteMap::add(const ProbeMetric& metric, Snapshot& out) const {
  Family& family = out.family(metric.exported);
  const auto add = [&](const std::string& name, const RemoteValues& values, const RemoteValues* ever) {
    for (std::size_t row = 0; row < metric.rows.size(); ++row) {
      const std::uint64_t value = values[metric.first + row];
      if (ever != nullptr && (*ever)[metric.first + row] == 0) continue;
      Labels labels{{"remote", name}};
      labels.insert(labels.end(), metric.rows[row].begin(), metric.rows[row].end());
      family.samples.push_back({std::move(labels), static_cast<double>(value)});
    }
  };
  for (const Remotes::Series& series : remotes_.own()) add(text_of(series.address), series.values, &series.all);
  add("other", remotes_.other(), nullptr);
}

}  // namespace boxo::kernel
