// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "collectors/result.h"

namespace boxo {

/// What a configuration file says of one option.
struct Setting {
  std::string name;
  std::vector<std::string> values;  ///< "true" for a name alone
};

/// Reads the text of a configuration file: the part of TOML that options need, where words may also go without quotes and
/// several values without brackets. A name that comes again adds its values. An error names the line.
Result<std::vector<Setting>> parse_config(std::string_view text);

}  // namespace boxo
