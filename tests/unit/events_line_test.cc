// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "collectors/events/line.h"
#include "collectors/events/number.h"

using namespace boxo::events;

namespace {

Number number(std::string_view text) { return parse_number(text.data(), text.data() + text.size()); }

}  // namespace

TEST_CASE("events: numbers") {
  struct Row {
    const char* text;
    double value;
    int used;
  };
  for (const Row& row :
       {Row{"0", 0, 1}, Row{"17|ms", 17, 2}, Row{"-3", -3, 2}, Row{"+3", 3, 2}, Row{"0.25", .25, 4},
        Row{".5", .5, 2}, Row{"5.", 5, 2}, Row{"1e3", 1000, 3}, Row{"1.5E-3x", .0015, 6},
        Row{"9007199254740993", 9007199254740992.0, 16}, Row{"18446744073709551616", 0x1p64, 20},
        Row{"0.1", 0.1, 3}, Row{"123456789.123456789", 123456789.123456789, 19},
        Row{"00000000000000000000000000001", 1, 29}, Row{"1e300", 1e300, 5}, Row{"-0", 0, 2}}) {
    CAPTURE(row.text);
    const Number found = number(row.text);
    REQUIRE(found.end != nullptr);
    CHECK(found.value == row.value);
    CHECK(found.end - row.text >= row.used);
  }
  for (const char* text : {"", "-", "+", ".", "x", "inf", "nan", "-inf", "+nan", "1e999", "-1e999", "e5",
                           "--1", "+-1", " 1", "0x", "NaN", "infinity"}) {
    CAPTURE(text);
    const Number found = number(text);
    // "0x" is a zero and a rest.
    CHECK((found.end == nullptr || std::string_view(text) == "0x"));
  }
}

TEST_CASE("events: numbers are what strtod makes of them") {
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    char text[64];
    const double value = std::ldexp(static_cast<double>(random()), static_cast<int>(random() % 200) - 130);
    const int precision = static_cast<int>(random() % 18);
    const int n = std::snprintf(text, sizeof text, i % 2 ? "%.*f" : "%.*g", precision, value);
    if (n <= 0 || n >= static_cast<int>(sizeof text)) continue;
    CAPTURE(text);
    const Number found = number(text);
    REQUIRE(found.end == text + n);
    REQUIRE(found.value == std::strtod(text, nullptr));
  }
}

TEST_CASE("events: the parts of a line") {
  Line line;
  REQUIRE(!split("bitswap.response_time:50:60|ms|@0.5|#result:ok,b:2,a:1|c:ci-123|T1700000000\r", line));
  CHECK(line.name == "bitswap.response_time");
  CHECK(line.values == "50:60");
  CHECK(line.type == 'm');
  CHECK(line.rate == 0.5);
  CHECK(line.has_timestamp);
  REQUIRE(line.tag_count == 3);
  CHECK(line.tags[0].key == "a");
  CHECK(line.tags[2].key == "result");
  CHECK(line.tag("result") == "ok");
  CHECK(line.tag("none").empty());
}

TEST_CASE("events: lines that count") {
  for (const char* text : {"a:1|c",
                           "a.b-c/d_e:1|g",
                           "a:+1|g",
                           "a:-1|g",
                           "a:1|h",
                           "a:1|d",
                           "a:1|ms",
                           "a:1|c|@1",
                           "a:1|c|@0.000001",
                           "a:1|c|#",
                           "a:1|c|#x",
                           "a:1|c|#x:",
                           "a:1|c|#,x:1,",
                           "a:1|c|#x:a:b",
                           "a:1|c|e:it-false,cn-x",
                           "a:1|c|card:low",
                           "a:1|c|#dd.internal.entity_id:x",
                           "a:1|c|#x:ä€",
                           "a:1|c|T1",
                           "a:1|c|#_x:1"}) {
    CAPTURE(text);
    Line line;
    CHECK(!split(text, line));
  }
}

