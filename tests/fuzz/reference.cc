// SPDX-License-Identifier: MIT OR Apache-2.0
#include "tests/fuzz/reference.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>
#include <sstream>

namespace boxo::fuzz {

namespace {

struct Known {
  std::string type;
  std::string exported;
  std::string tag;  ///< result, duplicate or peer
};

const std::map<std::string, Known>& known() {
  static const std::map<std::string, Known> table = {
      {"bitswap.requests", {"c", "boxo_bitswap_requests_total", ""}},
      {"bitswap.response_time", {"ms", "boxo_bitswap_response_time_seconds", "result"}},
      {"bitswap.blocks_received", {"c", "boxo_bitswap_blocks_received_total", "duplicate"}},
      {"bitswap.blocks_sent", {"c", "boxo_bitswap_blocks_sent_total", ""}},
      {"bitswap.active_connections", {"g", "boxo_bitswap_active_connections", ""}},
      {"bitswap.queued_requests", {"g", "boxo_bitswap_queued_requests", ""}},
      {"blockstore.cache_hits", {"c", "boxo_blockstore_cache_hits_total", ""}},
      {"blockstore.cache_misses", {"c", "boxo_blockstore_cache_misses_total", ""}},
      {"blockstore.read_time", {"ms", "boxo_blockstore_read_latency_seconds", ""}},
      {"blockstore.write_time", {"ms", "boxo_blockstore_write_latency_seconds", ""}},
      {"blockstore.batch_operations", {"c", "boxo_blockstore_batch_operations_total", ""}},
      {"blockstore.total_blocks", {"g", "boxo_blockstore_total_blocks", ""}},
      {"blockstore.compression_ratio", {"g", "boxo_blockstore_compression_ratio", ""}},
      {"blockstore.storage_bytes", {"g", "boxo_blockstore_storage_bytes", ""}},
      {"blockstore.cache_size_bytes", {"g", "boxo_blockstore_cache_size_bytes", ""}},
      {"network.active_connections", {"g", "boxo_network_active_connections", ""}},
      {"network.latency", {"ms", "boxo_network_latency_seconds", "peer"}},
      {"network.bandwidth", {"h", "", "peer"}},
      {"network.bytes_sent", {"c", "boxo_network_bytes_sent_total", "peer"}},
      {"network.bytes_received", {"c", "boxo_network_bytes_received_total", "peer"}},
      {"network.connection_errors", {"c", "boxo_network_connection_errors_total", "peer"}},
      {"network.packets_sent", {"c", "boxo_network_packets_sent_total", ""}},
      {"network.packets_lost", {"c", "boxo_network_packets_lost_total", ""}},
      {"resource.cpu_usage", {"g", "boxo_resource_cpu_usage_percent", ""}},
      {"resource.disk_used_bytes", {"g", "boxo_resource_disk_usage_bytes", ""}},
      {"resource.disk_total_bytes", {"g", "boxo_resource_disk_total_bytes", ""}},
      {"resource.goroutines", {"g", "boxo_resource_goroutines_total", ""}},
      {"resource.gc_pause", {"ms", "boxo_resource_gc_pause_seconds", ""}},
      {"resource.gc_cycles", {"c", "boxo_resource_gc_cycles_total", ""}},
      {"resource.heap_bytes", {"g", "boxo_resource_heap_bytes", ""}},
  };
  return table;
}

const std::map<std::string, std::string> kPeerNames = {
    {"network.bytes_sent", "boxo_network_peer_bytes_sent_total"},
    {"network.bytes_received", "boxo_network_peer_bytes_received_total"},
    {"network.connection_errors", "boxo_network_peer_errors_total"},
};

bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool digit(char c) { return c >= '0' && c <= '9'; }

std::vector<std::string> pieces(const std::string& text, char separator) {
  std::vector<std::string> out(1);
  for (const char c : text) {
    if (c == separator)
      out.emplace_back();
    else
      out.back() += c;
  }
  return out;
}

/// [+-]digits[.digits][e[+-]digits], at least one digit before the exponent, and a finite double.
bool is_number(const std::string& text, double& value) {
  std::size_t i = 0;
  if (i < text.size() && (text[i] == '+' || text[i] == '-')) ++i;
  std::size_t digits = 0;
  for (; i < text.size() && digit(text[i]); ++i) ++digits;
  if (i < text.size() && text[i] == '.')
    for (++i; i < text.size() && digit(text[i]); ++i) ++digits;
  if (digits == 0) return false;
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    ++i;
    if (i < text.size() && (text[i] == '+' || text[i] == '-')) ++i;
    if (i == text.size()) return false;
    while (i < text.size() && digit(text[i])) ++i;
    if (!digit(text.back())) return false;
  }
  if (i != text.size()) return false;
  errno = 0;
  value = std::strtod(text.c_str(), nullptr);
  // Too small to be told from zero: neither.
  return errno != ERANGE ||
         (std::isfinite(value) && value != 0 && std::fabs(value) >= 2.2250738585072014e-308);
}

std::string escaped(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const auto at = [&](std::size_t k) { return k < text.size() ? static_cast<unsigned char>(text[k]) : 0U; };
    const unsigned a = at(i);
    std::size_t length = 0;
    std::uint32_t code = 0;
    if (a < 0x80) {
      length = 1, code = a;
    } else if (a >= 0xc0 && a < 0xe0) {
      length = 2, code = a & 0x1f;
    } else if (a >= 0xe0 && a < 0xf0) {
      length = 3, code = a & 0x0f;
    } else if (a >= 0xf0 && a < 0xf8) {
      length = 4, code = a & 0x07;
    }
    bool good = length > 0 && i + length <= text.size();
    for (std::size_t k = 1; good && k < length; ++k) {
      good = (at(i + k) & 0xc0) == 0x80;
      code = code << 6 | (at(i + k) & 0x3f);
    }
    static constexpr std::uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
    good = good && code >= kLeast[length] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) &&
           code >= 0x20 && code != 0x7f;
    if (good) {
      out += text.substr(i, length);
      i += length;
    } else {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\x%02x", a);
      out += hex;
      ++i;
    }
  }
  return out;
}

