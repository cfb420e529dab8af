// SPDX-License-Identifier: MIT OR Apache-2.0
#include "agent/config_file.h"

#include <algorithm>
#include <utility>

namespace boxo {

namespace {

constexpr std::string_view kBlanks = " \t\r";

class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}

  Result<std::vector<Setting>> read() {
    for (; !rest_.empty(); take_line()) {
      skip_blanks();
      if (line_ends() || rest_[0] == ';') continue;
      auto read = rest_[0] == '[' ? section() : setting();
      if (!read) return read.error();
    }
    return std::move(settings_);
  }

 private:
  Error wrong(int line, const std::string& what, std::string mend) const {
    return Error{"line " + std::to_string(line) + ": " + what, std::move(mend)};
  }

  void skip_blanks() { rest_.remove_prefix(std::min(rest_.find_first_not_of(kBlanks), rest_.size())); }
  /// Nothing more stands in this line, comments aside.
  bool line_ends() const { return rest_.empty() || rest_[0] == '\n' || rest_[0] == '#'; }
  void take_line() {
    rest_.remove_prefix(std::min(rest_.find('\n'), rest_.size()));
    if (rest_.empty()) return;
    rest_.remove_prefix(1);
    ++line_;
  }

  /// All options stand outside of sections; the one that other programs' files begin with says so.
  Result<> section() const {
    std::string_view line = rest_.substr(0, rest_.find_first_of("#\n"));
    line = line.substr(0, line.find_last_not_of(kBlanks) + 1);
    if (line == "[default]") return {};
    return wrong(line_, std::string(line) + ": there are no sections", "leave the line out");
  }

  Result<> setting() {
    auto name = rest_[0] == '"' || rest_[0] == '\'' ? quoted() : word("=");
    if (!name) return name.error();
    skip_blanks();
    Setting& one = named(*name);
    if (line_ends()) {
      one.values.emplace_back("true");
      return {};
    }
    if (rest_[0] != '=') return wrong(line_, *name + ": no '=' follows", "write NAME = VALUE");
    rest_.remove_prefix(1);
    skip_blanks();
    if (line_ends()) return wrong(line_, *name + ": no value", "give one, or leave the line out");
    if (rest_[0] == '[') return list(one);
    while (!line_ends())
      if (auto read = value(one, ","); !read) return read;
    return {};
  }

  Setting& named(const std::string& name) {
    const auto there = std::find_if(settings_.begin(), settings_.end(), [&](const Setting& one) { return one.name == name; });
    return there != settings_.end() ? *there : settings_.emplace_back(Setting{name, {}});
  }

  Result<> list(Setting& into) {
    const int begun = line_;
    rest_.remove_prefix(1);
    for (;;) {
      skip_blanks();
      if (rest_.empty()) return wrong(begun, into.name + ": the list has no end", "close it with ']'");
      if (line_ends()) {
        take_line();
      } else if (rest_[0] == ']') {
        break;
      } else if (auto read = value(into, ",]"); !read) {
        return read;
      }
    }
    rest_.remove_prefix(1);
    skip_blanks();
    if (!line_ends()) return wrong(line_, into.name + ": something follows the ']'", "begin a new line");
    return {};
  }

  /// One value and the comma behind it, if there is one. Ends before each of `stops`.
  Result<> value(Setting& into, const char* stops) {
    const bool in_quotes = rest_[0] == '"' || rest_[0] == '\'';
    auto text = in_quotes ? quoted() : word(stops);
    if (!text) return text.error();
    if (in_quotes && !line_ends() && (std::string(kBlanks) + stops).find(rest_[0]) == std::string::npos)
      return wrong(line_, into.name + ": something follows a closing quote", "separate values by a comma");
    into.values.push_back(std::move(*text));
    skip_blanks();
    if (!rest_.empty() && rest_[0] == ',') rest_.remove_prefix(1);
    skip_blanks();
    return {};
  }

  Result<std::string> quoted() {
    const char quote = rest_[0];
    std::string text;
    for (std::size_t at = 1; at < rest_.size() && rest_[at] != '\n'; ++at) {
      if (rest_[at] == quote) {
        rest_.remove_prefix(at + 1);
        return text;
      }
      // As in TOML, where the other kind of quote knows no escapes.
      if (quote == '"' && rest_[at] == '\\' && at + 1 < rest_.size() && (rest_[at + 1] == '"' || rest_[at + 1] == '\\')) ++at;
      text += rest_[at];
    }
    return wrong(line_, "a quote is left open", "close it in the same line");
  }

  Result<std::string> word(std::string_view stops) {
    const std::string ends = "#\n" + std::string(kBlanks) + std::string(stops);
    std::string text(rest_.substr(0, rest_.find_first_of(ends)));
    if (text.find_first_of("\"'") != std::string::npos)
      return wrong(line_, text + ": a quote within a word", "put the whole of it in quotes");
    rest_.remove_prefix(text.size());
    return text;
  }

  std::string_view rest_;
  int line_ = 1;
  std::vector<Setting> settings_;
};

}  // namespace

Result<std::vector<Setting>> parse_config(std::string_view text) { return Reader(text).read(); }

}  // namespace boxo
