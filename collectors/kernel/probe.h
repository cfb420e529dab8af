// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "collectors/fd.h"
#include "collectors/kernel/description.h"
#include "collectors/kernel/libbpf.h"
#include "collectors/kernel/remote_map.h"

struct bpf_map;
struct bpf_prog_info;
struct bpf_program;

namespace boxo::kernel {

/// What all probes of one agent are loaded with.
struct LoadContext {
  const KernelTypes* types = nullptr;
  std::map<std::string, int> shared;  ///< maps made by the first probe, by name: the others use the same
  bool task_storage = true;           ///< whether this kernel has task storage for tracing programs (5.12)
  std::uint32_t pidns = 0;            ///< inode of the agent's pid namespace
  std::size_t own_remotes = 100;      ///< how many remote addresses have series of their own
  bool casts = true;                  ///< whether programs may call bpf_rdonly_cast, where the kernel has it
};

/// What some metrics are absent without; of the target. Each is why it is not there, empty if it is.
struct Setting {
  std::string no_cgroup;        ///< a cgroup of its own
  std::string no_data;          ///< devices that its data directory is known to lie on
  std::string filesystem = {};  ///< of the data directory; "" for any other than DataPlace names
};

/// What the probe's programs have cost.
struct RunStats {
  std::uint64_t runs = 0;
  std::uint64_t sampled = 0;             ///< how many of them were timed
  std::uint64_t sampled_nanoseconds = 0;
  /// Not run because the same program was already running on that CPU; nothing where the kernel does not count that.
  std::optional<std::uint64_t> missed = 0;
  /// The kernel's own account, which stands still unless somebody asked for it (BPF_ENABLE_STATS).
  std::uint64_t kernel_runs = 0, kernel_nanoseconds = 0;
};

/// Out of what the kernel says of a program, of which it filled in `size` bytes: old ones know fewer fields.
std::optional<std::uint64_t> missed_runs(const bpf_prog_info& info, std::uint32_t size);

/// One loaded and attached BPF object. Its programs are gone when it is destroyed.
class Probe {
 public:
  static Result<Probe> load(const Description& description, const LoadContext& context);

  /// Attaches every program that attaches to a hook, but for those of a cgroup; called once.
  Result<> attach();
  /// Takes every program off its hook; attach() and enter() may be called again.
  void detach();
  /// Whether it has programs that count in a cgroup.
  bool in_cgroup() const { return !in_cgroup_.empty(); }
  /// Attaches those to the group (of version 2) and takes them off the one that they were in. Programs whose names end with
  /// _turn0 and _turn1 do so by turns, and the map `turn` says whose it is: none counts together with the other.
  Result<> enter(const Dir& group);

  /// Adds what the probe has counted so far.
  Result<> collect(Snapshot& out, const Setting& setting = {});
  RunStats stats();
  /// One element of a map of counters, which all CPUs have a part of.
  Result<std::uint64_t> counter(const std::string& map, std::uint32_t index) const;
  /// Events that found the probe's own maps full; 0 if it has no map that can fill.
  std::uint64_t full() const;

  int map_fd(const std::string& name) const;
  /// Of whom an iterator tells.
  struct Only {
    pid_t process = 0;  ///< this one, with all its threads; 0: every process
    pid_t thread = 0;   ///< this one alone
  };
  /// Runs the iterator program `name`, which writes nothing, to its end. For one process or thread it needs Linux 6.1 (code
  /// E2BIG before).
  Result<> iterate(const std::string& name, Only only) const;
  Result<> iterate(const std::string& name) const { return iterate(name, Only()); }
  /// The same for one that writes records; each(record) is called for each of them.
  template <class Record, class Each>
  Result<> iterate(const std::string& name, Only only, Each each) const {
    return run_iterator(name, only, sizeof(Record), [&each](std::string_view records) {
      for (; !records.empty(); records.remove_prefix(sizeof(Record))) {
        Record record;
        std::memcpy(&record, records.data(), sizeof(Record));
        each(std::as_const(record));
      }
    });
  }

  /// Takes the records out of the probe's ring; they replace `out`. Nothing if it has none.
  Result<> take_records(std::string& out);

  /// New processes belong to the target: what the probe needs to know of them is what its iterators remember… find.
  Result<> remember() const;

  const Description& description() const { return *description_; }
  /// Why the kernel took its programs only without bpf_rdonly_cast, with which they are faster; nothing if it took them with it or
  /// has no such function.
  const std::optional<Error>& slower() const { return slower_; }

 private:
  struct Source {
    const ProbeMetric* metric;
    int fd;
    std::size_t words;     ///< of one element on one CPU
    std::size_t row_size;  ///< on all CPUs together
  };
  Probe(const Description& description, ObjectPtr object) : description_(&description), object_(std::move(object)) {}
  /// Without bpf_rdonly_cast if `casts` is false; it becomes whether the programs call that.
  static Result<Probe> load(const Description& description, const LoadContext& context, bool& casts);
  Result<> open_ring();
  using TakeRecords = std::function<void(std::string_view records)>;
  /// Hands on what the program writes, `record` bytes or a multiple of them at once.
  Result<> run_iterator(const std::string& name, Only only, std::size_t record, const TakeRecords& take) const;
  Error refused(int code, const Messages& messages) const;
  /// Why nobody tells of this row; empty if somebody does.
  std::string untold_row(const ProbeMetric& metric, std::size_t row) const;
  /// Why nobody tells of it on this file system of the data directory; empty if somebody does.
  std::string untold_on(const ProbeMetric& metric, const std::string& filesystem) const;
  /// Why the metric says nothing of this target; empty if it does.
  std::string pointless(const ProbeMetric& metric, const Setting& setting) const;
  /// All rows, to values_.
  Result<> read(const Source& source);
  void sum(const Source& source, std::size_t row, std::vector<std::uint64_t>& total) const;

  const Description* description_;
  ObjectPtr object_;
  std::optional<Error> slower_;
  std::vector<LinkPtr> links_;
  std::vector<const bpf_program*> in_cgroup_;
  std::vector<LinkPtr> cgroup_links_;
  std::pair<dev_t, ino_t> group_{};  ///< where they are
  std::uint32_t turn_ = 1;           ///< whose turn it is there
  std::optional<RemoteMap> remotes_;
  std::map<const ProbeMetric*, std::string> unknown_;  ///< what this kernel does not tell, and why
  std::set<const bpf_program*> optional_;  ///< those whose tracepoint may be missing
  std::map<std::string, std::string> missing_;  ///< those whose tracepoint is, by name, and why
  std::vector<int> programs_;              ///< those that attach to a hook
  std::vector<Source> sources_;
  bool in_batches_ = true;  ///< as long as that works
  std::vector<std::uint32_t> keys_;
  std::vector<std::uint64_t> values_;  ///< room for the longest source
  std::vector<std::uint64_t> total_;
  RingPtr ring_;
  std::unique_ptr<std::string> taken_;  ///< where ring_ puts the records
  int runs_ = -1;
  std::vector<runs> runs_values_;
};

}  // namespace boxo::kernel
