// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "collectors/fd.h"
#include "collectors/kernel_reader.h"
#include "collectors/result.h"
#include "collectors/target.h"

namespace boxo::host {

/// The room of one file system, in bytes and in inodes.
struct Space {
  std::string path;  ///< the directory it was asked of, as the target or the agent sees it
  std::uint64_t total = 0;
  std::uint64_t used = 0;
  std::uint64_t available = 0;  ///< to a process without privileges; less than total - used
  std::uint64_t inodes = 0;     ///< 0: as many as there is room for
  std::uint64_t inodes_used = 0;
  std::uint64_t inodes_available = 0;
  Result<DataPlace> place = DataPlace{};  ///< what it lies on, or why that is not known
};

/// The file system that holds the target's data: `data_dir` if it is not empty, as the target sees it or else
/// as the agent sees it; else the target's IPFS_PATH; else its working directory. `process` is its /proc
/// directory. May block for as long as a network file system does not answer.
Result<Space> measure_space(const Dir& process, const std::string& data_dir);

/// Measures without ever holding up the caller for more than `patience`. Promises: at most one measurement
/// runs at a time, in a thread of its own that lives as long as the measurement; a file system that hangs
/// costs one thread.
class SpaceWatch {
 public:
  explicit SpaceWatch(std::string data_dir,
                      std::chrono::milliseconds patience = std::chrono::milliseconds(50))
      : data_dir_(std::move(data_dir)), patience_(patience) {}

  /// What is known now; measured anew if the last is older than a second.
  Result<Space> get(const Process& process);

 private:
  using Clock = std::chrono::steady_clock;
  struct Shared {
    std::mutex mutex;
    std::condition_variable done;
    bool running = false;
    Clock::time_point at;
    ProcessId of;
    std::optional<Result<Space>> result;
  };

  const std::string data_dir_;
  const std::chrono::milliseconds patience_;
  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

}  // namespace boxo::host
