// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/membership.h"

#include <bpf/bpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <ctime>
#include <optional>
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

template <class T>
T load(const T& where) {
  return __atomic_load_n(&where, __ATOMIC_ACQUIRE);
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
  for (const char* name : {"watch", "members", "threads", "threads_by_tid", "endings", "reapers", "data_devices"})
    if (const int fd = probe->map_fd(name); fd >= 0) context.shared[name] = fd;
  return probe;
}

Result<Membership> Membership::make(Probe& probe, bool initial_pidns) {
  Membership out(probe, initial_pidns);
  out.members_ = probe.map_fd("members");
  out.endings_ = probe.map_fd("endings");
  void* memory = ::mmap(nullptr, room(), PROT_READ | PROT_WRITE, MAP_SHARED, probe.map_fd("watch"), 0);
  if (memory == MAP_FAILED) return errno_error("mmap of the map watch");
  out.watched_ = static_cast<watched*>(memory);
  return out;
}

Membership::Membership(Membership&& other) noexcept
    : probe_(other.probe_),
      initial_pidns_(other.initial_pidns_),
      members_(other.members_),
      endings_(other.endings_),
      watched_(std::exchange(other.watched_, nullptr)),
      known_(std::move(other.known_)),
      ends_seen_(std::move(other.ends_seen_)),
      main_(other.main_),
      keeps_strays_(other.keeps_strays_),
      generation_(other.generation_),
      forks_(other.forks_),
      idle_(other.idle_),
      complete_(other.complete_),
      again_(other.again_) {}

