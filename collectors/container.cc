// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/container.h"

#include <algorithm>
#include <array>

namespace boxo {

namespace {

constexpr std::size_t kIdLength = 64;

/// Visits the components of a path with the path up to each, until the visitor returns false.
template <class Visit>
void for_components(std::string_view path, Visit visit) {
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    if (end > at && !visit(path.substr(at, end - at), path.substr(0, end))) return;
    at = end + 1;
  }
}

}  // namespace

std::string_view container_id(std::string_view component) {
  constexpr std::string_view kScope = ".scope";
  // cri-containerd is also written "<slice>:cri-containerd:ID" where systemd is asked to make the group but
  // does not run.
  constexpr std::array<std::string_view, 5> kPrefixes{"docker-", "cri-containerd-", "crio-", "libpod-",
                                                      "nerdctl-"};
  std::string_view id = component;
  if (id.ends_with(kScope)) {
    id.remove_suffix(kScope.size());
    for (const std::string_view prefix : kPrefixes) {
      if (!id.starts_with(prefix)) continue;
      id.remove_prefix(prefix.size());
      break;
    }
  } else if (const std::size_t colon = id.rfind(':'); colon != std::string_view::npos) {
    id.remove_prefix(colon + 1);
  } else if (id.starts_with("crio-") || id.starts_with("libpod-")) {
    id.remove_prefix(id.find('-') + 1);  // the same runtimes with the cgroupfs driver
  }
  const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return id.size() == kIdLength && std::all_of(id.begin(), id.end(), hex) ? id : std::string_view{};
}

ContainerName::ContainerName(std::string_view given) {
  if (const std::size_t scheme = given.find("://"); scheme != std::string_view::npos)
    given.remove_prefix(scheme + 3);
  text = given;
}

void add_containers(const ContainerName& name, const std::string& controller, std::string_view path,
                    FoundContainers& found) {
  for_components(path, [&](std::string_view component, std::string_view so_far) {
    const std::string_view id = container_id(component);
    if (id.empty() || !name.fits(id)) return true;
    std::vector<ContainerGroup>& groups = found[std::string(id)];
    const bool known = std::any_of(groups.begin(), groups.end(), [&](const ContainerGroup& group) {
      return group.controller == controller;
    });
    if (!known) groups.push_back({controller, std::string(so_far)});
    return true;
  });
}

FoundContainers find_containers(const Cgroups& cgroups, const ContainerName& name) {
  FoundContainers found;
  for (const int version : {2, 1}) {
    for (const Cgroups::Hierarchy& one : cgroups.hierarchies()) {
      if (one.version != version) continue;
      Cgroups::walk(one, [&](const std::string& path) { add_containers(name, one.key(), path, found); });
    }
  }
  return found;
}

std::string path_to_container(std::string_view path, std::string_view id) {
  std::string found;
  for_components(path, [&](std::string_view component, std::string_view so_far) {
    if (container_id(component) != id) return true;
    found = so_far;
    return false;
  });
  return found;
}

}  // namespace boxo
