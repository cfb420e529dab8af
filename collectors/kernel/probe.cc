// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/probe.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <ctime>
#include <numeric>
#include <set>
#include <string_view>
#include <utility>

#include "collectors/kernel/privileges.h"

namespace boxo::kernel {

namespace {

constexpr std::string_view kTracepoint = "tp_btf/", kRaw = "raw_tp/";

/// Of a metric with more rows than this only those that have happened are exported. The others are there from the start:
/// to increase() what a row begins with has not happened.
constexpr std::size_t kLongList = 16;

std::string_view section_of(const bpf_program* program) {
  return ::bpf_program__section_name(program);
}

bool is_iterator(const bpf_program* program) { return section_of(program).starts_with("iter"); }
bool is_of_cgroup(const bpf_program* program) { return section_of(program).starts_with("cgroup"); }

/// Why this kernel does not tell what the metric is about; empty if it does.
std::string untold(const ProbeMetric& metric, const KernelTypes& types) {
  if (metric.tracepoint.empty()) return {};
  const auto args = types.tracepoint_args(metric.tracepoint);
  if (!args) return "this kernel has no tracepoint " + metric.tracepoint + ": " + kSeeKernels;
  return *args >= metric.arguments ? std::string() : "the tracepoint " + metric.tracepoint + " tells too little on this kernel: " + kSeeKernels;
}

/// "filesystem xfs: "
std::string text_of(const Labels& labels) {
  std::string text;
  for (const Label& label : labels) text += (text.empty() ? "" : ", ") + label.name + " " + label.value;
  return text.empty() ? text : text + ": ";
}

/// Programs in a section "?tp_btf/NAME" or "?raw_tp/NAME": the tracepoint is not on every kernel. libbpf takes the mark
/// off and does not load them by itself.
std::set<const bpf_program*> optional_programs(const bpf_object* object) {
  std::set<const bpf_program*> found;
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object) {
    if (!::bpf_program__autoload(program)) found.insert(program);
  }
  return found;
}

void choose_programs(bpf_object* object, const KernelTypes& types) {
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object) {
    const std::string_view section = section_of(program);
    if (::bpf_program__autoload(program)) continue;
    // A raw tracepoint may be a module's: only attaching tells.
    const bool there = section.starts_with(kRaw) ||
                       types.tracepoint_args(std::string(section.substr(kTracepoint.size()))).has_value();
    ::bpf_program__set_autoload(program, there);
  }
}

void choose_maps(bpf_object* object, const LoadContext& context) {
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object) {
    const std::string name = ::bpf_map__name(map);
    if (name.starts_with(".rodata.")) ::bpf_map__set_autocreate(map, false);  // only for user space
    if (name == (context.task_storage ? "threads_by_tid" : "threads")) {
      ::bpf_map__set_autocreate(map, false);
    } else if (const auto it = context.shared.find(name); it != context.shared.end()) {
      ::bpf_map__reuse_fd(map, it->second);
    }
  }
}

/// `const volatile u32 args_of_NAME` is how many arguments the tracepoint NAME has here: some lost or gained one.
void set_constants(bpf_object* object, const LoadContext& context) {
  set_constant(object, "task_storage", &context.task_storage, sizeof(context.task_storage));
  set_constant(object, "agent_pidns", &context.pidns, sizeof(context.pidns));
  const auto page = static_cast<std::uint32_t>(::sysconf(_SC_PAGESIZE));
  set_constant(object, "page_size", &page, sizeof(page));
  // The coarse clock steps once a tick of the kernel, whose length is told nowhere else.
  timespec tick{};
  ::clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
  const auto jiffy = static_cast<std::uint64_t>(tick.tv_nsec);
  set_constant(object, "jiffy_ns", &jiffy, sizeof(jiffy));
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object) {
    const std::string_view section = section_of(program);
    if (!section.starts_with(kTracepoint)) continue;
    const std::string name(section.substr(kTracepoint.size()));
    if (const auto args = context.types->tracepoint_args(name))
      set_constant(object, ("args_of_" + name).c_str(), &*args, sizeof(*args));
  }
}

}  // namespace

Result<Probe> Probe::load(const Description& description, const LoadContext& context) {
  bool casts = context.casts && context.types->rdonly_cast() != 0;
  auto probe = load(description, context, casts);
  // Without it what it makes faster works all the same.
  if (!probe && casts && probe.error().code != EPERM && probe.error().code != ENOMEM) {
    const Error why = probe.error();
    casts = false;
    probe = load(description, context, casts);
    if (probe) probe->slower_ = why;
  }
  return probe;
}

