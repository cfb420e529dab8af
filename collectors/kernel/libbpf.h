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
struct ring_buffer;

namespace boxo::kernel {

/// The mend where the kernel is too old or made without something.
inline constexpr const char* kSeeKernels = "docs/probes.md and docs/kernels.md say which kernels do";

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
struct FreeRing {
  void operator()(ring_buffer* ring) const;
};
using RingPtr = std::unique_ptr<ring_buffer, FreeRing>;
using ObjectPtr = std::unique_ptr<bpf_object, CloseObject>;
using LinkPtr = std::unique_ptr<bpf_link, DestroyLink>;

/// Parses the object; loads nothing.
Result<ObjectPtr> open_object(const EmbeddedProbe& embedded);

/// Sets a variable of the object's .rodata before it is loaded. False if it has none with this name and size.
bool set_constant(bpf_object* object, const char* name, const void* value, std::size_t size);

/// Lets the object's programs call the kernel's function with this number where bpf/calls.h calls for it, before they are
/// loaded. False if they do not.
bool set_rdonly_cast(bpf_object* object, std::uint32_t function);

/// What the running kernel has, as its BTF tells. Read once and then only what is needed is kept: libbpf reads the same
/// megabytes again for every object, and two copies at a time would be too many for a small container.
class KernelTypes {
 public:
  static Result<KernelTypes> read();

  /// How many arguments the tracepoint passes on; nothing if the kernel has no such tracepoint.
  std::optional<std::uint32_t> tracepoint_args(const std::string& name) const;
  /// The number of the function bpf_rdonly_cast; 0 if the kernel has none.
  std::uint32_t rdonly_cast() const { return rdonly_cast_; }

 private:
  std::map<std::string, std::uint32_t> tracepoints_;
  std::uint32_t rdonly_cast_ = 0;
};

}  // namespace boxo::kernel
