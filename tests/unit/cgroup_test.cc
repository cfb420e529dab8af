// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/cgroup.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <cerrno>

#include "tests/unit/tree.h"

using namespace boxo;
using boxo::test::Tree;

namespace {

std::string mount_line(const std::string& group, const std::string& where, const std::string& type) {
  return "31 23 0:28 " + group + " " + where + " rw,relatime - " + type + " cgroup rw\n";
}

std::vector<pid_t> pids_of(const Dir& group) {
  std::vector<pid_t> pids;
  REQUIRE(Cgroups::pids(group, pids));
  return pids;
}

}  // namespace

TEST_CASE("lines of /proc/PID/cgroup") {
  const auto lines = parse_cgroup_lines(
      "9:name=systemd:/user\n4:cpu,cpuacct:/a:b/c\n0::/x y\nrubbish\n5:\n6:z:relative\n7:k:/");
  REQUIRE(lines.size() == 4);
  CHECK(lines[0].controllers == std::vector<std::string>{"name=systemd"});
  CHECK(lines[1].controllers == std::vector<std::string>{"cpu", "cpuacct"});
  CHECK(lines[1].path == "/a:b/c");
  CHECK(lines[2].controllers.empty());
  CHECK(lines[2].path == "/x y");
  CHECK(lines[3].path == "/");
}

TEST_CASE("cgroup hierarchies are found all, or the want of descriptors is told") {
  Tree tree{{"memory/cgroup.procs", ""}, {"cpu/cgroup.procs", ""}, {"unified/cgroup.controllers", "io\n"}, {"unified/cgroup.procs", ""}};
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  // Those above are in use or beyond the limit.
  int told = 0, found = 0;
  for (rlim_t limit = 3; limit < 60; ++limit) {
    const rlimit few{.rlim_cur = limit, .rlim_max = before.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &few);
    const auto cgroups = Cgroups::find(tree.path());
    ::setrlimit(RLIMIT_NOFILE, &before);
    if (cgroups) {
      ++found;
      CHECK(cgroups->hierarchies().size() == 3);
      CHECK(cgroups->hierarchy("") != nullptr);
      CHECK(cgroups->hierarchy("io") != nullptr);
    } else {
      ++told;
      CHECK(cgroups.error().code == EMFILE);
      CHECK(cgroups.error().hint == "");
    }
  }
  CHECK(told > 0);
  CHECK(found > 0);
}

TEST_CASE("cgroup v2 alone") {
  Tree tree{{"cgroup.controllers", "cpu io memory pids\n"},
            {"cgroup.procs", "1\n"},
            {"pod/cgroup.events", ""},
            {"pod/memory.max", "1000\n"},
            {"pod/cgroup.procs", ""},
            {"pod/node/cgroup.events", ""},
            {"pod/node/memory.max", "max\n"},
            {"pod/node/cgroup.procs", "12\n0\n11\n"},
            {"pod/node/worker/cgroup.procs", "13\n11\n"}};
  auto groups = Cgroups::find(tree.path());
  REQUIRE(groups);
  REQUIRE(groups->hierarchies().size() == 1);
  const std::string text = "0::/pod/node\n";
  CHECK(groups->path("memory", text) == "/pod/node");
  CHECK(groups->path("", text) == "/pod/node");
  CHECK(groups->path("blkio", text) == "/pod/node");    // io there
  CHECK(groups->path("cpuacct", text) == "/pod/node");  // cpu there
  CHECK(groups->path("hugetlb", text).empty());

  auto view = groups->view("memory", "/pod/node");
  REQUIRE(view);
  CHECK(view->version == 2);
  REQUIRE(view->levels.size() == 3);
  CHECK(view->to_root);
  CHECK(*view->levels[0].read("memory.max") == "max\n");
  CHECK(*view->levels[1].read("memory.max") == "1000\n");
  CHECK(pids_of(view->group()) == std::vector<pid_t>{11, 12, 13});

  auto gone = groups->open("memory", "/pod/other");
  REQUIRE_FALSE(gone);
  CHECK(gone.error().code == ENOENT);
}

TEST_CASE("cgroup v1 with joint controllers and links to them") {
  Tree tree{{"cpu,cpuacct/cgroup.procs", ""},
            {"cpu,cpuacct/release_agent", ""},
            {"cpu,cpuacct/a/cpu.shares", "7"},
            {"cpu", "->cpu,cpuacct"},
            {"cpuacct", "->cpu,cpuacct"},
            {"memory/cgroup.procs", ""},
            {"memory/b/memory.limit_in_bytes", "5"},
            {"blkio/cgroup.procs", ""},
            {"systemd/cgroup.procs", ""},
            {"empty/", ""},
            {"notes", "not a directory"}};
  auto groups = Cgroups::find(tree.path());
  REQUIRE(groups);
  CHECK(groups->hierarchies().size() == 4);
  const std::string text = "4:memory:/b\n3:cpu,cpuacct:/a\n2:blkio:/d\n1:name=systemd:/c\n";
  CHECK(groups->path("cpu", text) == "/a");
  CHECK(groups->path("cpuacct", text) == "/a");
  CHECK(groups->path("io", text) == "/d");
  CHECK(groups->path("name=systemd", text) == "/c");
  CHECK(groups->path("", text).empty());
  auto view = groups->view("cpuacct", "/a");
  REQUIRE(view);
  CHECK(view->version == 1);
  CHECK(view->to_root);
  CHECK(*view->group().read("cpu.shares") == "7");
  CHECK_FALSE(groups->view("", "/"));
}