Result<Probe> Probe::load(const Description& description, const LoadContext& context, bool& casts) {
  Messages messages;
  const bool may_cast = std::exchange(casts, false);
  auto object = open_object(description.object);
  if (!object) return object.error();
  auto optional = optional_programs(object->get());
  choose_programs(object->get(), *context.types);
  choose_maps(object->get(), context);
  set_constants(object->get(), context);
  casts = may_cast && set_rdonly_cast(object->get(), context.types->rdonly_cast());
  Probe probe(description, std::move(*object));
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, probe.object_.get()) {
    if (is_of_cgroup(program)) probe.in_cgroup_.push_back(program);
  }
  if (const int error = ::bpf_object__load(probe.object_.get()); error != 0) return probe.refused(-error, messages);

  const auto cpus = static_cast<std::size_t>(::libbpf_num_possible_cpus());
  probe.optional_ = std::move(optional);
  probe.runs_ = probe.map_fd("runs");
  probe.runs_values_.resize(cpus);
  bpf_object__for_each_program(program, probe.object_.get()) {
    if (::bpf_program__autoload(program) && !is_iterator(program))
      probe.programs_.push_back(::bpf_program__fd(program));
  }
  if (auto opened = probe.open_ring(); !opened) return opened.error();
  for (const ProbeMetric& metric : description.metrics) {
    const int fd = probe.map_fd(metric.map);
    if (fd < 0) return Error{"no map " + metric.map, "a fault of this build of the agent; please report it"};
    if (metric.by_remote) {
      if (!probe.remotes_) probe.remotes_.emplace(fd, probe.map_fd("unlisted"), context.own_remotes);
      continue;
    }
    if (std::string reason = untold(metric, *context.types); !reason.empty()) {
      probe.unknown_.emplace(&metric, std::move(reason));
      continue;
    }
    const std::size_t words = metric.bounds.empty() ? 1 : sizeof(hist) / sizeof(std::uint64_t);
    probe.sources_.push_back({&metric, fd, words, words * cpus});
    if (const std::size_t all = metric.rows.size() * words * cpus; all > probe.values_.size()) probe.values_.resize(all);
  }
  return probe;
}

Result<> Probe::attach() {
  Messages messages;
  missing_.clear();
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object_.get()) {
    const auto miss = [&](const std::string& when) {
      const std::string_view section = section_of(program);
      missing_[::bpf_program__name(program)] =
          "this kernel has no tracepoint " + std::string(section.substr(section.find('/') + 1)) + when;
    };
    if (!::bpf_program__autoload(program)) miss(std::string(": ") + kSeeKernels);
    if (!::bpf_program__autoload(program) || is_iterator(program) || is_of_cgroup(program)) continue;
    LinkPtr link(::bpf_program__attach(program));
    if (!link && errno == ENOENT && optional_.contains(program)) {
      miss(", or its module was not loaded yet: start the agent after that");
      continue;
    }
    if (!link) {
      const int code = errno;
      links_.clear();
      return Error{messages.reason(code), {}, code};
    }
    links_.push_back(std::move(link));
  }
  if (links_.empty() && !programs_.empty()) return Error{"this kernel has none of its tracepoints", kSeeKernels};
  return {};
}

void Probe::detach() {
  links_.clear();
  cgroup_links_.clear();
  group_ = {};
}

Error Probe::refused(int code, const Messages& messages) const {
  const std::string missing = code == EPERM && in_cgroup() ? missing_for_cgroup() : std::string();
  return {missing.empty() ? messages.reason(code) : missing, {}, code};
}

Result<> Probe::enter(const Dir& group) {
  Messages messages;
  struct stat info {};
  if (::fstat(group.fd(), &info) != 0) return errno_error("cgroup");
  if (!cgroup_links_.empty() && group_ == std::pair(info.st_dev, info.st_ino)) return {};
  std::vector<LinkPtr> links;
  const std::uint32_t turn = 1 - turn_;
  for (const bpf_program* program : in_cgroup_) {
    if (std::string_view(::bpf_program__name(program)).ends_with(turn_ == 0 ? "_turn0" : "_turn1")) continue;
    links.emplace_back(::bpf_program__attach_cgroup(program, group.fd()));
    const int code = errno;
    if (!links.back() && code == EPERM && missing_for_cgroup().empty())
      return Error{"not permitted: a program in this cgroup, or in one above it, admits no other",
                   "bpftool cgroup tree shows which", code};
    if (!links.back()) return refused(code, messages);
  }
  const std::uint32_t zero = 0;
  if (const int map = map_fd("turn"); map >= 0 && ::bpf_map_update_elem(map, &zero, &turn, BPF_ANY) != 0)
    return errno_error("map turn");
  turn_ = turn;
  cgroup_links_ = std::move(links);
  group_ = {info.st_dev, info.st_ino};
  return {};
}

