// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/snapshot.h"

#include <algorithm>

namespace boxo {

Family& Snapshot::family(const Metric& metric) {
  // An aliasing pointer without an owner: no allocation for constants.
  return family(std::shared_ptr<const Metric>(std::shared_ptr<void>{}, &metric));
}

Family& Snapshot::family(std::shared_ptr<const Metric> metric) {
  // Collectors fill one family after the other: the last one is nearly always the one asked for.
  for (auto it = families_.rbegin(); it != families_.rend(); ++it)
    if (it->metric == metric) return *it;
  const Source source = metric->source;
  families_.push_back({std::move(metric), source, {}});
  return families_.back();
}

void Snapshot::absent(std::string_view metric, std::string reason) {
  absences_.push_back({std::string(metric), std::move(reason)});
}

const Family* Snapshot::find(std::string_view name) const {
  const auto it = std::find_if(families_.begin(), families_.end(),
                               [&](const Family& family) { return family.metric->name == name; });
  return it == families_.end() ? nullptr : &*it;
}

}  // namespace boxo