double weight_of(double rate) {
  const double weight = 1 / rate;
  return std::fabs(weight - std::nearbyint(weight)) < 1e-12 * weight ? std::nearbyint(weight) : weight;
}

}  // namespace

void Reference::reject(const std::string& reason) {
  ++totals_.received;
  ++totals_.rejected[reason];
}

void Reference::packet(const std::string& bytes, bool cut) {
  std::vector<std::string> lines = pieces(bytes, '\n');
  if (cut) {
    lines.pop_back();
    reject("too_long");
    if (lines.empty()) return;
  }
  bool empty = true;
  for (const std::string& text : lines)
    if (!text.empty()) {
      empty = false;
      line(text);
    }
  if (empty) reject("empty");
}

std::string Reference::parse(std::string line, Parsed& out) {
  if (line.size() > 8192) return "too_long";
  if (line.back() == '\r') line.pop_back();
  if (line.rfind("_sc|", 0) == 0 || line.rfind("_e{", 0) == 0) return "unsupported";
  const std::size_t colon = line.find(':');
  if (colon == std::string::npos || colon == 0) return "malformed";
  const std::size_t bar = line.find('|', colon);
  if (bar == std::string::npos || bar == colon + 1) return "malformed";
  out.name = line.substr(0, colon);
  std::vector<std::string> fields = pieces(line.substr(bar + 1), '|');
  // A single bar at the very end ends the last field and begins none.
  if (fields.size() > 1 && fields.back().empty()) fields.pop_back();
  out.type = fields[0];
  if (!std::set<std::string>{"c", "g", "ms", "h", "d", "s"}.count(out.type)) return "type";
  if (out.type == "s") return "unsupported";
  for (const std::string& text : pieces(line.substr(colon + 1, bar - colon - 1), ':')) {
    double value = 0;
    if (!is_number(text, value)) return "value";
    out.values.push_back(value);
    out.is_signed.push_back(text[0] == '+' || text[0] == '-');
  }
  if (out.name.size() > 128 || !letter(out.name[0])) return "name";
  for (const char c : out.name)
    if (c <= ' ' || c > '~' || c == '|' || c == '#' || c == '@' || c == ',') return "name";
  bool has_rate = false;
  bool has_tags = false;
  for (std::size_t i = 1; i < fields.size(); ++i) {
    const std::string& field = fields[i];
    if (field.empty()) return "malformed";
    if (field[0] == '@') {
      if (has_rate) return "malformed";
      has_rate = true;
      if (!is_number(field.substr(1), out.rate) || out.rate < 1e-6 || out.rate > 1) return "rate";
    } else if (field[0] == '#') {
      if (has_tags) return "malformed";
      has_tags = true;
      for (const std::string& tag : pieces(field.substr(1), ',')) {
        if (tag.empty() || tag.rfind("dd.internal.", 0) == 0) continue;
        const std::size_t end = std::min(tag.find(':'), tag.size());
        const std::string key = tag.substr(0, end);
        const std::string value = end < tag.size() ? tag.substr(end + 1) : "";
        if (key.empty() || key.size() > 64 || digit(key[0]) || key.rfind("__", 0) == 0 || value.size() > 200)
          return "tag";
        for (const char c : key)
          if (!letter(c) && !digit(c) && c != '_') return "tag";
        if (value.empty()) continue;
        if (out.tags.size() == 16 || !out.tags.emplace(key, value).second) return "tag";
      }
    } else if (field[0] == 'T' && field.size() > 1 && std::all_of(field.begin() + 1, field.end(), digit)) {
      continue;
    } else {
      const std::size_t end = field.find(':');
      if (end == std::string::npos || end == 0 ||
          !std::all_of(field.begin(), field.begin() + static_cast<std::ptrdiff_t>(end), letter))
        return "malformed";
    }
  }
  return "";
}

