// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/events/clients.h"

#include <algorithm>

namespace boxo::events {

namespace {

constexpr std::size_t kMaxReason = 32;

bool is_reason(std::string_view text) {
  return !text.empty() && text.size() <= kMaxReason && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

}  // namespace

Client& Clients::find(std::string_view id, std::uint64_t now) {
  Client* place = clients_.data();
  for (Client& client : clients_) {
    if (client.id == id) return client;
    if (client.used < place->used) place = &client;
  }
  place->id = id;
  place->last = 0;
  place->used = now;
  ++place->generation;
  return *place;
}

void Clients::sequence(Client& client, double number, std::uint64_t now) {
  if (client.last > 0 && number > client.last + 1) losses_.front().cell.value += number - client.last - 1;
  client.last = number;
  client.used = now;
}

Cell& Clients::dropped(std::string_view reason) {
  const auto named = [&](std::string_view name) {
    return std::find_if(losses_.begin(), losses_.end(),
                        [&](const Loss& loss) { return loss.reason == name; });
  };
  if (!is_reason(reason)) reason = "other";
  if (const auto it = named(reason); it != losses_.end()) return it->cell;
  // The last place is for all others.
  if (losses_.size() + 1 >= kLosses) {
    reason = "other";
    if (const auto it = named(reason); it != losses_.end()) return it->cell;
  }
  losses_.push_back({std::string(reason), {}});
  return losses_.back().cell;
}

}  // namespace boxo::events
