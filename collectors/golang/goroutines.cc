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

constexpr const char* kNotYet = "not counted yet, because counting so many more often would take more than 2 % of the time";
constexpr const char* kAlways[] = {"runnable", "running", "syscall"};

}  // namespace

void Goroutines::count(const std::vector<Reader::Running>& running, const MemoryOf& memory_of, TimeBudget::Clock::time_point now) {
  std::uint64_t all = 0;
  for (const Reader::Running& one : running) all += one.numbers.all_goroutines;
  age_ = {};
  if (all > kMost) {
    trouble_ = "more than " + std::to_string(kMost) + " goroutines, those included that have ended and are kept for reuse";
    return;
  }
  const std::uint64_t begun = running.front().runtime->begun();
  if (all > kFew && !budget_.allows(now)) {
    // What was counted of programs that have ended says nothing of these; that one came or went besides makes it old only.
    trouble_ = begun != begun_ ? kNotYet : failure_;
    if (trouble_.empty()) age_ = now - budget_.last();
    return;
  }
  const auto before = TimeBudget::cpu_time();
  begun_ = begun;
  begin();
  for (const Reader::Running& one : running) {
    failure_ = add(one, memory_of(*one.process));
    if (!failure_.empty()) break;
  }
  trouble_ = failure_;
  const auto cost = TimeBudget::cpu_time() - before;
  if (failure_.empty())
    budget_.spent(now + cost, cost);
  else
    budget_.failed(now + cost, cost);
}

/// What was seen once stays, with nought: a series that comes and goes is hard to compare with itself.
void Goroutines::begin() {
  if (kinds_.size() > kMostKinds) kinds_.clear();
  for (auto& [kind, number] : kinds_) number = 0;
  for (const char* status : kAlways) kinds_.try_emplace(Kind{status, ""}, 0);
}

std::string Goroutines::add(const Reader::Running& one, Memory memory) {
  const auto census = std::make_unique<Census>();
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
