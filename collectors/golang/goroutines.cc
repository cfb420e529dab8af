// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/golang/goroutines.h"

#include <cerrno>
#include <memory>
#include <string_view>

#include "collectors/members.h"
#include "collectors/reading.h"

namespace boxo::golang {

namespace {

// The texts of reasons are the target's: it could have ever new ones.
constexpr std::size_t kMostKinds = 512;

constexpr const char* kAlways[] = {"runnable", "running", "syscall"};

}  // namespace

void Goroutines::count(Reader& reader, std::uint64_t generation) {
  const auto now = TimeBudget::Clock::now();
  std::uint64_t all = 0;
  for (const Reader::Running& one : reader.running()) all += one.numbers.all_goroutines;
  age_ = {};
  if (all > kMost) {
    trouble_ = "more than " + std::to_string(kMost) + " goroutines, those included that have ended and are kept for reuse";
    return;
  }
  if (all > kFew && generation == generation_ && trouble_.empty() && !budget_.allows(now)) {
    age_ = now - budget_.last();
    return;
  }
  const auto begun = TimeBudget::cpu_time();
  generation_ = generation;
  begin();
  for (const Reader::Running& one : reader.running()) {
    trouble_ = add(reader, one);
    if (!trouble_.empty()) break;
  }
  budget_.spent(TimeBudget::Clock::now(), TimeBudget::cpu_time() - begun);
}

/// What was seen once stays, with nought: a series that comes and goes is hard to compare with itself.
void Goroutines::begin() {
  trouble_.clear();
  if (kinds_.size() > kMostKinds) kinds_.clear();
  for (auto& [kind, number] : kinds_) number = 0;
  for (const char* status : kAlways) kinds_.try_emplace(Kind{status, ""}, 0);
}

std::string Goroutines::add(Reader& reader, const Reader::Running& one) {
  const auto census = std::make_unique<Census>();
  Memory memory = reader.memory_of(*one.process);
  const auto done = one.runtime->count(memory, one.numbers.all_goroutines, *census);
  if (!is_there(*one.process) || (!done && done.error().code == ESRCH)) return {};
  if (!done) return reason(done.error());
  constexpr std::string_view kDead = "dead";
  for (std::size_t status = 0; status < Census::kStatuses; ++status) {
    const char* const name = Runtime::status_name(status);
    if (name == nullptr || name == kDead) continue;  // ended, and kept for reuse
    for (std::size_t number = 0; number < Census::kReasons; ++number)
      if (const std::uint32_t found = census->counts[status][number]; found > 0)
        kinds_[Kind{name, Runtime::has_reason(status) ? one.runtime->wait_reason(number) : std::string()}] += found;
  }
  return {};
}

}  // namespace boxo::golang
