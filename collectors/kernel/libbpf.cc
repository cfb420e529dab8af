// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/libbpf.h"

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <unistd.h>

#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <vector>

#include "bpf/calls.h"
#include "collectors/fd.h"
#include "collectors/kernel/privileges.h"

namespace boxo::kernel {

namespace {

thread_local Messages* listener = nullptr;
constexpr std::size_t kMaxText = 1 << 16;

std::vector<std::string_view> lines(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    out.push_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return out;
}

/// The last thing the verifier said before its statistics: what it refused.
std::string verifier_verdict(std::string_view text) {
  std::string_view last;
  for (const std::string_view line : lines(text)) {
    if (line.starts_with("processed ")) return std::string(last);
    if (!line.empty() && line.find("PROG LOAD LOG") == std::string_view::npos) last = line;
  }
  return {};
}

}  // namespace

struct MessageSink {
  static int print(enum libbpf_print_level level, const char* format, va_list args) {
    if (listener == nullptr || level == LIBBPF_DEBUG) return 0;
    va_list again;
    va_copy(again, args);
    const int size = std::vsnprintf(nullptr, 0, format, again);
    va_end(again);
    std::string& text = listener->text_;
    if (size <= 0 || text.size() > kMaxText) return 0;
    const std::size_t used = text.size();
    text.resize(used + static_cast<std::size_t>(size) + 1);
    std::vsnprintf(text.data() + used, static_cast<std::size_t>(size) + 1, format, args);
    text.pop_back();
    // A verifier log may be megabytes; its verdict stands at the end.
    if (text.size() > kMaxText) text.erase(0, text.size() - kMaxText);
    return 0;
  }
};

Messages::Messages() {
  ::libbpf_set_print(&MessageSink::print);
  listener = this;
}

Messages::~Messages() { listener = nullptr; }

std::string Messages::reason(int code) const {
  if (std::string lockdown = locked_down(); !lockdown.empty()) return lockdown;
  if (const std::string verdict = verifier_verdict(text_); !verdict.empty() && code != EPERM)
    return "refused by the verifier: " + verdict + " (docs/kernels.md says on which kernels this works; on another one please report it)";
  // "failed to find kernel BTF type ID of 'btf_trace_NAME'" and "prog 'f': failed to find …" of newer versions.
  if (const std::size_t at = text_.find("btf_trace_"); at != std::string::npos && (code == ESRCH || code == ENOENT)) {
    const std::size_t begin = at + std::strlen("btf_trace_");
    return "this kernel has no tracepoint " + text_.substr(begin, text_.find_first_of("' \n", begin) - begin) + ": " + kSeeKernels;
  }
  if (code == EPERM || code == EACCES) return missing_privileges();
  std::string out = std::strerror(code);
  if (code == ENOMEM) out += ": raise the memory limit of the agent, which pays for the probe's maps";
  const auto said = lines(text_);
  if (!said.empty()) {
    std::string_view first = said.front();
    if (first.starts_with("libbpf: ")) first.remove_prefix(8);
    out += " (" + std::string(first.substr(0, 200)) + ")";
  }
  return out;
}

void CloseObject::operator()(bpf_object* object) const { ::bpf_object__close(object); }
void FreeRing::operator()(ring_buffer* ring) const { ::ring_buffer__free(ring); }
void DestroyLink::operator()(bpf_link* link) const { ::bpf_link__destroy(link); }

Result<ObjectPtr> open_object(const EmbeddedProbe& embedded) {
  const std::string name(embedded.name);
  bpf_object_open_opts options{};
  options.sz = sizeof(options);
  options.object_name = name.c_str();
  // For a type that this kernel does not have libbpf looks through the kernel's modules, too, and fails where it may not.
  // It does not look there if it is told where the types are, but then reads them twice.
  if (!has_capability(CAP_SYS_ADMIN)) options.btf_custom_path = "/sys/kernel/btf/vmlinux";
  ObjectPtr object(::bpf_object__open_mem(embedded.data, embedded.size, &options));
  if (!object) return errno_error(name);
  return object;
}

bool set_constant(bpf_object* object, const char* name, const void* value, std::size_t size) {
  const btf* types = ::bpf_object__btf(object);
  const int section = types != nullptr ? ::btf__find_by_name_kind(types, ".rodata", BTF_KIND_DATASEC) : -1;
  if (section < 0) return false;
  const btf_type* type = ::btf__type_by_id(types, static_cast<std::uint32_t>(section));
  for (std::uint32_t i = 0; i < BTF_INFO_VLEN(type->info); ++i) {
    const btf_var_secinfo& variable = ::btf_var_secinfos(type)[i];
    const char* found = ::btf__name_by_offset(types, ::btf__type_by_id(types, variable.type)->name_off);
    if (found == nullptr || std::strcmp(found, name) != 0 || variable.size != size) continue;
    bpf_map* map = nullptr;
    bpf_object__for_each_map(map, object) {
      const std::string_view map_name = ::bpf_map__name(map);
      std::size_t room = 0;
      if (!map_name.ends_with(".rodata")) continue;
      // Returned as const by some versions of libbpf; before loading it may be written.
      void* data = const_cast<void*>(static_cast<const void*>(::bpf_map__initial_value(map, &room)));
      if (data == nullptr || variable.offset + size > room) continue;
      std::memcpy(static_cast<char*>(data) + variable.offset, value, size);
      return true;
    }
  }
  return false;
}

bool set_rdonly_cast(bpf_object* object, std::uint32_t function) {
  const bool has = true;
  bool calls = false;
  if (!set_constant(object, "has_rdonly_cast", &has, sizeof(has))) return false;
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object) {
    // Returned as const; before loading it may be written.
    auto* const code = const_cast<bpf_insn*>(::bpf_program__insns(program));
    for (std::size_t i = 0; i < ::bpf_program__insn_cnt(program); ++i) {
      if (code[i].code != (BPF_JMP | BPF_CALL) || code[i].src_reg != 0 || code[i].imm != CALL_RDONLY_CAST) continue;
      code[i].src_reg = BPF_PSEUDO_KFUNC_CALL;
      code[i].imm = static_cast<std::int32_t>(function);
      calls = true;
    }
  }
  return calls;
}