TEST_CASE("events: lines that do not, and why") {
  struct Row {
    std::string text;
    Reason reason;
  };
  const std::string long_name(kMaxName + 1, 'n');
  const std::string long_value(kMaxTagValue + 1, 'v');
  std::string many_tags = "a:1|c|#";
  for (std::size_t i = 0; i <= kMaxTags; ++i) many_tags += "t" + std::to_string(i) + ":1,";
  for (const Row& row : {
           Row{"x", Reason::kMalformed},
           Row{":1|c", Reason::kMalformed},
           Row{"a:|c", Reason::kMalformed},
           Row{"a:1", Reason::kMalformed},
           Row{"a|c", Reason::kMalformed},
           Row{"a:1|c||", Reason::kMalformed},
           Row{"a:1|c|x", Reason::kMalformed},
           Row{"a:1|c|T", Reason::kMalformed},
           Row{"a:1|c|Tx", Reason::kMalformed},
           Row{"a:1|c|@1|@1", Reason::kMalformed},
           Row{"a:1|c|#a:1|#b:1", Reason::kMalformed},
           Row{"a:1|x", Reason::kType},
           Row{"a:1|", Reason::kType},
           Row{"a:1|C", Reason::kType},
           Row{"a:1|msx", Reason::kType},
           Row{"a:x|s", Reason::kUnsupported},
           Row{"_sc|disk|0", Reason::kUnsupported},
           Row{"_e{1,1}:a|b", Reason::kUnsupported},
           Row{"a:x|c", Reason::kValue},
           Row{"a:nan|g", Reason::kValue},
           Row{"a:inf|g", Reason::kValue},
           Row{"a:1e999|g", Reason::kValue},
           Row{"a:1x|c", Reason::kValue},
           Row{"a:1:|c", Reason::kValue},
           Row{"a:1::2|c", Reason::kValue},
           Row{"a:1:x|c", Reason::kValue},
           Row{"a: 1|c", Reason::kValue},
           Row{"1a:1|c", Reason::kName},
           Row{"a b:1|c", Reason::kName},
           Row{"a\x01:1|c", Reason::kName},
           Row{"a\xff:1|c", Reason::kName},
           Row{long_name + ":1|c", Reason::kName},
           Row{"a:1|c|@0", Reason::kRate},
           Row{"a:1|c|@1e-9", Reason::kRate},
           Row{"a:1|c|@1.1", Reason::kRate},
           Row{"a:1|c|@-1", Reason::kRate},
           Row{"a:1|c|@nan", Reason::kRate},
           Row{"a:1|c|@", Reason::kRate},
           Row{"a:1|c|#__x:1", Reason::kTag},
           Row{"a:1|c|#x-y:1", Reason::kTag},
           Row{"a:1|c|#1x:1", Reason::kTag},
           Row{"a:1|c|#:1", Reason::kTag},
           Row{"a:1|c|#x:1,x:2", Reason::kTag},
           Row{"a:1|c|#x:" + long_value, Reason::kTag},
           Row{many_tags, Reason::kTag},
           Row{"a:" + std::string(kMaxLine, '1') + "|c", Reason::kTooLong},
       }) {
    CAPTURE(row.text);
    Line line;
    const auto reason = split(row.text, line);
    REQUIRE(reason.has_value());
    CHECK(name_of(*reason) == name_of(row.reason));
  }
}

TEST_CASE("events: label values and log lines hold no surprise") {
  CHECK(label_value("12D3KooW") == "12D3KooW");
  CHECK(label_value("grüße €𝄞") == "grüße €𝄞");
  CHECK(label_value("a\xff") == "a\\xff");
  CHECK(label_value("\xc0\xaf") == "\\xc0\\xaf");           // overlong
  CHECK(label_value("\xed\xa0\x80") == "\\xed\\xa0\\x80");  // a surrogate
  CHECK(label_value("\xe2\x82") == "\\xe2\\x82");           // cut
  CHECK(label_value("a\tb\x7f") == "a\\x09b\\x7f");
  CHECK(printable("a\"\n\xff\\") == "a\"\\x0a\\xff\\x5c");
  CHECK(printable("abcdef", 3) == "abc...");
}
