// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "collectors/fd.h"
#include "collectors/result.h"

namespace boxo {

/// What Go's linker writes into an executable about how it was built.
struct GoBuildInfo {
  std::string go_version;  ///< "go1.24.1"
  std::string modules;     ///< lines "path\t…", "mod\t…", "dep\tPATH\tVERSION\tSUM", "=>\t…",
                           ///< "build\tKEY=VALUE"; may be ""

  /// The path of the main package, "" if it is not told.
  std::string_view path() const;
  /// The version of the module `module`, be it the main one or a dependency; nothing if it is not in the
  /// program. What a replace directive put in its place goes by the name of what it replaces.
  std::optional<std::string_view> version(std::string_view module) const;
};

/// Reads the build information of an ELF executable, of any class and byte order, stripped or not: the inline
/// format (since Go 1.18) and the older one of pointers. Reads headers and the section only, each bounded; a
/// file that lies about its own sizes gives an Error. ENOENT: this is not a Go program with build
/// information.
Result<GoBuildInfo> read_go_buildinfo(const Fd& executable);

}  // namespace boxo
