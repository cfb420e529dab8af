// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <string>

#include "collectors/fd.h"
#include "collectors/kernel_reader.h"
#include "collectors/result.h"

namespace boxo::host {

/// The file system that holds the open directory `data`, and the block devices below it: those that device mapper, md and the
/// like put together are followed down to the disks or their partitions. `process` is the /proc directory of the target, whose
/// mounts tell what a file system without a device number of its own lies on. An Error where there is no block device.
Result<DataPlace> place_of_data(const Fd& data, const Dir& process, const std::string& sysfs = "/sys");

}  // namespace boxo::host
