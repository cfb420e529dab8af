// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>
#include <unistd.h>

#include <array>
#include <string>

#include "collectors/log.h"

using namespace boxo;

namespace {

/// What `write` sends to standard error.
template <class Write>
std::string on_stderr(Write write) {
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const int kept = ::dup(STDERR_FILENO);
  ::dup2(ends[1], STDERR_FILENO);
  ::close(ends[1]);
  write();
  ::dup2(kept, STDERR_FILENO);
  ::close(kept);
  std::string text(4096, '\0');
  const ssize_t n = ::read(ends[0], text.data(), text.size());
  ::close(ends[0]);
  text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return text;
}

}  // namespace

TEST_CASE("a message is one line whatever it holds") {
  CHECK(on_stderr([] { log_warn("name \"a\nb\x1b[31m\""); }) == "boxo-agent: warn: name \"a?b?[31m\"\n");
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