void Reference::line(const std::string& text) {
  ++totals_.received;
  Parsed parsed;
  std::string reason = parse(text, parsed);
  if (reason.empty()) reason = count(parsed);
  if (!reason.empty()) ++totals_.rejected[reason];
}

std::string Reference::count(const Parsed& line) {
  if (line.name.rfind("agent.client.", 0) == 0 || line.name.rfind("datadog.dogstatsd.client.", 0) == 0)
    return count_client(line);
  const std::string space = line.name.substr(0, line.name.find('.'));
  if (std::set<std::string>{"bitswap", "blockstore", "network", "resource", "agent"}.count(space))
    return count_builtin(line);
  return count_custom(line);
}

std::string Reference::check_values(const Parsed& line, bool negative_ok) {
  for (const double value : line.values) {
    if (value < 0 && !negative_ok) return "value";
    const bool counter = line.type == "c";
    if (counter ? value * weight_of(line.rate) > 9007199254740992.0
                : std::fabs(value) > 9223372036854775808.0)
      return "value";
  }
  return "";
}

void Reference::add_samples(const std::string& name, const Parsed& line, double unit) {
  for (const double value : line.values) {
    auto& [count, sum] = totals_.samples[name];
    count += weight_of(line.rate);
    sum += value * weight_of(line.rate) / unit;
  }
}

std::string Reference::count_builtin(const Parsed& line) {
  const auto it = known().find(line.name);
  if (it == known().end()) return "unknown_name";
  const Known& event = it->second;
  if ((line.type == "d" ? "h" : line.type) != event.type) return "type_changed";
  const auto tag = [&](const std::string& key) {
    const auto found = line.tags.find(key);
    return found == line.tags.end() ? std::string() : found->second;
  };
  if (event.tag == "result" && !std::set<std::string>{"", "ok", "error"}.count(tag("result"))) return "tag";
  if (event.tag == "duplicate" && !std::set<std::string>{"", "true", "false"}.count(tag("duplicate")))
    return "tag";
  if (const std::string reason = check_values(line, event.type == "g"); !reason.empty()) return reason;

  const double weight = weight_of(line.rate);
  const std::string peer = event.tag == "peer" ? tag("peer") : "";
  for (std::size_t i = 0; i < line.values.size(); ++i) {
    const double value = line.values[i];
    if (event.type == "g") {
      double& cell = totals_.values[event.exported];
      cell = line.is_signed[i] ? cell + value : value;
    } else if (event.type == "c") {
      totals_.values[event.exported] += value * weight;
      if (!peer.empty()) totals_.values[kPeerNames.at(line.name)] += value * weight;
      if (event.tag == "duplicate")
        totals_.values["boxo_bitswap_blocks_duplicated_total"] +=
            tag("duplicate") == "true" ? value * weight : 0;
    } else {
      if (event.tag == "result")
        totals_.values["boxo_bitswap_errors_total"] += tag("result") == "error" ? weight : 0;
      weighted_ = weighted_ || weight != 1;
      std::vector<double>& window = totals_.windows[line.name];
      window.push_back(value);
      const std::size_t size = line.name == "network.bandwidth" ? history_ / 10 : history_;
      if (window.size() > size) window.erase(window.begin());
    }
  }
  if (event.type == "ms") add_samples(event.exported, line, 1000);
  return "";
}

