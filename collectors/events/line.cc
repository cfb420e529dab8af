// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/events/line.h"

#include <algorithm>

#include "collectors/events/number.h"
#include "collectors/utf8.h"

namespace boxo::events {

namespace {

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool is_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxName || !is_letter(name.front())) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return c > ' ' && c < 0x7f && c != '|' && c != '#' && c != '@' && c != ',';
  });
}

bool is_label_name(std::string_view key) {
  if (key.empty() || key.size() > kMaxTagKey || is_digit(key.front()) || key.starts_with("__")) return false;
  return std::all_of(key.begin(), key.end(), [](char c) { return is_letter(c) || is_digit(c) || c == '_'; });
}

/// Cuts the text up to `separator` off the front of `rest`.
std::string_view take(std::string_view& rest, char separator) {
  const std::size_t at = rest.find(separator);
  const std::string_view part = rest.substr(0, at);
  rest.remove_prefix(at == std::string_view::npos ? rest.size() : at + 1);
  return part;
}

bool parse_type(std::string_view text, char& type) {
  if (text == "ms") return type = 'm', true;
  if (text == "c" || text == "g" || text == "h" || text == "d" || text == "s")
    return type = text.front(), true;
  return false;
}

std::optional<Reason> parse_tags(std::string_view text, Line& out) {
  while (!text.empty()) {
    const std::string_view tag = take(text, ',');
    const std::size_t colon = tag.find(':');
    const Tag pair{tag.substr(0, colon),
                   colon == std::string_view::npos ? std::string_view() : tag.substr(colon + 1)};
    // Clients of Datadog add tags about themselves that only Datadog's own server understands.
    if (tag.empty() || pair.key.starts_with("dd.internal.")) continue;
    if (!is_label_name(pair.key) || pair.value.size() > kMaxTagValue) return Reason::kTag;
    // Prometheus takes an empty label for no label.
    if (pair.value.empty()) continue;
    if (out.tag_count == kMaxTags) return Reason::kTag;
    out.tags[out.tag_count++] = pair;
  }
  const auto end = out.tags.begin() + static_cast<std::ptrdiff_t>(out.tag_count);
  std::sort(out.tags.begin(), end, [](const Tag& a, const Tag& b) { return a.key < b.key; });
  const auto same =
      std::adjacent_find(out.tags.begin(), end, [](const Tag& a, const Tag& b) { return a.key == b.key; });
  return same == end ? std::nullopt : std::optional(Reason::kTag);
}

/// The fields after the type: @rate, #tags, T1700000000, and what later versions of the protocol added in the
/// form letters:text (c:, e:, card:), which says nothing that is counted here.
std::optional<Reason> parse_extensions(std::string_view rest, Line& out) {
  bool has_rate = false;
  bool has_tags = false;
  while (!rest.empty()) {
    const std::string_view field = take(rest, '|');
    if (field.empty()) return Reason::kMalformed;
    const char* const end = field.data() + field.size();
    if (field.front() == '@') {
      if (has_rate) return Reason::kMalformed;
      has_rate = true;
      const Number rate = parse_number(field.data() + 1, end);
      if (rate.end != end || !(rate.value >= 1e-6 && rate.value <= 1)) return Reason::kRate;
      out.rate = rate.value;
    } else if (field.front() == '#') {
      if (has_tags) return Reason::kMalformed;
      has_tags = true;
      if (auto reason = parse_tags(field.substr(1), out)) return reason;
    } else if (field.front() == 'T' && field.size() > 1 &&
               std::all_of(field.begin() + 1, field.end(), is_digit)) {
      out.has_timestamp = true;
    } else {
      const std::size_t colon = field.find(':');
      if (colon == 0 || colon == std::string_view::npos) return Reason::kMalformed;
      if (!std::all_of(field.begin(), field.begin() + static_cast<std::ptrdiff_t>(colon), is_letter))
        return Reason::kMalformed;
    }
  }
  return std::nullopt;
}

void append_escaped(std::string& out, char c) {
  static constexpr char kHex[] = "0123456789abcdef";
  const auto byte = static_cast<unsigned char>(c);
  out += "\\x";
  out += kHex[byte >> 4];
  out += kHex[byte & 15];
}

}  // namespace

std::string_view Line::tag(std::string_view key) const {
  for (std::size_t i = 0; i < tag_count; ++i)
    if (tags[i].key == key) return tags[i].value;
  return {};
}

std::optional<Reason> split(std::string_view text, Line& out) {
  if (text.size() > kMaxLine) return Reason::kTooLong;
  if (text.ends_with('\r')) text.remove_suffix(1);
  if (text.starts_with("_sc|") || text.starts_with("_e{")) return Reason::kUnsupported;
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos || colon == 0) return Reason::kMalformed;
  const std::size_t bar = text.find('|', colon);
  if (bar == std::string_view::npos || bar == colon + 1) return Reason::kMalformed;
  out.name = text.substr(0, colon);
  out.values = text.substr(colon + 1, bar - colon - 1);
  std::string_view rest = text.substr(bar + 1);
  const std::string_view type = take(rest, '|');
  if (!parse_type(type, out.type)) return Reason::kType;
  if (out.type == 's') return Reason::kUnsupported;
  // Here and not at the end: whether a value is a number does not depend on what is known of the name.
  for (std::string_view values = out.values;;) {
    const Number number = parse_number(values.data(), values.data() + values.size());
    if (number.end == nullptr) return Reason::kValue;
    values.remove_prefix(static_cast<std::size_t>(number.end - values.data()));
    if (values.empty()) break;
    if (values.front() != ':') return Reason::kValue;
    values.remove_prefix(1);
  }
  if (!is_name(out.name)) return Reason::kName;
  return parse_extensions(rest, out);
}

std::string label_value(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto first = static_cast<unsigned char>(text.front());
    const std::size_t length = first < 0x20 || first == 0x7f ? 0 : utf8_length(text);
    if (length == 0)
      append_escaped(out, text.front());
    else
      out += text.substr(0, length);
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return out;
}

std::string printable(std::string_view text, std::size_t max) {
  std::string out;
  for (const char c : text.substr(0, max)) {
    if (c >= ' ' && c < 0x7f && c != '\\')
      out += c;
    else
      append_escaped(out, c);
  }
  if (text.size() > max) out += "...";
  return out;
}

}  // namespace boxo::events
