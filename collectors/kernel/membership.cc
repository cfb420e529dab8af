// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/membership.h"

#include <bpf/bpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <ctime>
#include <utility>

namespace boxo::kernel {

namespace {

std::size_t room() {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return (sizeof(watched) + page - 1) / page * page;
}

/// The probes read and write the same bytes.
template <class T>
void store(T& where, T value) {
  __atomic_store_n(&where, value, __ATOMIC_RELEASE);
}

}  // namespace

Result<Probe> load_members(const Description& description, LoadContext& context) {
  auto probe = Probe::load(description, context);
  if (!probe && probe.error().code != EPERM) {
    context.task_storage = false;
    // If it is something else, what the first attempt said is nearer to it.
    if (auto second = Probe::load(description, context)) probe = std::move(second);
  }
  if (!probe) return probe;
  for (const char* name : {"watch", "members", "threads", "threads_by_tid"})
    if (const int fd = probe->map_fd(name); fd >= 0) context.shared[name] = fd;
  return probe;
}

Result<Membership> Membership::make(Probe& probe, bool initial_pidns) {
  Membership out(probe, initial_pidns);
  out.members_ = probe.map_fd("members");
  void* memory = ::mmap(nullptr, room(), PROT_READ | PROT_WRITE, MAP_SHARED, probe.map_fd("watch"), 0);
  if (memory == MAP_FAILED) return errno_error("mmap of the map watch");
  out.watched_ = static_cast<watched*>(memory);
  return out;
}

Membership::Membership(Membership&& other) noexcept
    : probe_(other.probe_),
      initial_pidns_(other.initial_pidns_),
      members_(other.members_),
      watched_(std::exchange(other.watched_, nullptr)),
      known_(std::move(other.known_)),
      generation_(other.generation_),
      forks_(other.forks_),
      idle_(other.idle_),
      complete_(other.complete_),
      again_(other.again_) {}

Membership& Membership::operator=(Membership&& other) noexcept {
  std::swap(probe_, other.probe_);
  std::swap(initial_pidns_, other.initial_pidns_);
  std::swap(members_, other.members_);
  std::swap(watched_, other.watched_);
  std::swap(known_, other.known_);
  std::swap(generation_, other.generation_);
  std::swap(forks_, other.forks_);
  std::swap(idle_, other.idle_);
  std::swap(complete_, other.complete_);
  std::swap(again_, other.again_);
  return *this;
}

Membership::~Membership() {
  if (watched_ != nullptr) ::munmap(watched_, room());
}

/// Learns the kernel's pids of the processes that are new. A process of which the number was reused in between is
/// found out by its /proc directory: it answers only while the process lives.
Result<> Membership::translate(std::span<const Process> processes) {
  std::map<ProcessId, std::uint32_t> known;
  bool complete = true;
  for (const Process& process : processes) {
    if (initial_pidns_) {
      known[process.id] = static_cast<std::uint32_t>(process.id.pid);
    } else if (const auto it = known_.find(process.id); it != known_.end()) {
      known.insert(*it);
    } else {
      complete = false;
    }
  }
  if (!complete) {
    std::string records;
    if (auto read = probe_->iterate("translate", records); !read) return read.error();
    std::map<std::uint32_t, std::uint32_t> kernel_pid;
    for (std::size_t at = 0; at + sizeof(translation) <= records.size(); at += sizeof(translation)) {
      translation record{};
      std::memcpy(&record, records.data() + at, sizeof(record));
      kernel_pid[record.pid] = record.tgid;
    }
    for (const Process& process : processes) {
      const auto it = kernel_pid.find(static_cast<std::uint32_t>(process.id.pid));
      if (known.contains(process.id) || it == kernel_pid.end()) continue;
      if (process.proc.read("comm")) known[process.id] = it->second;
    }
  }
  known_ = std::move(known);
  return {};
}

bool Membership::write(const std::set<std::uint32_t>& wanted) {
  again_ = false;
  std::map<std::uint32_t, std::uint32_t> present;
  for (const std::uint32_t tgid : members()) {
    std::uint32_t how = 0;
    if (::bpf_map_lookup_elem(members_, &tgid, &how) == 0) present[tgid] = how;
  }
  for (const auto& [tgid, how] : present) {
    if (wanted.contains(tgid)) continue;
    if (how == MEMBER_BORN) {
      // Perhaps younger than what Target knows: look again before it is taken out.
      const std::uint32_t seen = MEMBER_SEEN;
      ::bpf_map_update_elem(members_, &tgid, &seen, BPF_EXIST);
      again_ = true;
    } else {
      ::bpf_map_delete_elem(members_, &tgid);
    }
  }
  bool unknown = false;
  const std::uint32_t told = MEMBER_TOLD;
  for (const std::uint32_t tgid : wanted) {
    const auto it = present.find(tgid);
    unknown |= it == present.end();
    if (it != present.end() && it->second == told) continue;
    if (::bpf_map_update_elem(members_, &tgid, &told, BPF_ANY) != 0) ++watched_->full;
  }
  return unknown;
}

/// The processes in the map, those included that the kernel has added by itself. An entry that is removed while it is
/// read begins the list anew: some may be in it twice, and it has an end.
std::vector<std::uint32_t> Membership::members() const {
  std::vector<std::uint32_t> found;
  std::uint32_t key = 0, next = 0;
  for (const std::uint32_t* at = nullptr;
       ::bpf_map_get_next_key(members_, at, &next) == 0 && found.size() < 4 * MEMBERS_MAX; at = &key)
    found.push_back(key = next);
  return found;
}

/// Sets the marks of all members and takes away those that have been nobody's for two rounds: of a process that was
/// born a moment ago, and that this does not know of yet, nothing is missed. A fork that adds a member meanwhile enters
/// it into the map first and marks it then, so reading the map once more after taking marks away finds every mark that
/// was lost.
void Membership::mark(const std::set<std::uint32_t>& wanted) {
  std::bitset<WATCH_MARKS> used;
  for (const std::uint32_t tgid : wanted) used.set(tgid % WATCH_MARKS);
  for (const std::uint32_t tgid : members()) used.set(tgid % WATCH_MARKS);
  std::bitset<WATCH_MARKS> idle;
  for (std::uint32_t i = 0; i < WATCH_MARKS; ++i) {
    const bool set = watched_->mark[i] != 0;
    if (used[i] && !set) store(watched_->mark[i], __u8{1});
    if (used[i] || !set) continue;
    if (idle_[i])
      store(watched_->mark[i], __u8{0});
    else
      idle.set(i);
  }
  idle_ = idle;
  if (idle_.any()) again_ = true;
  for (const std::uint32_t tgid : members()) store(watched_->mark[tgid % WATCH_MARKS], __u8{1});
}

void Membership::set_cgroups(std::uint64_t memory, std::uint64_t io) {
  store(watched_->cgroup_memory, __u64{memory});
  store(watched_->cgroup_io, __u64{io});
}

void Membership::attached_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  store(watched_->attached_at, static_cast<__u64>(now.tv_sec) * 1'000'000'000 + static_cast<__u64>(now.tv_nsec));
}

std::optional<Forks> Membership::forks() const {
  if (!complete_ || __atomic_load_n(&watched_->full, __ATOMIC_ACQUIRE) != 0) return std::nullopt;
  return Forks{__atomic_load_n(&watched_->forks, __ATOMIC_ACQUIRE), generation_};
}

Result<bool> Membership::sync(std::span<const Process> processes, const Process* main, std::uint64_t generation) {
  const std::uint32_t forks = __atomic_load_n(&watched_->forks, __ATOMIC_ACQUIRE);
  if (!again_ && generation_ == generation && forks_ == forks) return false;
  if (auto translated = translate(processes); !translated) {
    again_ = true;
    return translated.error();
  }
  std::set<std::uint32_t> wanted;
  for (const auto& [id, tgid] : known_) wanted.insert(tgid);
  const bool unknown = write(wanted);
  mark(wanted);
  const auto it = main != nullptr ? known_.find(main->id) : known_.end();
  store(watched_->main, it != known_.end() ? it->second : 0);
  generation_ = generation;
  forks_ = forks;
  complete_ = known_.size() >= processes.size();
  if (!complete_) again_ = true;
  return unknown;
}

}  // namespace boxo::kernel
