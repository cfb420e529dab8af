// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/host/socket_sources.h"

#include <cerrno>
#include <memory>
#include <utility>

#include "collectors/host/sock_diag.h"
#include "collectors/reading.h"

namespace boxo::host {

namespace {

/// Each question for a protocol that the kernel does not know makes it look for a module.
constexpr std::chrono::seconds kAskAgain{60};

}  // namespace

SocketSources::Doors SocketSources::kernel() {
  return {[](const Process& process) -> Result<Read> {
            auto opened = SockDiag::open(process);
            if (!opened) return opened.error();
            auto diag = std::make_shared<SockDiag>(std::move(*opened));
            return Read(
                [diag](Protocol protocol, std::vector<Socket>& out) { return diag->read(protocol, out); });
          },
          read_socket_table};
}

void SocketSources::read(const std::vector<Process>& processes) {
  sockets_.clear();
  trouble_.fill({});
  details_.fill({});
  // Nearly always one; processes that are gone by now are in none.
  std::map<std::uint64_t, std::vector<const Process*>> inside;
  for (const Process& process : processes) {
    const auto ns = network_namespace(process.shared());
    if (ns)
      inside[*ns].push_back(&process);
    else if (!ended(process, ns.error()) && ns.error().code != ENOENT)
      trouble_.fill(reason(ns.error()));
  }
  std::erase_if(namespaces_, [&inside](const auto& entry) { return !inside.contains(entry.first); });
  for (const auto& [id, of_it] : inside) read(id, of_it);
}

void SocketSources::read(std::uint64_t id, const std::vector<const Process*>& inside) {
  Namespace& space = namespaces_[id];
  std::string closed;
  for (const Process* process : inside) {
    if (space.diag) break;
    auto opened = doors_.diag(*process);
    if (opened)
      space.diag = std::move(*opened);
    else if (!ended(*process, opened.error()))
      closed = reason(opened.error());
  }
  for (const Protocol protocol : kProtocols) {
    std::string why = closed;
    if (space.diag) {
      auto done = read_diag(space, protocol);
      if (done) continue;
      why = reason(done.error());
    }
    if (!why.empty()) details_[index_of(protocol)] = std::move(why);
    read_table(inside, protocol);
  }
}

Result<> SocketSources::read_diag(Namespace& space, Protocol protocol) {
  Refusal& refusal = space.refused[index_of(protocol)];
  if (!refusal.reason.empty() && Clock::now() < refusal.until) return Error{refusal.reason};
  const std::size_t before = sockets_.size();
  auto done = space.diag(protocol, sockets_);
  refusal.reason.clear();
  if (done) return done;
  sockets_.resize(before);
  if (done.error().code != ENOENT && done.error().code != EOPNOTSUPP) return done;
  refusal = {std::string("this kernel does not describe ") + kProtocolNames[index_of(protocol)] +
                 " sockets by sock_diag (no " + kProtocolNames[index_of(protocol)] + "_diag)",
             Clock::now() + kAskAgain};
  return Error{refusal.reason, {}, done.error().code};
}

/// All processes in the namespace have the same tables; the first that still lives is asked.
void SocketSources::read_table(const std::vector<const Process*>& inside, Protocol protocol) {
  for (const Process* process : inside) {
    const std::size_t before = sockets_.size();
    auto done = doors_.table(*process, protocol, sockets_);
    if (done) return;
    sockets_.resize(before);
    if (ended(*process, done.error())) continue;
    trouble_[index_of(protocol)] = reason(done.error());
    return;
  }
}

}  // namespace boxo::host