Membership& Membership::operator=(Membership&& other) noexcept {
  std::swap(probe_, other.probe_);
  std::swap(initial_pidns_, other.initial_pidns_);
  std::swap(members_, other.members_);
  std::swap(endings_, other.endings_);
  std::swap(watched_, other.watched_);
  std::swap(known_, other.known_);
  std::swap(ends_seen_, other.ends_seen_);
  std::swap(main_, other.main_);
  std::swap(keeps_strays_, other.keeps_strays_);
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

Result<std::vector<translation>> Membership::translations() {
  std::vector<translation> all;
  const auto take = [&all](const translation& one) { all.push_back(one); };
  if (auto read = probe_->iterate<translation>("translate", {}, take); !read) return read.error();
  return all;
}

/// Learns the kernel's pids of the processes that are new. A process of which the number was reused in between is
/// found out by its /proc directory: it answers only while the process lives.
Result<> Membership::translate(std::span<const Process> processes) {
  std::map<ProcessId, Known> known;
  bool complete = true;
  for (const Process& process : processes) {
    if (const auto it = known_.find(process.id); it != known_.end()) {
      known.insert(*it);
    } else if (initial_pidns_) {
      known[process.id] = {static_cast<std::uint32_t>(process.id.pid)};
    } else {
      complete = false;
    }
  }
  if (!complete) {
    const auto all = translations();
    if (!all) return all.error();
    std::map<std::uint32_t, std::uint32_t> kernel_pid;
    for (const translation& one : *all) kernel_pid[one.pid] = one.tgid;
    for (const Process& process : processes) {
      const auto it = kernel_pid.find(static_cast<std::uint32_t>(process.id.pid));
      if (known.contains(process.id) || it == kernel_pid.end()) continue;
      if (process.proc.read("comm")) known[process.id] = {it->second};
    }
  }
  gone_.clear();
  for (const auto& one : known_)
    if (!known.contains(one.first)) gone_.push_back(one);
  known_ = std::move(known);
  return {};
}

/// Whether it ended as a member before it was told of, and the kernel has not forgotten it yet: a zombie.
bool Membership::ended_before(const ProcessId& id, std::uint32_t tgid) const {
  // struct ending: when the process was started is its first member.
  std::array<std::uint64_t, 3> ending{};
  if (::bpf_map_lookup_elem(endings_, &tgid, ending.data()) != 0) return false;
  static const auto kTicks = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  return ending[0] / (1'000'000'000 / kTicks) == id.start_ticks;
}

std::optional<std::uint32_t> Membership::entry(std::uint32_t tgid) const {
  std::uint32_t how = 0;
  if (::bpf_map_lookup_elem(members_, &tgid, &how) != 0) return std::nullopt;
  return how;
}

/// Enters a process into the map. Only a program at its end takes it out again but this class itself: one that is not
/// there any more has ended, and is not entered anew while it is a zombie. True if the kernel did not know of it.
bool Membership::tell(const ProcessId& id, Known& process) {
  const std::uint32_t told = MEMBER_TOLD;
  const auto how = entry(process.tgid);
  if (!how && (process.told || ended_before(id, process.tgid))) process.ended = true;
  if (process.ended || (process.told && *how == told)) return false;
  process.told = ::bpf_map_update_elem(members_, &process.tgid, &told, how ? BPF_EXIST : BPF_ANY) == 0;
  if (!process.told && how) process.ended = true;
  if (!process.told && !how) ++watched_->full;
  return process.told && !how;
}

bool Membership::write() {
  again_ = false;
  for (const auto& [id, process] : gone_)
    if (process.ended || (process.told && !entry(process.tgid))) ends_seen_.push_back(id);
  // Nobody asks for them.
  if (ends_seen_.size() > std::size_t{4} * MEMBERS_MAX) ends_seen_.clear();
  bool unknown = false;
  for (auto& [id, process] : known_) unknown |= tell(id, process);
  const auto wanted = this->wanted();
  const auto list = members();
  for (const std::uint32_t tgid : std::set(list.begin(), list.end())) {
    const auto how = entry(tgid);
    if (!how || wanted.contains(tgid)) continue;
    // Its parents came and went before Target saw them, but the kernel did.
    if (*how == MEMBER_BORN && keeps_strays_) continue;
    if (*how == MEMBER_BORN) {
      // Perhaps younger than what Target knows: look again before it is taken out.
      const std::uint32_t seen = MEMBER_SEEN;
      ::bpf_map_update_elem(members_, &tgid, &seen, BPF_EXIST);
      again_ = true;
    } else {
      ::bpf_map_delete_elem(members_, &tgid);
    }
  }
  return unknown;
}

std::set<std::uint32_t> Membership::wanted() const {
  std::set<std::uint32_t> wanted;
  for (const auto& [id, process] : known_)
    if (!process.ended) wanted.insert(process.tgid);
  return wanted;
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

std::vector<pid_t> Membership::born() {
  std::vector<pid_t> found;
  std::set<std::uint32_t> tgids;
  for (const std::uint32_t tgid : members()) {
    std::uint32_t how = MEMBER_TOLD;
    if (::bpf_map_lookup_elem(members_, &tgid, &how) == 0 && how == MEMBER_BORN) tgids.insert(tgid);
  }
  if (initial_pidns_) {
    for (const std::uint32_t tgid : tgids) found.push_back(static_cast<pid_t>(tgid));
  } else if (!tgids.empty()) {
    const auto all = translations();
    if (!all) return found;
    for (const translation& one : *all)
      if (tgids.contains(one.tgid)) found.push_back(static_cast<pid_t>(one.pid));
  }
  return found;
}

ThreadCounts Membership::ended_threads() const {
  return {load(watched_->ended_voluntary), load(watched_->ended_involuntary), load(watched_->ended_wait_ns)};
}

std::optional<Forks> Membership::forks() const {
  if (!complete_ || load(watched_->full) != 0) return std::nullopt;
  return Forks{load(watched_->forks), generation_};
}

Result<bool> Membership::sync(const Target& target) {
  // In a group it may have left that; when another main process takes over, it is still of the old one.
  const ProcessId main = target.main() != nullptr ? target.main()->id : ProcessId{};
  keeps_strays_ = !target.is_cgroup() && main.pid != 0 && main == main_;
  main_ = main;
  return sync(target.processes(), target.main(), target.generation());
}

Result<bool> Membership::sync(std::span<const Process> processes, const Process* main, std::uint64_t generation) {
  const std::uint32_t forks = load(watched_->forks);
  if (!again_ && generation_ == generation && forks_ == forks) return false;
  if (auto translated = translate(processes); !translated) {
    again_ = true;
    return translated.error();
  }
  const bool unknown = write();
  mark(wanted());
  const auto it = main != nullptr ? known_.find(main->id) : known_.end();
  store(watched_->main, it != known_.end() && !it->second.ended ? it->second.tgid : 0);
  generation_ = generation;
  forks_ = forks;
  complete_ = known_.size() >= processes.size();
  if (!complete_) again_ = true;
  return unknown;
}

}  // namespace boxo::kernel
