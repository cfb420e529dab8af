// SPDX-License-Identifier: MIT OR Apache-2.0
#include "agent/child.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstring>

#include "collectors/log.h"

namespace boxo {

namespace {

/// In the child, between fork and exec: only async-signal-safe calls.
[[noreturn]] void become(char* const* argv, const rlimit& descriptors, int go, int failure) {
  char byte = 1;
  // Until it runs it is looked at already, and named in messages.
  const char* const slash = std::strrchr(argv[0], '/');
  ::prctl(PR_SET_NAME, slash == nullptr ? argv[0] : slash + 1);
  (void)!::write(failure, &byte, 1);
  // End of file instead of a byte: the agent died first.
  if (::read(go, &byte, 1) != 1) ::_exit(125);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  ::setrlimit(RLIMIT_NOFILE, &descriptors);
  ::execvp(argv[0], argv);
  const int code = errno;
  (void)!::write(failure, &code, sizeof code);
  ::_exit(code == ENOENT ? 127 : 126);
}

int shell_status(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

}  // namespace

Result<Child> Child::fork_held(const std::vector<std::string>& command, const rlimit& descriptors) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  int go[2];
  int failure[2];
  if (::pipe2(go, O_CLOEXEC) != 0) return errno_error("pipe");
  Fd go_read(go[0]);
  Fd go_write(go[1]);
  if (::pipe2(failure, O_CLOEXEC) != 0) return errno_error("pipe");
  Fd failure_read(failure[0]);
  Fd failure_write(failure[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return errno_error("cannot start " + command[0]);
  if (pid == 0) {
    ::close(go[1]);  // else it would never see the end of file
    become(argv.data(), descriptors, go[0], failure[1]);
  }
  failure_write.reset();  // else the end of file would not come if it died early
  char named = 0;
  while (::read(failure_read.get(), &named, 1) < 0 && errno == EINTR) {
  }
  return Child(pid, std::move(go_write), std::move(failure_read));
}

pid_t Child::pid_in_proc() const {
  const Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  const auto proc = Dir::open("/proc");
  const auto info = fd && proc ? proc->read("self/fdinfo/" + std::to_string(fd.get())) : Result<std::string>(Error{});
  const std::string key = "\nPid:\t";
  const std::size_t at = info ? info->find(key) : std::string::npos;
  pid_t pid = 0;
  if (at != std::string::npos)
    std::from_chars(info->data() + at + key.size(), info->data() + info->size(), pid);
  return pid > 0 ? pid : pid_;
}

Result<> Child::release() {
  const char byte = 1;
  (void)!::write(go_.get(), &byte, 1);
  go_.reset();
  int code = 0;
  ssize_t n = 0;
  do n = ::read(failure_.get(), &code, sizeof code);
  while (n < 0 && errno == EINTR);
  failure_.reset();
  if (n != sizeof code) return {};
  wait();
  return errno_error("cannot execute", "give a program that exists and may be executed", code);
}

void Child::signal(int number) const {
  if (status_ || ::kill(pid_, number) == 0) return;
  const int code = errno;
  // That it has just ended is no failure.
  if (code != ESRCH)
    log_warn(errno_error("cannot pass signal " + std::to_string(number) + " on to the command",
                         "give the agent CAP_KILL, since the command changed its user", code)
                 .text());
}

std::optional<int> Child::ended() {
  int status = 0;
  // As the init of a container the agent is also the parent of those whose own has ended.
  while (const pid_t pid = ::waitpid(-1, &status, WNOHANG)) {
    if (pid < 0) break;
    if (pid == pid_) status_ = shell_status(status);
  }
  return status_;
}

int Child::wait() {
  int status = 0;
  while (!status_) {
    if (::waitpid(pid_, &status, 0) == pid_) status_ = shell_status(status);
    else if (errno != EINTR) status_ = 125;
  }
  return *status_;
}

}  // namespace boxo
