// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/kernel/pid_namespace.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include "tests/unit/tree.h"

using namespace boxo;
using namespace boxo::kernel;

TEST_CASE("whether /proc numbers processes as the agent's system calls do") {
  const auto asked = [](const test::Tree& proc) { return numbers_as_agent(*Dir::open(proc.path())); };
  const std::string own = std::to_string(::getpid());
  CHECK(numbers_as_agent(*Dir::open("/proc")));
  // The line has one number for each namespace from that of /proc down to the process's own.
  CHECK(asked({{"4711/status", "Name:\ta\nNSpid:\t4711\nNSpgid:\t1\t2\n"}, {"self", "->4711"}}));
  CHECK_FALSE(asked({{own + "/status", "Name:\ta\nNSpid:\t" + own + "\t" + own + "\nNSpgid:\t1\n"}, {"self", "->" + own}}));
  // A kernel without that line.
  CHECK(asked({{own + "/status", "Name:\ta\n"}, {"self", "->" + own}}));
  CHECK_FALSE(asked({{"1/status", "Name:\ta\n"}, {"self", "->1"}}));
  // Of a namespace below the agent's, or beside it.
  const auto refused = asked({{"1/status", ""}});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().text().find("another pid namespace") != std::string::npos);
}