TEST_CASE("hybrid: v1 controllers first, v2 for the rest") {
  Tree tree{{"memory/cgroup.procs", ""},
            {"memory/m/x", ""},
            {"unified/cgroup.procs", ""},
            {"unified/cgroup.controllers", "io\n"},
            {"unified/u/y", ""}};
  auto groups = Cgroups::find(tree.path());
  REQUIRE(groups);
  const std::string text = "1:memory:/m\n0::/u\n";
  CHECK(groups->path("memory", text) == "/m");
  CHECK(groups->path("io", text) == "/u");
  CHECK(groups->path("", text) == "/u");
  CHECK(groups->hierarchy("memory")->version == 1);
  CHECK(groups->hierarchy("")->version == 2);
  CHECK(groups->hierarchy("cpu") == nullptr);
}

TEST_CASE("a container sees its own group at the mount") {
  Tree tree{{"memory/cgroup.procs", "1\n"}, {"memory/inner/limit", "3"}, {"memory/limit", "5"}};
  const std::string where = tree.path("memory");
  auto groups =
      Cgroups::find(tree.path(), mount_line("/", "/", "ext4") + mount_line("/docker/abc", where, "cgroup"));
  REQUIRE(groups);
  CHECK(groups->hierarchies()[0].mounted == "/docker/abc");
  auto own = groups->view("memory", "/docker/abc");
  REQUIRE(own);
  CHECK(*own->group().read("limit") == "5");
  CHECK(own->levels.size() == 1);
  CHECK_FALSE(own->to_root);
  auto inner = groups->view("memory", "/docker/abc/inner");
  REQUIRE(inner);
  CHECK(*inner->group().read("limit") == "3");
  CHECK(inner->levels.size() == 2);
  auto other = groups->view("memory", "/docker/abcd");
  REQUIRE_FALSE(other);
  CHECK(other.error().code == EXDEV);
}

TEST_CASE("a cgroup namespace writes paths relative to itself") {
  Tree tree{{"cgroup.controllers", "memory\n"}, {"cgroup.events", ""}, {"memory.max", "5"}};
  auto groups = Cgroups::find(tree.path(), mount_line("/", tree.path(), "cgroup2"));
  REQUIRE(groups);
  auto own = groups->view("memory", "/");
  REQUIRE(own);
  CHECK(*own->group().read("memory.max") == "5");
  CHECK_FALSE(own->to_root);
  CHECK_FALSE(groups->view("memory", "/../sibling"));
  CHECK_FALSE(groups->view("memory", "/../../etc"));

  // The same when a sibling's group is what is mounted there.
  auto sibling = Cgroups::find(tree.path(), mount_line("/../sibling", tree.path(), "cgroup2"));
  REQUIRE(sibling);
  CHECK(sibling->view("memory", "/../sibling"));
  CHECK_FALSE(sibling->view("memory", "/"));
  CHECK_FALSE(sibling->view("memory", "/../sibling/.."));
}

TEST_CASE("a mount above the given root, and names with spaces") {
  Tree tree{{"a b/cgroup.controllers", ""}, {"a b/deep/x", ""}};
  const std::string where = tree.path();
  auto groups = Cgroups::find(tree.path("a b"), mount_line("/top", where, "cgroup2"));
  REQUIRE(groups);
  CHECK(groups->hierarchies()[0].mounted == "/top/a b");
  auto escaped = Cgroups::find(tree.path("a b"), mount_line("/gr\\040oup", where + "/a\\040b", "cgroup2"));
  REQUIRE(escaped);
  CHECK(escaped->hierarchies()[0].mounted == "/gr oup");
}

TEST_CASE("no cgroups at all") {
  Tree tree;
  auto groups = Cgroups::find(tree.path());
  REQUIRE(groups);
  CHECK(groups->hierarchies().empty());
  CHECK_FALSE(groups->open("memory", "/"));
  CHECK_FALSE(Cgroups::find(tree.path("missing")));
}

TEST_CASE("the processes of a group that is gone") {
  Tree tree{{"cgroup.controllers", ""}, {"a/cgroup.procs", "1"}};
  auto groups = Cgroups::find(tree.path());
  REQUIRE(groups);
  auto dir = groups->open("", "/a");
  REQUIRE(dir);
  tree.remove("a");
  std::vector<pid_t> pids;
  CHECK_FALSE(Cgroups::pids(*dir, pids));
}
