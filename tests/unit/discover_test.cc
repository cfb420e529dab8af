// SPDX-License-Identifier: MIT OR Apache-2.0
#include "collectors/discover.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include "collectors/target.h"
#include "tests/unit/fake_elf.h"
#include "tests/unit/fake_proc.h"

using namespace boxo;
using boxo::test::FakeProc;
using boxo::test::go_program;
using boxo::test::Tree;

namespace {

const std::string kBoxo =
    go_program("path\tnode\nmod\tnode\t(devel)\t\ndep\tgithub.com/ipfs/boxo\tv0.42.1\th1:a=\n");
const std::string kItself =
    go_program("path\tgithub.com/ipfs/boxo/examples/gateway\nmod\tgithub.com/ipfs/boxo\tv1.0.0\t\n");
const std::string kKubo = go_program(
    "path\tgithub.com/ipfs/kubo/cmd/ipfs\nmod\tgithub.com/ipfs/kubo\tv0.43.0\t\n"
    "dep\tgithub.com/ipfs/boxo\tv0.42.1\th1:a=\n");
const std::string kOther =
    go_program("path\tother\nmod\tother\t(devel)\t\ndep\tgithub.com/ipfs/go-cid\tv0.5.0\th1:a=\n");

struct Host {
  FakeProc proc{{1, 0, 1, "init"}};
  Tree files{{"boxo", kBoxo}, {"itself", kItself}, {"kubo", kKubo}, {"other", kOther}, {"shell", "#!"}};

  void run(int pid, const std::string& program, const std::vector<std::string>& arguments,
           std::uint64_t start) {
    proc.add({pid, 1, start, program});
    proc.put(std::to_string(pid) + "/exe", "->" + files.path(program));
    std::string text;
    for (const std::string& one : arguments) text += one + '\0';
    proc.put(std::to_string(pid) + "/cmdline", text);
  }
  Target target() const {
    auto made = Target::make({}, proc.path(), "/nonexistent");
    REQUIRE(made);
    return std::move(*made);
  }
};

pid_t main_of(const Target& target) { return target.up() ? target.main()->id.pid : 0; }

}  // namespace

TEST_CASE("the oldest boxo-based program is found") {
  Host host;
  host.run(10, "shell", {"sh"}, 5);
  host.run(20, "other", {"other", "daemon"}, 6);
  host.run(300, "boxo", {"boxo"}, 7);
  host.run(40, "itself", {"gateway"}, 8);
  CHECK(main_of(host.target()) == 300);
  host.proc.end(300);
  CHECK(main_of(host.target()) == 40);
  host.proc.end(40);
  const Target none = host.target();
  CHECK_FALSE(none.up());
  CHECK(none.describe() == "no boxo-based process yet");
}

TEST_CASE("of kubo only the daemon") {
  Host host;
  host.run(10, "kubo", {"ipfs", "cat", "x"}, 5);
  host.run(20, "kubo", {"daemon"}, 5);  // its name only
  host.run(30, "kubo", {"ipfs", "--debug", "daemon", "--offline"}, now_ticks());
  CHECK(main_of(host.target()) == 30);
}

TEST_CASE("by name, too, a call of kubo is passed over") {
  Host host;
  host.run(10, "kubo", {"ipfs", "version"}, 5);
  auto made = Target::make({TargetSpec::Kind::kComm, 0, "kubo"}, host.proc.path(), "/nonexistent");
  REQUIRE(made);
  CHECK_FALSE(made->up());
  host.run(30, "kubo", {"ipfs", "daemon"}, now_ticks());
  made->refresh();
  CHECK(main_of(*made) == 30);
  host.proc.end(30);
  made->refresh();
  CHECK_FALSE(made->up());
  CHECK(made->restarts() == 0);
}

TEST_CASE("other programs have to live for a while") {
  Host host;
  host.run(10, "boxo", {"boxo"}, now_ticks());
  Target target = host.target();
  CHECK_FALSE(target.up());
  host.proc.end(10);
  host.run(11, "boxo", {"boxo"}, now_ticks() - 4 * ticks_per_second());
  target.refresh();
  CHECK(main_of(target) == 11);
}

TEST_CASE("it stays with its choice, and takes the next one when that ends") {
  Host host;
  host.run(20, "kubo", {"ipfs", "daemon"}, 50);
  Target target = host.target();
  host.run(10, "kubo", {"ipfs", "daemon"}, 5);
  host.run(30, "kubo", {"ipfs", "daemon"}, 60);
  target.refresh();
  CHECK(main_of(target) == 20);
  host.proc.end(20);
  target.refresh();
  CHECK(main_of(target) == 10);
  CHECK(target.restarts() == 1);  // it was no node yet when the choice was made
  host.proc.end(10);
  host.proc.end(30);
  target.refresh();
  CHECK(target.describe() == "no boxo-based process any more");
}

TEST_CASE("the agent itself is never chosen") {
  Host host;
  host.run(10, "boxo", {"boxo"}, 5);
  host.proc.put("self", "->10");
  CHECK_FALSE(host.target().up());
}

TEST_CASE("an executable replaced under the same path is read anew") {
  Host host;
  host.run(10, "other", {"other"}, 5);
  Target target = host.target();
  CHECK_FALSE(target.up());
  host.files.put("new", kBoxo);
  host.proc.put("10/exe", "->" + host.files.path("new"));
  target.refresh();
  CHECK(main_of(target) == 10);
}

TEST_CASE("what may not be read is told") {
  if (::geteuid() != 0) return;  // only root can become somebody who may not
  Host host;
  host.files.put("closed/boxo", kBoxo);
  host.run(10, "closed/boxo", {"boxo"}, 5);
  std::filesystem::permissions(host.proc.path(), std::filesystem::perms::all);
  std::filesystem::permissions(host.files.path("closed"), std::filesystem::perms::none);
  REQUIRE(::seteuid(65534) == 0);
  auto target = Target::make({}, host.proc.path(), "/nonexistent");
  const std::string text = target ? target->describe() : target.error().text();
  REQUIRE(::seteuid(0) == 0);
  CHECK(text ==
        "no boxo-based process yet; cannot read /proc/10/exe: Permission denied: run as root or with "
        "CAP_SYS_PTRACE");
  host.proc.end(10);
  target->refresh();
  CHECK(target->describe() == "no boxo-based process yet");
}
