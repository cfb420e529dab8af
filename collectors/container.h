// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "collectors/cgroup.h"

namespace boxo {

/// A container id out of one component of a cgroup path, as Docker ("ID", "docker-ID.scope"), containerd
/// ("cri-containerd-ID.scope"), CRI-O ("crio-ID.scope") and Podman ("libpod-ID.scope") name theirs; "" if it
/// is none.
std::string_view container_id(std::string_view component);

/// What the user gave: an id, or the first characters of one. A runtime's scheme ("docker://") is left out.
struct ContainerName {
  static constexpr std::size_t kShortest = 4;

  std::string text;
  explicit ContainerName(std::string_view given);
  bool fits(std::string_view id) const { return id.starts_with(text); }
};

/// Where a container was found.
struct ContainerGroup {
  std::string controller;  ///< of the hierarchy
  std::string path;
};
/// By full id. Several ids mean that the name is ambiguous.
using FoundContainers = std::map<std::string, std::vector<ContainerGroup>, std::less<>>;

/// Adds those containers in `path` that fit, each once for a hierarchy.
void add_containers(const ContainerName& name, const std::string& controller, std::string_view path,
                    FoundContainers& found);
/// Looks for the container among the cgroup directories of all hierarchies, v2 first.
FoundContainers find_containers(const Cgroups& cgroups, const ContainerName& name);
/// The part of `path` up to the container `id`; "" if it is not in it.
std::string path_to_container(std::string_view path, std::string_view id);

}  // namespace boxo