std::string Reference::count_client(const Parsed& line) {
  const bool ours = line.name.rfind("agent.", 0) == 0;
  const std::string name = line.name.substr(line.name.rfind("client.") + 7);
  std::string reason;
  if (ours) {
    if (line.name != "agent.client.dropped" && line.name != "agent.client.sequence") return "unknown_name";
    if (line.type != (line.name == "agent.client.dropped" ? "c" : "g")) return "type_changed";
    if (line.name == "agent.client.sequence") {
      const auto client = line.tags.find("client");
      if (client == line.tags.end()) return "tag";
      if (const std::string wrong = check_values(line, false); !wrong.empty()) return wrong;
      for (const double value : line.values) {
        double& last = last_sequence_[client->second];
        if (last > 0 && value > last + 1) totals_.values["lost"] += value - last - 1;
        last = value;
      }
      return "";
    }
    if (const std::string wrong = check_values(line, false); !wrong.empty()) return wrong;
  } else {
    const bool counts =
        line.type == "c" && (line.name == "datadog.dogstatsd.client.packets_dropped" ||
                             line.name == "datadog.dogstatsd.client.metric_dropped_on_receive");
    if (!counts) {
      // Not counted, but still a number like any other.
      for (const double value : line.values)
        if (std::fabs(value) > 9223372036854775808.0) return "value";
      return "";
    }
    if (const std::string wrong = check_values(line, false); !wrong.empty()) return wrong;
  }
  for (const double value : line.values) totals_.values["lost"] += value * weight_of(line.rate);
  return "";
}

std::string Reference::count_custom(const Parsed& line) {
  const std::string type = line.type == "d" ? "h" : line.type;
  std::string base;
  for (const char c : line.name) base += letter(c) || digit(c) ? c : '_';
  const auto ends = [](const std::string& text, const std::string& end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
  };
  std::string exported = "boxo_" + base;
  if (type == "c" && !ends(exported, "_total")) exported += "_total";
  if (type == "ms" && !ends(exported, "_seconds")) exported += "_seconds";
  const auto typed = type_of_.find(line.name);
  if ((type == "ms" || type == "h") && line.tags.count("le")) return "tag";
  if (typed != type_of_.end() && typed->second != type) return "type_changed";
  if (typed == type_of_.end()) {
    for (const std::string space : {"bitswap", "blockstore", "network", "resource", "agent"})
      if (base == space || base.rfind(space + "_", 0) == 0) return "name_conflict";
    std::vector<std::string> names = {exported};
    if (type == "ms" || type == "h")
      for (const char* suffix : {"_bucket", "_sum", "_count"}) names.push_back(exported + suffix);
    for (const std::string& name : names)
      if (exported_by_.count(name)) return "name_conflict";
    for (const std::string& name : names) exported_by_[name] = line.name;
    type_of_[line.name] = type;
  }
  if (const std::string wrong = check_values(line, type == "g" || type == "h"); !wrong.empty()) return wrong;
  std::string key = exported;
  for (const auto& [label, value] : line.tags) key += "\n" + label + "=" + escaped(value);
  if (type == "ms" || type == "h") {
    add_samples(key, line, type == "ms" ? 1000 : 1);
    return "";
  }
  for (std::size_t i = 0; i < line.values.size(); ++i) {
    double& cell = totals_.values[key];
    if (type == "c")
      cell += line.values[i] * weight_of(line.rate);
    else
      cell = line.is_signed[i] ? cell + line.values[i] : line.values[i];
  }
  return "";
}

Totals Reference::totals() const {
  Totals out = totals_;
  if (weighted_) out.windows.clear();
  out.values.try_emplace("lost", 0);
  if (const auto it = out.samples.find("boxo_bitswap_response_time_seconds"); it != out.samples.end())
    out.values["boxo_bitswap_responses_total"] = it->second.first;
  return out;
}

}  // namespace boxo::fuzz
