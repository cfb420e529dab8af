// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include <string>

#include "collectors/log.h"
#include "tests/unit/on_stderr.h"

using namespace boxo;
using test::on_stderr;

TEST_CASE("a message is one line whatever it holds") {
  CHECK(on_stderr([] { log_warn("name \"a\nb\x1b[31m\""); }) == "boxo-agent: warn: name \"a?b?[31m\"\n");
  CHECK(on_stderr([] { log_warn("gr\u00fcn \xff\xc3."); }) == "boxo-agent: warn: gr\u00fcn ??.\n");
  CHECK(on_stderr([] { log_info("listening"); }) == "boxo-agent: listening\n");
}

TEST_CASE("messages above the level are not written") {
  CHECK(on_stderr([] { log_debug("detail"); }).empty());
  set_log_level(LogLevel::kDebug);
  CHECK(on_stderr([] { log_debug("detail"); }) == "boxo-agent: debug: detail\n");
  set_log_level(LogLevel::kInfo);
  CHECK(log_level("warn") == LogLevel::kWarn);
  CHECK_FALSE(log_level("loud").has_value());
}

TEST_CASE("changes are told at once, but no two within a minute") {
  using std::chrono::seconds;
  const Changes::Clock::time_point start{};
  Changes changes("");
  CHECK_FALSE(changes.update("", start));
  CHECK(changes.update("broken", start + seconds(1)) == "");
  CHECK_FALSE(changes.update("broken", start + seconds(100)));
  CHECK(changes.update("", start + seconds(101)) == "");
  for (int i = 0; i < 10; ++i) CHECK_FALSE(changes.update(i % 2 == 0 ? "broken" : "", start + seconds(102 + i)));
  CHECK_FALSE(changes.update("worse", start + seconds(160)));
  CHECK(changes.update("worse", start + seconds(161)) == " (10 changes before were not logged)");
  // It came and went in between: what was told last is true.
  CHECK_FALSE(changes.update("", start + seconds(170)));
  CHECK_FALSE(changes.update("worse", start + seconds(171)));
  CHECK_FALSE(changes.update("worse", start + seconds(300)));
  CHECK(changes.update("", start + seconds(301)) == " (2 changes before were not logged)");
}
