// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/procps.h"

#include <fcntl.h>
#include <libproc2/pids.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "collectors/members.h"

namespace boxo::host {

namespace {

// The library refuses longer lists of pids in one call.
constexpr std::size_t kAtOnce = 200;

enum TimesItem {
  kPid,
  kStart,
  kUser,
  kSystem,
  kUserAll,
  kSystemAll,
  kMinor,
  kMajor,
  kMinorAll,
  kMajorAll,
  kTimesItems
};
constexpr std::array<pids_item, kTimesItems> kTimes = {
    PIDS_ID_PID,        PIDS_TICS_BEGAN, PIDS_TICS_USER, PIDS_TICS_SYSTEM, PIDS_TICS_USER_C,
    PIDS_TICS_SYSTEM_C, PIDS_FLT_MIN,    PIDS_FLT_MAJ,   PIDS_FLT_MIN_C,   PIDS_FLT_MAJ_C};

// Without the start time, that is without /proc/PID/stat: for it the kernel goes through all threads of the process.
enum MemoryItem { kThreads = 1, kResident, kAnonymous, kFile, kShared, kSwapped, kMapped, kMemoryItems };
constexpr std::array<pids_item, kMemoryItems> kMemory = {
    PIDS_ID_PID,      PIDS_NLWP,          PIDS_VM_RSS,  PIDS_VM_RSS_ANON,
    PIDS_VM_RSS_FILE, PIDS_VM_RSS_SHARED, PIDS_VM_SWAP, PIDS_VM_SIZE};

/// Whether the pid that was asked for is still that of the process, or of the thread that stands for it.
bool still_has(const Process& process, pid_t pid) {
  if (pid == process.id.pid) return is_there(process);
  return ::faccessat(process.survivor_proc.fd(), "stat", F_OK, 0) == 0;
}

class Info {
 public:
  Info() = default;
  ~Info() {
    if (info_ != nullptr) procps_pids_unref(&info_);
  }
  Info(const Info&) = delete;
  Info& operator=(const Info&) = delete;
  Info(Info&&) = delete;
  Info& operator=(Info&&) = delete;

  Result<> open(std::span<const pids_item> items) {
    std::vector<pids_item> list(items.begin(), items.end());
    const int error = procps_pids_new(&info_, list.data(), static_cast<int>(list.size()));
    if (error < 0) return errno_error("libproc2", "is /proc mounted?", -error);
    return {};
  }

  /// Calls each(process, results) for every process; who(process) is the pid or thread of it that is asked for, which may
  /// have become somebody else's.
  template <class Who, class Each>
  Result<> select(const std::vector<Process>& processes, Who who, Each each) {
    for (std::size_t end = processes.size(); end > 0; end -= std::min(end, kAtOnce)) {
      const std::size_t begin = end - std::min(end, kAtOnce);
      pids_.clear();
      wanted_.clear();
      for (std::size_t i = end; i > begin; --i) {
        const pid_t pid = who(processes[i - 1]);
        pids_.push_back(static_cast<unsigned>(pid));
        wanted_.emplace_back(pid, &processes[i - 1]);
      }
      std::sort(wanted_.begin(), wanted_.end());
      errno = 0;
      const pids_fetch* fetched =
          procps_pids_select(info_, pids_.data(), static_cast<int>(pids_.size()), PIDS_SELECT_PID);
      if (fetched == nullptr) return errno_error("libproc2");
      for (int i = 0; i < fetched->counts->total; ++i) {
        const pids_result* found = fetched->stacks[i]->head;
        const pid_t pid = found[kPid].result.s_int;
        auto at = std::ranges::lower_bound(wanted_, pid, {}, &std::pair<pid_t, const Process*>::first);
        for (; at != wanted_.end() && at->first == pid; ++at) each(*at->second, found);
      }
    }
    return {};
  }

 private:
  pids_info* info_ = nullptr;
  std::vector<unsigned> pids_;
  std::vector<std::pair<pid_t, const Process*>> wanted_;  // as asked for, and whose it is
};

}  // namespace

struct Procps::Impl {
  Info times;
  Info memory;
};

Procps::Procps(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Procps::Procps(Procps&&) noexcept = default;
Procps& Procps::operator=(Procps&&) noexcept = default;
Procps::~Procps() = default;

Result<Procps> Procps::open() {
  auto impl = std::make_unique<Impl>();
  if (auto done = impl->times.open(kTimes); !done) return done.error();
  if (auto done = impl->memory.open(kMemory); !done) return done.error();
  return Procps(std::move(impl));
}

Result<std::map<ProcessId, ProcessTimes>> Procps::times(const std::vector<Process>& processes) {
  std::map<ProcessId, ProcessTimes> all;
  const auto itself = [](const Process& one) { return one.id.pid; };
  auto done = impl_->times.select(processes, itself, [&all](const Process& process, const pids_result* found) {
    if (found[kStart].result.ull_int != process.id.start_ticks) return;
    ProcessTimes& one = all[process.id];
    one.user_ticks = found[kUser].result.ull_int;
    one.system_ticks = found[kSystem].result.ull_int;
    one.minor_faults = found[kMinor].result.ul_int;
    one.major_faults = found[kMajor].result.ul_int;
    // The library's "…_C" values are own and children's together.
    one.reaped_user_ticks = found[kUserAll].result.ull_int - one.user_ticks;
    one.reaped_system_ticks = found[kSystemAll].result.ull_int - one.system_ticks;
    one.reaped_minor_faults = found[kMinorAll].result.ul_int - one.minor_faults;
    one.reaped_major_faults = found[kMajorAll].result.ul_int - one.major_faults;
  });
  if (!done) return done.error();
  return all;
}

Result<std::map<ProcessId, ProcessMemory>> Procps::memory(const std::vector<Process>& processes) {
  const auto shows_memory = [](const Process& one) { return one.survivor.pid != 0 ? one.survivor.pid : one.id.pid; };
  std::map<ProcessId, ProcessMemory> all;
  auto done = impl_->memory.select(processes, shows_memory, [&all](const Process& process, const pids_result* found) {
    // Without threads: `status` could not be read.
    if (found[kThreads].result.s_int == 0 || !still_has(process, found[kPid].result.s_int)) return;
    const auto bytes = [found](MemoryItem item) { return std::uint64_t{found[item].result.ul_int} * 1024; };
    all[process.id] = {bytes(kResident), bytes(kAnonymous), bytes(kFile),
                       bytes(kShared),   bytes(kSwapped),   bytes(kMapped)};
  });
  if (!done) return done.error();
  return all;
}

}  // namespace boxo::host