/// All rows by one call, where the kernel can: arrays with a part for every CPU since Linux 5.13 (f008d732ab18).
Result<> Probe::read(const Source& source) {
  const std::size_t rows = source.metric->rows.size();
  const std::uint32_t first = source.metric->first;
  std::uint32_t before = first - 1;
  if (in_batches_) {
    auto count = static_cast<__u32>(rows);
    std::uint32_t last = 0;
    keys_.resize(rows);
    const int error = ::bpf_map_lookup_batch(source.fd, first == 0 ? nullptr : &before, &last, keys_.data(),
                                             values_.data(), &count, nullptr);
    if (error == 0 && count == rows) return {};
    in_batches_ = false;
  }
  for (std::size_t row = 0; row < rows; ++row) {
    const auto index = first + static_cast<std::uint32_t>(row);
    if (::bpf_map_lookup_elem(source.fd, &index, values_.data() + row * source.row_size) != 0)
      return errno_error("map " + source.metric->map);
  }
  return {};
}

/// Per-CPU elements are read as words: the row's part of CPU c starts at c * words.
void Probe::sum(const Source& source, std::size_t row, std::vector<std::uint64_t>& total) const {
  total.assign(source.words, 0);
  for (std::size_t i = 0; i < source.row_size; ++i) total[i % source.words] += values_[row * source.row_size + i];
}

std::string Probe::untold_row(const ProbeMetric& metric, std::size_t row) const {
  if (metric.programs.empty() || !metric.data_on.empty()) return {};
  const auto it = missing_.find(metric.programs[row]);
  return it == missing_.end() ? std::string() : it->second;
}

std::string Probe::untold_on(const ProbeMetric& metric, const std::string& filesystem) const {
  if (metric.data_on.front() == "*") return {};
  const auto it = std::ranges::find(metric.data_on, filesystem);
  if (it == metric.data_on.end()) return "the data directory is on none of the file systems that tell of it: ext4 and xfs do";
  if (metric.programs.empty()) return {};
  const auto miss = missing_.find(metric.programs[static_cast<std::size_t>(it - metric.data_on.begin())]);
  return miss == missing_.end() ? std::string() : miss->second;
}

std::string Probe::pointless(const ProbeMetric& metric, const Setting& setting) const {
  if (metric.needs_cgroup && !setting.no_cgroup.empty()) return setting.no_cgroup;
  if (metric.data_on.empty()) return {};
  if (!setting.no_data.empty()) return setting.no_data;
  if (std::string reason = untold_on(metric, setting.filesystem); !reason.empty()) return reason;
  const auto unplaced = map_fd("unplaced") < 0 ? Result<std::uint64_t>(0) : counter("unplaced", 0);
  return unplaced && *unplaced == 0 ? std::string() : std::string("this kernel does not say where the target wrote or read: ") + kSeeKernels;
}

Result<> Probe::collect(Snapshot& out, const Setting& setting) {
  for (const auto& [metric, reason] : unknown_) out.absent(metric->exported.name, reason);
  if (remotes_) {
    if (auto read = remotes_->read(); !read) return read;
    for (const ProbeMetric& metric : description_->metrics)
      if (metric.by_remote) remotes_->add(metric, out);
  }
  for (const Source& source : sources_) {
    const ProbeMetric& metric = *source.metric;
    if (const std::string reason = pointless(metric, setting); !reason.empty()) {
      out.absent(metric.exported.name, reason);
      continue;
    }
    if (auto done = read(source); !done) return done;
    Family& family = out.family(metric.exported);
    const bool is_long = metric.rows.size() > kLongList;
    for (std::size_t row = 0; row < metric.rows.size(); ++row) {
      if (row < 32 && (metric.not_measured >> row & 1U) != 0) continue;
      if (const std::string reason = untold_row(metric, row); !reason.empty()) {
        out.absent(metric.exported.name, text_of(metric.rows[row]) + reason);
        continue;
      }
      sum(source, row, total_);
      if (metric.bounds.empty()) {
        if (total_[0] == 0 && is_long) continue;
        family.samples.push_back({metric.rows[row], static_cast<double>(total_[0]) * metric.scale});
        continue;
      }
      // struct hist: the sum, then the slots.
      const std::uint64_t samples = std::accumulate(total_.begin() + 1, total_.end(), std::uint64_t{0});
      if (samples == 0 && is_long) continue;
      Histogram histogram{metric.bounds, {}, static_cast<double>(total_[0]) * metric.scale};
      histogram.counts.assign(metric.bounds.size() + 1, 0);
      for (std::size_t slot = 0; slot + 1 < total_.size(); ++slot)
        histogram.counts[std::min(slot, metric.bounds.size())] += total_[slot + 1];
      family.samples.push_back({metric.rows[row], std::move(histogram)});
    }
  }
  return {};
}

