// SPDX-License-Identifier: MIT OR Apache-2.0
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "agent/options.h"
#include "collectors/fd.h"

using namespace boxo;

namespace {

const KnownNames kKnown{{"process", "events"}, {"members", "syscalls", "blockio"}, {"syscalls"}, "members"};

Result<std::variant<Options, Printout>> parse(std::vector<const char*> words) {
  words.insert(words.begin(), "boxo-agent");
  return parse_options(static_cast<int>(words.size()), words.data(), kKnown);
}

Options good(const std::vector<const char*>& words) {
  auto parsed = parse(words);
  REQUIRE_MESSAGE(parsed, (parsed ? "" : parsed.error().text()));
  return std::get<Options>(*parsed);
}

std::string bad(const std::vector<const char*>& words) {
  auto parsed = parse(words);
  REQUIRE(!parsed);
  CHECK(parsed.error().text().find('\n') == std::string::npos);
  CHECK_FALSE(parsed.error().hint.empty());
  return parsed.error().text();
}

struct TemporaryFile {
  std::string path = "/tmp/boxo-agent-test-XXXXXX";
  explicit TemporaryFile(const std::string& text) {
    const Fd fd(::mkstemp(path.data()));
    REQUIRE(fd);
    std::ofstream(path) << text;
  }
  ~TemporaryFile() { std::remove(path.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  TemporaryFile(TemporaryFile&&) = delete;
  TemporaryFile& operator=(TemporaryFile&&) = delete;
};

}  // namespace

TEST_CASE("options: the defaults are those of the contract") {
  const Options options = good({});
  CHECK(options.target.kind == TargetSpec::Kind::kDiscover);
  CHECK(options.listen == "127.0.0.1:9559");
  CHECK(options.collection.interval == std::chrono::seconds(5));
  CHECK(options.collection.events.socket == "/run/boxo-agent/events.sock");
  CHECK(options.collection.events.stream.empty());
  CHECK(options.collection.bpf);
  CHECK(options.wants("process"));
}

TEST_CASE("options: what each kind of target gives") {
  CHECK(good({"--pid", "42"}).target.pid == 42);
  CHECK(good({"--comm", "ipfs"}).target.kind == TargetSpec::Kind::kComm);
  CHECK(good({"--cgroup", "/x"}).target.name == "/x");
  CHECK(good({"--container", "abcd"}).target.kind == TargetSpec::Kind::kContainer);
  const Options command = good({"--once", "--", "ls", "--pid", "--", "x"});
  CHECK(command.command == std::vector<std::string>{"ls", "--pid", "--", "x"});
}

TEST_CASE("options: an error names the option, the value and the mend") {
  CHECK(bad({"--pid", "x"}) == "--pid x: not a process id: give a positive number");
  CHECK(bad({"--pid", "1", "--comm", "y"}) == "--comm y: a target was given already by --pid: give only one of them");
  CHECK(bad({"--cgroup", ""}) == "--cgroup '': empty: say which one to watch, or leave the option out");
  CHECK(bad({"--interval", "5"}) == "--interval 5: no unit: use ms, s, m or h, such as 5s");
  CHECK(bad({"--interval", "99ms"}).find("100ms to 1h") != std::string::npos);
  CHECK(bad({"--interval", "61m"}).find("100ms to 1h") != std::string::npos);
  CHECK(bad({"--interval", "-1s"}).find("--interval -1s") != std::string::npos);
  CHECK(bad({"--label", "novalue"}).find("KEY=VALUE") != std::string::npos);
  CHECK(bad({"--label", "le=1"}).find("reserved") != std::string::npos);
  CHECK(bad({"--label", "a=1", "--label", "a=2"}).find("twice") != std::string::npos);
  CHECK(bad({"--collector", "nope"}).find("choose among process, events") != std::string::npos);
  CHECK(bad({"--probe", "nope:10%"}).find("choose among members, syscalls, blockio") != std::string::npos);
  CHECK(bad({"--events-mode", "0999"}).find("--events-mode 0999") != std::string::npos);
  CHECK(bad({"--history", "0"}).find("--history 0") != std::string::npos);
  CHECK(bad({"--log-level", "loud"}).find("choose among error") != std::string::npos);
  CHECK(bad({"--nonsense"}).find("--nonsense") != std::string::npos);
  CHECK(bad({"stray"}).find("stray") != std::string::npos);
  CHECK(bad({"--"}).find("command") != std::string::npos);
  CHECK(bad({"--pid", "1", "--", "ls"}).find("target was given") != std::string::npos);
}

TEST_CASE("options: collectors are chosen and left out") {
  CHECK_FALSE(good({"--no-collector", "events"}).wants("events"));
  CHECK(good({"--collector", "events"}).wants("events"));
  CHECK_FALSE(good({"--collector", "events"}).wants("process"));
  for (const char* share : {"syscalls:", "syscalls:10", "syscalls:0%", "syscalls:101%"})
    CHECK(bad({"--probe", share}).starts_with(std::string("--probe ") + share + ": "));
  CHECK(good({"--probe", "syscalls:10%"}).collection.probes_on == std::vector<std::string>{"syscalls:10%"});
}

TEST_CASE("options: a probe or collector that is not to be had as it was asked for") {
  CHECK(bad({"--probe", "blockio:10%"}) ==
        "--probe blockio:10%: it cannot be attached for a share of the time: leave the share out; syscalls can have one");
  CHECK(bad({"--probe", "syscalls:10%", "--probe", "syscalls"}) ==
        "--probe syscalls: given already as syscalls:10%: give each probe once");
  CHECK(good({"--probe", "blockio", "--probe", "blockio"}).collection.probes_on.size() == 2);
  CHECK(bad({"--probe", "syscalls:10%", "--no-probe", "syscalls"}) ==
        "--probe syscalls:10%: left out by --no-probe syscalls: give only one of them");
  CHECK(bad({"--collector", "process", "--no-collector", "process"}) ==
        "--collector process: left out by --no-collector process: give only one of them");
  CHECK(bad({"--no-probe", "members"}) == "--no-probe members: the other probes need it: use --no-bpf to have none of them");
  // Only --probe has shares.
  for (const char* option : {"--no-probe", "--no-collector", "--collector"})
    CHECK(bad({option, "syscalls:10%"}).starts_with(std::string(option) + " syscalls:10%: no such name: choose among "));
}

TEST_CASE("options: what the file asks for and the command line leaves out, or the other way round") {
  const TemporaryFile file("probe = [\"syscalls\"]\nno-probe = [\"blockio\"]\nno-collector = [\"events\"]\n");
  const char* path = file.path.c_str();
  const auto off = [&](const Options& options) { return options.collection.probes_off; };
  CHECK(off(good({"--config", path})) == std::vector<std::string>{"blockio"});
  CHECK(off(good({"--config", path, "--no-probe=syscalls"})) == std::vector<std::string>{"syscalls"});
  CHECK(off(good({"--config", path, "--probe", "blockio"})).empty());
  CHECK(good({"--config", path, "--collector", "events"}).wants("events"));
  const TemporaryFile both("probe = [\"syscalls\"]\nno-probe = [\"syscalls\"]\n");
  CHECK(bad({"--config", both.path.c_str()}).starts_with("--probe syscalls: left out by --no-probe syscalls: "));
}

TEST_CASE("options: a file says the same, the command line wins, a wrong name is an error") {
  const TemporaryFile file("interval = \"1s\"\nlabel = [\"a=b\", \"c=d\"]\nno-bpf = true\ncomm = \"x\"\n");
  const Options options = good({"--config", file.path.c_str(), "--interval", "2s"});
  CHECK(options.collection.interval == std::chrono::seconds(2));
  CHECK(options.labels.size() == 2);
  CHECK_FALSE(options.collection.bpf);
  CHECK(options.target.name == "x");
  CHECK(good({"--config", file.path.c_str(), "--pid=7"}).target.pid == 7);
  CHECK(good({"--config", file.path.c_str(), "--", "ls"}).target.kind == TargetSpec::Kind::kDiscover);
  const TemporaryFile wrong("intervall = \"1s\"\n");
  CHECK(bad({"--config", wrong.path.c_str()}).starts_with("--config: not understood: intervall: "));
  CHECK(bad({"--config", "/no/such/file"}).starts_with("--config: /no/such/file "));
}

TEST_CASE("options: a file that is not one names the line") {
  const auto wrong = [](const std::string& text) {
    const TemporaryFile file(text);
    return bad({"--config", file.path.c_str()});
  };
  constexpr const char* kOpen = ": a quote is left open: close it in the same line";
  CHECK(wrong("# one\n\ncomm = \"ipfs\ninterval = \"2s\"\n") == std::string("--config: line 3") + kOpen);
  CHECK(wrong("comm = 'ipfs") == std::string("--config: line 1") + kOpen);
  CHECK(wrong("label = [\"a=b\",\n  \"c=d]\n") == std::string("--config: line 2") + kOpen);
  CHECK(wrong("label = [\"a=b\", \"c=d]\"\n\n") == "--config: line 1: label: the list has no end: close it with ']'");
  CHECK(wrong("once = true\nlabel = [\"a=b\",\n\"c=d\"\n# ]\n") == "--config: line 2: label: the list has no end: close it with ']'");
  // What follows is not part of the list.
  CHECK(wrong("label = [\"a=b\"] x\nprobe = [\"syscalls\"]\n").starts_with("--config: line 1: label: something follows the ']'"));
  CHECK(wrong("once\nlabel = \"a=b\"c\n").starts_with("--config: line 2: label: something follows a closing quote"));
  CHECK(wrong("label = a=\"b c\"\n").starts_with("--config: line 1: a=\"b: a quote within a word"));
  CHECK(wrong("listen = # nothing\n").starts_with("--config: line 1: listen: no value"));
  CHECK(wrong("\"listen\" \"x\"\n").starts_with("--config: line 1: listen: no '=' follows"));
  CHECK(wrong("[agent]\n").starts_with("--config: line 1: [agent]: there are no sections"));
  CHECK(wrong("interval = 1s\nonce\ninterval = 2s\n").find("--interval") != std::string::npos);
  CHECK(wrong("label = []\n").find("--label") != std::string::npos);
}

TEST_CASE("options: what a file may hold") {
  const TemporaryFile file(
      "; old\n"
      "[default]   # as other programs have it\n"
      "comm = \"a # b\"  # a comment with a \" in it\n"
      "label = [  # several lines\n"
      "  \"a=#1\", 'b=\\',\n"
      "  # \"x=y\",\n"
      "\n"
      "  \"c=\\\"[x], \\\\\"  ,\n"
      "]\n"
      "\"no-bpf\"\n"
      "label = d=1, 'e=2' f=3\n"
      "interval=2s#soon\r\n"
      "events = \"\"\n"
      "once = false");
  const Options options = good({"--config", file.path.c_str()});
  CHECK(options.target.name == "a # b");
  std::string labels;
  for (const Label& label : options.labels) labels += label.name + "=" + label.value + "|";
  CHECK(labels == "a=#1|b=\\|c=\"[x], \\|d=1|e=2|f=3|");
  CHECK_FALSE(options.collection.bpf);
  CHECK_FALSE(options.once);
  CHECK(options.collection.interval == std::chrono::seconds(2));
  CHECK(options.collection.events.socket.empty());
  const TemporaryFile nothing("");
  CHECK(good({"--config", nothing.path.c_str()}).listen == "127.0.0.1:9559");
}

TEST_CASE("options: durations") {
  CHECK(*parse_duration("250ms") == std::chrono::milliseconds(250));
  CHECK(*parse_duration("1.5m") == std::chrono::seconds(90));
  CHECK(*parse_duration("1h") == std::chrono::hours(1));
  for (const char* text : {"", "s", "5", "5d", "1e9h", "nan s", "inf", "0x5s", "5 s"}) CHECK_FALSE(parse_duration(text));
}
