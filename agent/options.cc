// SPDX-License-Identifier: MIT OR Apache-2.0
#include "agent/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <exception>
#include <functional>
#include <iterator>
#include <map>
#include <optional>

#include "agent/config_file.h"
#include "agent/version.h"
#include "collectors/kernel/windows.h"

namespace boxo {

using std::chrono::nanoseconds;

namespace {

constexpr nanoseconds kShortest = std::chrono::milliseconds(100);
constexpr nanoseconds kLongest = std::chrono::hours(1);

Error wrong(const std::string& option, const std::string& value, const std::string& why, std::string mend) {
  return Error{option + " " + value + ": " + why, std::move(mend)};
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

/// What the command line says, as text: checked below, where the messages are ours.
struct Raw {
  std::optional<std::string> pid, comm, cgroup, container;
  std::string interval = "5s";
  std::string events_mode;
  std::string history = "1000", peers = "100", series = "1000";
  std::vector<std::string> labels;
  std::string log_level = "info";
  bool no_bpf = false;
};

bool is_label_name(std::string_view name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  return !name.empty() && letter(name[0]) &&
         std::all_of(name.begin(), name.end(), [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

Result<Labels> labels_of(const std::vector<std::string>& texts) {
  Labels labels;
  for (const std::string& text : texts) {
    const auto equals = text.find('=');
    if (equals == std::string::npos) return wrong("--label", text, "no '='", "write KEY=VALUE");
    const std::string name = text.substr(0, equals);
    if (!is_label_name(name))
      return wrong("--label", text, "not a Prometheus label name", "use letters, digits and '_', no digit first");
    if (name.starts_with("__") || name == "le")
      return wrong("--label", text, "reserved by Prometheus", "choose another name");
    if (std::any_of(labels.begin(), labels.end(), [&](const Label& label) { return label.name == name; }))
      return wrong("--label", text, "given twice", "give each label once");
    labels.push_back({name, text.substr(equals + 1)});
  }
  return labels;
}

Result<TargetSpec> target_of(const Raw& raw) {
  using Kind = TargetSpec::Kind;
  std::string first;
  for (const auto& [option, value] : {std::pair{"--pid", &raw.pid}, std::pair{"--comm", &raw.comm},
                                      std::pair{"--cgroup", &raw.cgroup}, std::pair{"--container", &raw.container}}) {
    if (!*value) continue;
    if (!first.empty()) return wrong(option, **value, "a target was given already by " + first, "give only one of them");
    if ((*value)->empty()) return wrong(option, "''", "empty", "say which one to watch, or leave the option out");
    first = option;
  }
  if (raw.pid) {
    pid_t pid = 0;
    const auto end = raw.pid->data() + raw.pid->size();
    const auto [stop, error] = std::from_chars(raw.pid->data(), end, pid);
    if (error != std::errc() || stop != end || pid <= 0)
      return wrong("--pid", *raw.pid, "not a process id", "give a positive number");
    return TargetSpec{Kind::kPid, pid, {}};
  }
  if (raw.comm) return TargetSpec{Kind::kComm, 0, *raw.comm};
  if (raw.cgroup) return TargetSpec{Kind::kCgroup, 0, *raw.cgroup};
  if (raw.container) return TargetSpec{Kind::kContainer, 0, *raw.container};
  return TargetSpec{};
}

Result<std::size_t> count_of(const std::string& option, const std::string& text, std::size_t least, std::size_t most) {
  std::size_t value = 0;
  const auto end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < least || value > most)
    return wrong(option, text, "out of range",
                 "give a number from " + std::to_string(least) + " to " + std::to_string(most));
  return value;
}

bool has(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Result<> check_names(const std::string& option, const std::vector<std::string>& given,
                     const std::vector<std::string>& known) {
  for (const std::string& name : given)
    if (!has(known, name)) return wrong(option, name, "no such name", "choose among " + joined(known));
  return {};
}

/// "syscalls" of "syscalls:10%".
std::string name_part(const std::string& text) { return text.substr(0, text.find(':')); }

Result<> check_probes(const std::vector<std::string>& given, const KnownNames& known) {
  std::map<std::string, std::string> seen;
  for (const std::string& text : given) {
    const std::string name = name_part(text);
    if (!has(known.probes, name))
      return wrong("--probe", text, "no such name", "choose among " + joined(known.probes));
    if (!kernel::share_of(text))
      return wrong("--probe", text, "not a share of the time", "give NAME, or NAME:10% with more than 0 and at most 100");
    if (text != name && !has(known.with_share, name))
      return wrong("--probe", text, "it cannot be attached for a share of the time",
                   "leave the share out; " + joined(known.with_share) + " can have one");
    if (const auto& first = seen.try_emplace(name, text).first->second; first != text)
      return wrong("--probe", text, "given already as " + first, "give each probe once");
  }
  return {};
}

/// Whether the command line itself has the option, not only the file.
using Given = std::function<bool(std::string_view)>;

/// What is both asked for and left out. A file that says the one does not stand against a command line that says the other.
Result<> settle(const char* on, const std::vector<std::string>& wanted, const char* off,
                std::vector<std::string>& unwanted, const Given& given) {
  const auto clashes = [&](const std::string& text) { return has(unwanted, name_part(text)); };
  const auto clash = std::find_if(wanted.begin(), wanted.end(), clashes);
  if (clash == wanted.end()) return {};
  if (given(on) == given(off))
    return wrong(on, *clash, "left out by " + std::string(off) + " " + name_part(*clash), "give only one of them");
  if (given(on))
    for (const std::string& text : wanted) std::erase(unwanted, name_part(text));
  return {};
}

Result<> check_choices(const KnownNames& known, const Given& given, Options& options) {
  auto& probes_off = options.collection.probes_off;
  for (const auto& [option, names, all] : {std::tuple{"--collector", &options.collectors_on, &known.collectors},
                                           std::tuple{"--no-collector", &options.collectors_off, &known.collectors},
                                           std::tuple{"--no-probe", &probes_off, &known.probes}})
    if (auto checked = check_names(option, *names, *all); !checked) return checked;
  if (has(probes_off, known.base))
    return wrong("--no-probe", known.base, "the other probes need it", "use --no-bpf to have none of them");
  if (auto checked = check_probes(options.collection.probes_on, known); !checked) return checked;
  if (auto settled = settle("--collector", options.collectors_on, "--no-collector", options.collectors_off, given); !settled)
    return settled;
  return settle("--probe", options.collection.probes_on, "--no-probe", probes_off, given);
}

Result<> take_events(const Raw& raw, EventOptions& events) {
  unsigned mode = 0;
  const auto end = raw.events_mode.data() + raw.events_mode.size();
  const auto [stop, error] = std::from_chars(raw.events_mode.data(), end, mode, 8);
  const bool given = !raw.events_mode.empty();
  if (given && (error != std::errc() || stop != end || mode == 0 || mode > 0777))
    return wrong("--events-mode", raw.events_mode, "not a file mode", "give an octal number such as 0660");
  events.mode = mode;
  const auto history = count_of("--history", raw.history, 1, 1'000'000);
  const auto peers = count_of("--peers", raw.peers, 0, 100'000);
  const auto series = count_of("--series", raw.series, 0, 1'000'000);
  for (const auto* count : {&history, &peers, &series})
    if (!*count) return count->error();
  events.history = *history;
  events.peers = *peers;
  events.series = *series;
  return {};
}

Result<> take(const Raw& raw, const KnownNames& known, const Given& given, Options& options) {
  auto target = target_of(raw);
  if (!target) return target.error();
  options.target = std::move(*target);
  if (!options.command.empty() && options.target.kind != TargetSpec::Kind::kDiscover)
    return Error{"-- " + options.command[0] + ": a target was given already", "give either a command or one of "
                 "--pid, --comm, --cgroup, --container"};
  const auto interval = parse_duration(raw.interval);
  if (!interval) return Error{"--interval " + interval.error().message, interval.error().hint};
  if (*interval < kShortest || *interval > kLongest)
    return wrong("--interval", raw.interval, "out of range", "give 100ms to 1h");
  options.collection.interval = *interval;
  options.collection.bpf = !raw.no_bpf;
  auto labels = labels_of(raw.labels);
  if (!labels) return labels.error();
  options.labels = std::move(*labels);
  for (const Label& label : options.labels) options.collection.events.constant_labels.push_back(label.name);
  const auto level = log_level(raw.log_level);
  if (!level) return wrong("--log-level", raw.log_level, "no such level", "choose among error, warn, info, debug");
  options.log_level = *level;
  if (auto checked = check_choices(known, given, options); !checked) return checked;
  options.collection.events.required = !options.once && !options.check;
  return take_events(raw, options.collection.events);
}

/// A line of the configuration file that is none.
struct WrongLine : std::exception {
  explicit WrongLine(Error what) : error(std::move(what)) {}
  Error error;
};

class FileFormat : public CLI::Config {
 public:
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    auto settings = parse_config(std::string(std::istreambuf_iterator<char>(input), {}));
    if (!settings) throw WrongLine(settings.error());
    std::vector<CLI::ConfigItem> items;
    for (Setting& one : *settings) items.push_back({{}, std::move(one.name), std::move(one.values)});
    return items;
  }
  std::string to_config(const CLI::App*, bool, bool, std::string) const override { return {}; }
};

class HelpFormat : public CLI::Formatter {
 public:
  HelpFormat() { column_width(32); }
  std::string make_usage(const CLI::App*, std::string) const override {
    return "Usage: boxo-agent [OPTIONS] [-- COMMAND [ARG...]]\n";
  }
  // "NAME" and "NAME (default 5s)" instead of "NAME ..." and "NAME=5s".
  std::string make_option_opts(const CLI::Option* option) const override {
    std::string text = option->get_type_name().empty() ? "" : " " + option->get_type_name();
    if (!option->get_default_str().empty()) text += " (default " + option->get_default_str() + ")";
    return text;
  }
};

void describe(CLI::App& app, Options& options, Raw& raw) {
  app.set_version_flag("--version", std::string("boxo-agent ") + kVersion + " (" + kRevision + ")");
  app.set_help_flag("--help", "Print this help and exit");
  auto* config = app.set_config("--config", "", "Read options from FILE (TOML, the same names); the command line wins");
  config->type_name("FILE");
  app.config_formatter(std::make_shared<FileFormat>());
  app.allow_config_extras(CLI::config_extras_mode::error);

  // Groups are headings only: what excludes what is checked in take(), with a better message.
  const auto option = [&app](const char* group, const char* name, auto& into, const char* type, const char* help) {
    return app.add_option(name, into, help)->type_name(type)->group(group)->allow_extra_args(false);
  };
  const char* target = "Target (at most one; none given: find a running boxo-based node)";
  option(target, "--pid", raw.pid, "PID", "Watch the process with this pid and its descendants");
  option(target, "--comm", raw.comm, "NAME", "Watch the process with this name; wait for it, re-attach when it restarts");
  option(target, "--cgroup", raw.cgroup, "PATH", "Watch every process in this cgroup");
  option(target, "--container", raw.container, "ID", "Watch every process of this container");

  option("Export", "--listen", options.listen, "ADDR:PORT", "Serve HTTP here; port 0 picks a free one")
      ->capture_default_str();
  option("Export", "--label", raw.labels, "KEY=VALUE", "Constant label on every series (repeatable)");
  app.add_flag("--once", options.once, "Collect once, print the metrics to standard output, exit")->group("Export");

  option("Collection", "--interval", raw.interval, "DURATION", "Time between two collections, 100ms to 1h")
      ->capture_default_str();
  option("Collection", "--collector", options.collectors_on, "NAME", "Run only the named collectors (repeatable)");
  option("Collection", "--no-collector", options.collectors_off, "NAME", "Do not run this collector (repeatable)");
  option("Collection", "--probe", options.collection.probes_on, "NAME",
         "Attach a probe that is off by default (repeatable)");
  option("Collection", "--no-probe", options.collection.probes_off, "NAME", "Do not attach this probe (repeatable)");
  app.add_flag("--no-bpf", raw.no_bpf, "Use /proc, cgroups and sock_diag only")->group("Collection");

  EventOptions& event = options.collection.events;
  option("Events", "--events", event.socket, "PATH", "Unix datagram socket for events")->capture_default_str();
  option("Events", "--events-stream", event.stream, "PATH", "Unix stream socket for events; off unless given");
  option("Events", "--events-mode", raw.events_mode, "OCTAL",
         "File mode of the sockets (default 0660 with a group, else 0666)");
  option("Events", "--events-group", event.group, "GROUP", "Group of the sockets; its members may send");
  option("Events", "--history", raw.history, "N", "Samples kept for averages and percentiles")->capture_default_str();
  option("Events", "--peers", raw.peers, "N", "Peers and remotes with series of their own; the rest is summed")
      ->capture_default_str();
  option("Events", "--series", raw.series, "N", "Series of custom metrics at most")->capture_default_str();

  option("Data", "--data-dir", options.collection.data_dir, "PATH",
         "Where the node keeps its data, for space and amplification (default: its IPFS_PATH, else its working directory)");

  app.add_flag("--check", options.check, "Say what works here and what does not, and why, then exit");
  app.add_flag("--list", options.list, "List every metric this build can export, then exit");
  app.add_option("--log-level", raw.log_level, "error, warn, info or debug")->type_name("LEVEL")
      ->capture_default_str();
}

/// A target on the command line replaces the one in the configuration file, whatever its kind.
void prefer_command_line(const Given& given, bool command, Raw& raw) {
  const std::pair<const char*, std::optional<std::string>*> all[] = {
      {"--pid", &raw.pid}, {"--comm", &raw.comm}, {"--cgroup", &raw.cgroup}, {"--container", &raw.container}};
  const bool any = command || std::any_of(std::begin(all), std::end(all), [&](const auto& one) { return given(one.first); });
  for (const auto& [name, value] : all)
    if (any && !given(name)) value->reset();
}

}  // namespace

bool Options::wants(std::string_view collector) const {
  return (collectors_on.empty() || has(collectors_on, collector)) && !has(collectors_off, collector);
}

Result<nanoseconds> parse_duration(const std::string& text) {
  double value = 0;
  const auto end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value, std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(value) || value < 0)
    return Error{text + ": not a duration", "write a number and a unit, such as 5s or 500ms"};
  const std::string unit(stop, end);
  double seconds = 0;
  if (unit == "ms") seconds = 1e-3;
  else if (unit == "s") seconds = 1;
  else if (unit == "m") seconds = 60;
  else if (unit == "h") seconds = 3600;
  else return Error{text + (unit.empty() ? ": no unit" : ": unknown unit " + unit), "use ms, s, m or h, such as 5s"};
  if (value * seconds > 1e9) return Error{text + ": too long", "give at most 1h"};
  return nanoseconds(static_cast<std::int64_t>(value * seconds * 1e9));
}

Result<std::variant<Options, Printout>> parse_options(int argc, const char* const* argv, const KnownNames& known) {
  Options options;
  Raw raw;
  // What follows `--` is another program's command line: not ours to interpret.
  int own = argc;
  for (int i = 1; i < argc && own == argc; ++i)
    if (std::string_view(argv[i]) == "--") own = i;
  for (int i = own + 1; i < argc; ++i) options.command.emplace_back(argv[i]);
  if (own < argc && options.command.empty()) return Error{"--: no command follows", "give a command after --"};

  CLI::App app("Watches one IPFS node (kubo, or any program built on boxo) and exports what it sees to Prometheus.",
               "boxo-agent");
  app.formatter(std::make_shared<HelpFormat>());
  try {
    describe(app, options, raw);
    app.parse(own, argv);
  } catch (const CLI::CallForHelp&) {
    return std::variant<Options, Printout>(Printout{app.help()});
  } catch (const CLI::CallForVersion&) {
    return std::variant<Options, Printout>(Printout{app.version() + "\n"});
  } catch (const CLI::FileError& error) {
    return Error{"--config: " + one_line(error.what()), "give a file that exists and may be read"};
  } catch (const WrongLine& wrong) {
    return Error{"--config: " + wrong.error.message, wrong.error.hint};
  } catch (const CLI::ConfigError& error) {
    std::string what = one_line(error.what());
    if (constexpr std::string_view kParser = "INI was not able to parse "; what.starts_with(kParser))
      what = "not understood: " + what.substr(kParser.size());
    return Error{"--config: " + what, "write TOML with the names of the command line, without the dashes"};
  } catch (const CLI::Error& error) {
    return Error{one_line(error.what()), "see boxo-agent --help"};
  }
  const Given given = [&](std::string_view name) {
    return std::any_of(argv + 1, argv + own, [&](std::string_view word) {
      return word == name || (word.starts_with(name) && word.substr(name.size()).starts_with('='));
    });
  };
  prefer_command_line(given, !options.command.empty(), raw);
  if (auto taken = take(raw, known, given, options); !taken) return taken.error();
  return std::variant<Options, Printout>(std::move(options));
}

}  // namespace boxo