Result<> Probe::remember() const {
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object_.get()) {
    const std::string name = ::bpf_program__name(program);
    if (!name.starts_with("remember")) continue;
    if (auto done = iterate(name); !done) return done;
  }
  return {};
}

Result<> Probe::open_ring() {
  const bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object_.get()) {
    if (::bpf_map__type(map) != BPF_MAP_TYPE_RINGBUF) continue;
    taken_ = std::make_unique<std::string>();
    const auto keep = [](void* to, void* record, std::size_t size) {
      static_cast<std::string*>(to)->append(static_cast<const char*>(record), size);
      return 0;
    };
    ring_.reset(::ring_buffer__new(::bpf_map__fd(map), keep, taken_.get(), nullptr));
    if (!ring_) return errno_error(std::string("map ") + ::bpf_map__name(map));
  }
  return {};
}

Result<> Probe::take_records(std::string& out) {
  out.clear();
  if (!ring_) return {};
  const int taken = ::ring_buffer__consume(ring_.get());
  out.swap(*taken_);
  return taken < 0 ? errno_error("ring of " + std::string(description_->object.name), {}, -taken) : Result<>();
}

std::optional<std::uint64_t> missed_runs(const bpf_prog_info& info, std::uint32_t size) {
  // Since Linux 5.12 (9ed9e9ba2337).
  constexpr std::size_t kEnd = offsetof(bpf_prog_info, recursion_misses) + sizeof(info.recursion_misses);
  return size >= kEnd ? std::optional<std::uint64_t>(info.recursion_misses) : std::nullopt;
}

RunStats Probe::stats() {
  RunStats stats;
  const std::uint32_t index = 0;
  if (runs_ >= 0 && ::bpf_map_lookup_elem(runs_, &index, runs_values_.data()) == 0)
    for (const runs& cpu : runs_values_) {
      stats.runs += cpu.runs;
      stats.sampled += cpu.sampled;
      stats.sampled_nanoseconds += cpu.sampled_ns;
    }
  for (const int fd : programs_) {
    bpf_prog_info info{};
    __u32 size = sizeof(info);
    if (::bpf_obj_get_info_by_fd(fd, &info, &size) != 0) continue;
    const auto missed = missed_runs(info, size);
    stats.missed = stats.missed && missed ? std::optional(*stats.missed + *missed) : std::nullopt;
    stats.kernel_runs += info.run_cnt;
    stats.kernel_nanoseconds += info.run_time_ns;
  }
  return stats;
}

Result<std::uint64_t> Probe::counter(const std::string& map, std::uint32_t index) const {
  std::vector<std::uint64_t> values(static_cast<std::size_t>(::libbpf_num_possible_cpus()));
  if (::bpf_map_lookup_elem(map_fd(map), &index, values.data()) != 0) return errno_error(map);
  return std::accumulate(values.begin(), values.end(), std::uint64_t{0});
}

std::uint64_t Probe::full() const {
  const auto events = counter("full", 0);
  return events ? *events : 0;
}

int Probe::map_fd(const std::string& name) const {
  return ::bpf_object__find_map_fd_by_name(object_.get(), name.c_str());
}

Result<> Probe::iterate(const std::string& name, Only only) const {
  return run_iterator(name, only, 1, [](std::string_view) {});
}

Result<> Probe::run_iterator(const std::string& name, Only only, std::size_t record, const TakeRecords& take) const {
  Messages messages;
  const bpf_program* program = ::bpf_object__find_program_by_name(object_.get(), name.c_str());
  if (program == nullptr) return Error{"no program " + name, "a fault of this build of the agent; please report it"};
  bpf_iter_link_info info{};
  info.task.pid = static_cast<std::uint32_t>(only.process);
  info.task.tid = static_cast<std::uint32_t>(only.thread);
  bpf_iter_attach_opts options{};
  options.sz = sizeof(options);
  options.link_info = &info;
  options.link_info_len = sizeof(info);
  const LinkPtr link(::bpf_program__attach_iter(program, only.process != 0 || only.thread != 0 ? &options : nullptr));
  if (!link) return Error{messages.reason(errno), {}, errno};
  const Fd fd(::bpf_iter_create(::bpf_link__fd(link.get())));
  if (!fd) return errno_error("iterator " + name);
  // As much as the kernel gives at once where pages have 4 KiB; elsewhere it may divide a record.
  std::array<char, 32768> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init): the kernel fills it
  std::size_t rest = 0;
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer.data() + rest, buffer.size() - rest);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("iterator " + name);
    if (n == 0) return {};
    const std::size_t there = rest + static_cast<std::size_t>(n), whole = there - there % record;
    take({buffer.data(), whole});
    rest = there - whole;
    std::memmove(buffer.data(), buffer.data() + whole, rest);
  }
}

}  // namespace boxo::kernel
