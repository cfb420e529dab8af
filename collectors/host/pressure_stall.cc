// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/pressure_stall.h"

#include <algorithm>

#include "collectors/host/text.h"
#include "collectors/reading.h"

namespace boxo::host {

namespace {

constexpr std::uint64_t kHost = 1;

}  // namespace

std::optional<std::uint64_t> stalled_us(std::string_view text, std::string_view kind) {
  auto line = value_of(text, kind);
  while (line && !line->empty()) {
    const std::string_view word = next_word(*line);
    if (word.starts_with("total=")) return to_number(word.substr(6));
  }
  return std::nullopt;
}

void PressureStall::update(const Target& target, TargetGroup& group) {
  scope_ = nullptr;
  if (const CgroupView* view = group.view("")) {
    // Without CONFIG_PSI, or with cgroup.pressure switched off, there is no such file.
    if (auto text = view->group().read(resource_ + ".pressure"))
      return take(TargetGroup::place(view->group()), "cgroup", *text);
  }
  auto text = target.proc_root().read("pressure/" + resource_);
  if (text) return take(kHost, "host", *text);
  share_.reset();
  last_.reset();
  trouble_ = "pressure/" + resource_ + ": no pressure stall information: boot with psi=1";
}

void PressureStall::take(std::uint64_t place, const char* scope, std::string_view text) {
  const auto some = stalled_us(text, "some ");
  if (!some) {
    trouble_ = "pressure of " + resource_ + ": not of the known form";
    return;
  }
  // Kernels before 5.13 have no such line for cpu.
  const auto full = stalled_us(text, "full ");
  has_full_ = full.has_value();
  const auto now = Clock::now();
  const std::uint64_t before = totals_.total()[0];
  totals_.update(place, {*some, full.value_or(0)});
  share_.reset();
  if (last_ && place == place_ && now > *last_) {
    const double elapsed = std::chrono::duration<double, std::micro>(now - *last_).count();
    share_ = std::min(1.0, static_cast<double>(totals_.total()[0] - before) / elapsed);
  }
  last_ = now;
  place_ = place;
  scope_ = scope;
  trouble_.clear();
}

}  // namespace boxo::host