namespace {

struct FreeTypes {
  void operator()(btf* types) const { ::btf__free(types); }
};

/// typedef -> pointer -> function prototype, whose first argument is the probe's own data.
std::optional<std::uint32_t> arguments(const btf* types, const btf_type* type) {
  for (int depth = 0; type != nullptr && depth < 4; ++depth) {
    if (BTF_INFO_KIND(type->info) == BTF_KIND_FUNC_PROTO) return BTF_INFO_VLEN(type->info) - 1;
    type = ::btf__type_by_id(types, type->type);
  }
  return std::nullopt;
}

/// libbpf says ESRCH whatever the cause.
Error why_no_types() {
  constexpr const char* kTypes = "/sys/kernel/btf/vmlinux";
  const Fd file(::open(kTypes, O_RDONLY | O_CLOEXEC));
  if (!file && errno != ENOENT)
    return errno_error(std::string("the kernel's types cannot be read: ") + kTypes,
                       errno == EMFILE || errno == ENFILE ? "raise the limit of open files (ulimit -Hn)" : "");
  if (file) return Error{std::string("the kernel's types cannot be read: ") + kTypes + " opens, but is not of the known form, or memory is short", "docs/kernels.md says which kernels do"};
  return Error{std::string("this kernel does not describe its types (no ") + kTypes + ")",
               "eBPF probes need a kernel built with CONFIG_DEBUG_INFO_BTF", ENOENT};
}

}  // namespace

Result<KernelTypes> KernelTypes::read() {
  Messages messages;
  const std::unique_ptr<btf, FreeTypes> types(::btf__load_vmlinux_btf());
  if (!types) return why_no_types();
  constexpr std::string_view kPrefix = "btf_trace_";
  KernelTypes out;
  for (std::uint32_t id = 1; id < ::btf__type_cnt(types.get()); ++id) {
    const btf_type* type = ::btf__type_by_id(types.get(), id);
    const auto kind = BTF_INFO_KIND(type->info);
    if (kind != BTF_KIND_TYPEDEF && kind != BTF_KIND_FUNC) continue;
    const char* name = ::btf__name_by_offset(types.get(), type->name_off);
    if (kind == BTF_KIND_FUNC) {
      if (name != nullptr && std::strcmp(name, "bpf_rdonly_cast") == 0) out.rdonly_cast_ = id;
      continue;
    }
    if (name == nullptr || !std::string_view(name).starts_with(kPrefix)) continue;
    if (const auto args = arguments(types.get(), type)) out.tracepoints_[name + kPrefix.size()] = *args;
  }
  return out;
}

std::optional<std::uint32_t> KernelTypes::tracepoint_args(const std::string& name) const {
  const auto it = tracepoints_.find(name);
  if (it == tracepoints_.end()) return std::nullopt;
  return it->second;
}

}  // namespace boxo::kernel
