// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/data_devices.h"

#include <bpf/bpf.h>
#include <sys/sysmacros.h>

#include <cstdint>
#include <map>
#include <vector>

#include "bpf/watched.h"
#include "collectors/reading.h"

namespace boxo::kernel {

namespace {

std::uint32_t as_kernel(dev_t device) { return major(device) << 20 | minor(device); }

/// What is to be in the map.
std::map<std::uint32_t, std::uint32_t> entries(const DataPlace& place) {
  std::map<std::uint32_t, std::uint32_t> all;
  if (place.files != 0) all[as_kernel(place.files)] |= DATA_FILES;
  for (const dev_t device : place.blocks) all[as_kernel(device)] |= DATA_BLOCKS;
  return all;
}

std::vector<std::uint32_t> keys(int map) {
  std::vector<std::uint32_t> found;
  std::uint32_t key = 0, next = 0;
  for (const std::uint32_t* at = nullptr; ::bpf_map_get_next_key(map, at, &next) == 0; at = &key) found.push_back(key = next);
  return found;
}

}  // namespace

void DataDevices::update(int map, const std::optional<Result<DataPlace>>& place) {
  if (!place) return;
  trouble_ = *place ? std::string() : reason(place->error());
  if (!*place || **place == told_) return;
  const auto now = entries(**place);
  if (now.size() > DATA_DEVICES_MAX) {
    trouble_ = "the data directory lies on more than " + std::to_string(DATA_DEVICES_MAX) + " block devices";
    return;
  }
  for (const std::uint32_t device : keys(map))
    if (!now.contains(device)) ::bpf_map_delete_elem(map, &device);
  for (const auto& [device, what] : now)
    if (::bpf_map_update_elem(map, &device, &what, BPF_ANY) != 0) {
      trouble_ = errno_error("map data_devices").text();
      return;
    }
  told_ = **place;
}

}  // namespace boxo::kernel
