// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "collectors/kernel/probes.h"
#include "collectors/result.h"

struct bpf_link;
struct bpf_object;

namespace boxo::kernel {

/// While it lives, what libbpf has to say goes here and not to standard error. One at a time a thread.
class Messages {
 public:
  Messages();
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;
  Messages(Messages&&) = delete;
  Messages& operator=(Messages&&) = delete;
  ~Messages();

  /// Why the kernel refused, in one line: made of what libbpf and the verifier said and of `code` (an errno).
  std::string reason(int code) const;
  const std::string& text() const { return text_; }

 private:
  friend struct MessageSink;
  std::string text_;
};

struct CloseObject {
  void operator()(bpf_object* object) const;
};
struct DestroyLink {
  void operator()(bpf_link* link) const;
};
using ObjectPtr = std::unique_ptr<bpf_object, CloseObject>;
using LinkPtr = std::unique_ptr<bpf_link, DestroyLink>;

/// Parses the object; loads nothing.
Result<ObjectPtr> open_object(const EmbeddedProbe& embedded);

/// Sets a variable of the object's .rodata before it is loaded. False if it has none with this name and size.
bool set_constant(bpf_object* object, const char* name, const void* value, std::size_t size);

/// What the running kernel has, as its BTF tells. Read once and then only what is needed is kept: libbpf reads the same
/// megabytes again for every object, and two copies at a time would be too many for a small container.
class KernelTypes {
 public:
  static Result<KernelTypes> read();

  /// How many arguments the tracepoint passes on; nothing if the kernel has no such tracepoint.
  std::optional<std::uint32_t> tracepoint_args(const std::string& name) const;

 private:
  std::map<std::string, std::uint32_t> tracepoints_;
};

}  // namespace boxo::kernel
