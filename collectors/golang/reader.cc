// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/golang/reader.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "collectors/members.h"
#include "collectors/reading.h"

namespace boxo::golang {

namespace {

constexpr std::size_t kMostPrograms = 16;

}  // namespace

Memory Reader::memory_of(const Process& process) {
  if (!by_pid_) {
    // Where /proc is that of another pid namespace, another process may have this number.
    const auto self = target_.proc_root().link("self");
    by_pid_ = self && *self == std::to_string(::getpid());
  }
  return Memory(process, *by_pid_);
}

void Reader::read() {
  ++round_;
  running_.clear();
  trouble_.clear();
  uncounted_.clear();
  begins_.clear();
  for (const Process& process : target_.processes()) {
    const Trouble trouble = read_one(process);
    if (trouble.why.empty()) continue;
    const std::string why = &process == target_.main() ? trouble.why : process.comm + ": " + trouble.why;
    if (trouble_.empty()) trouble_ = why;
    if (!trouble.counted && uncounted_.empty()) uncounted_ = why;
  }
  if (trouble_.empty() && running_.empty()) trouble_ = begins_;
  std::erase_if(attached_, [this](const auto& one) { return one.second.round != round_; });
  gc_.finish();
}

/// Takes in what a process counts, if it is a Go program. Returns why that is not possible; "" if it is.
Reader::Trouble Reader::read_one(const Process& process) {
  const auto program = programs_.of(process);
  if (!program) return {reason(program.error())};
  if (*program == nullptr || !(*program)->go) return {};
  Attached& attached = attached_[process.id];
  attached.round = round_;
  // Then there may be no memory yet where its file says.
  const bool may_begin = attached.program != *program || attached.runtime;
  if (attached.program != *program) attached = {*program, {}, round_};
  if (!(*program)->trouble.empty()) return {(*program)->trouble};
  if (running_.size() >= kMostPrograms) return {"the target has more than " + std::to_string(kMostPrograms) + " Go programs"};

  Memory memory = memory_of(process);
  auto numbers = read_numbers(process, attached, memory);
  if (attached.runtime) gc_.keep(attached.runtime->begun());
  // Its end looks like many things.
  if (!is_there(process) || (!numbers && numbers.error().code == ESRCH)) {
    attached.runtime.reset();
    return {};
  }
  if (!numbers && (numbers.error().code == EBUSY || (may_begin && numbers.error().code == EFAULT))) {
    begins_ = "its Go runtime has just begun";
    return {};
  }
  if (!numbers) return {reason(numbers.error())};
  // A process that has forked and not yet called exec shows the memory of the one that it is a copy of.
  const std::uint64_t begun = attached.runtime->begun();
  if (std::any_of(running_.begin(), running_.end(), [&](const Running& one) { return one.runtime->begun() == begun; })) {
    attached.runtime.reset();
    return {};
  }
  gc_.update(begun, numbers->cycles, numbers->pauses);
  how_ = (*program)->version + ", " + memory.way();
  running_.push_back({&process, &*attached.runtime, *std::move(numbers)});
  return {running_.back().numbers.unsettled, true};
}

Result<Numbers> Reader::read_numbers(const Process& process, Attached& attached, Memory& memory) {
  if (attached.runtime) {
    auto numbers = attached.runtime->read(memory);
    const int code = numbers ? 0 : numbers.error().code;
    // After exec the addresses may be of another program, or of nothing.
    if (code != ESTALE && code != EFAULT) return numbers;
    attached.runtime.reset();
  }
  auto runtime = Runtime::attach(attached.program, process, memory);
  if (!runtime) return runtime.error();
  attached.runtime.emplace(std::move(*runtime));
  return attached.runtime->read(memory);
}

}  // namespace boxo::golang
