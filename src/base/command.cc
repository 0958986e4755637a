#include "tandem/base/command.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

extern char** environ;

namespace tandem {
namespace {

constexpr std::size_t kTextMax = 4096;
constexpr int kLookMs = 50;

std::string trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

std::string ending_of(int status) {
  if (WIFEXITED(status)) return "exit code " + std::to_string(WEXITSTATUS(status));
  return "killed by signal " + std::to_string(WTERMSIG(status));
}

/// False: nothing there now. Keeps the end of what comes.
bool take_output(int fd, std::string& text) {
  char part[1024];
  const ssize_t n = ::read(fd, part, sizeof part);
  if (n <= 0) return false;
  text.append(part, static_cast<std::size_t>(n));
  if (text.size() > kTextMax) text.erase(0, text.size() - kTextMax);
  return true;
}

/// Its own group, so that it can be ended with everything that it started.
int spawn(const std::string& command, const std::vector<char*>& variables, int output, pid_t& pid) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, output, 1);
  posix_spawn_file_actions_adddup2(&files, output, 2);
  // What this process ignores, as a daemon does, a command expects to work.
  sigset_t usual, none;
  sigemptyset(&usual);
  sigaddset(&usual, SIGPIPE);
  sigemptyset(&none);
  posix_spawnattr_setsigdefault(&attributes, &usual);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  const char* const words[] = {"/bin/sh", "-c", command.c_str(), nullptr};
  const int failed = ::posix_spawn(&pid, words[0], &files, &attributes,
                                   const_cast<char* const*>(words), variables.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return failed;
}

}  // namespace

Result<CommandOutput> run_command(
    const std::string& command, const std::vector<std::pair<std::string, std::string>>& environment,
    Nanoseconds limit, const std::atomic<bool>* given_up) {
  std::vector<std::string> texts;
  for (const auto& [name, value] : environment) texts.push_back(name + "=" + value);
  std::vector<char*> variables;
  for (char** inherited = environ; *inherited != nullptr; ++inherited)
    variables.push_back(*inherited);
  for (auto& text : texts) variables.push_back(text.data());
  variables.push_back(nullptr);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    return Error{ErrorCode::kIo, std::string("no pipe for a command: ") + std::strerror(errno)};
  ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
  pid_t pid = 0;
  const int failed = spawn(command, variables, ends[1], pid);
  ::close(ends[1]);
  if (failed != 0) {
    ::close(ends[0]);
    return Error{ErrorCode::kIo, "cannot run \"" + command + "\": " + std::strerror(failed)};
  }
  CommandOutput out;
  int status = 0;
  bool ended = false;
  // A child that it left behind may hold the pipe open: what counts is the command's own end.
  const auto end = std::chrono::steady_clock::now() + limit;
  const auto left = [given_up] { return given_up != nullptr && *given_up; };
  while (!ended && !left() && std::chrono::steady_clock::now() < end) {
    pollfd wait{ends[0], POLLIN, 0};
    // Output that was closed is always ready, and nothing comes any more.
    if (::poll(&wait, 1, kLookMs) > 0 && !take_output(ends[0], out.text))
      ::poll(nullptr, 0, kLookMs);
    ended = ::waitpid(pid, &status, WNOHANG) == pid;
  }
  if (!ended) {
    ::kill(-pid, SIGKILL);
    ::waitpid(pid, &status, 0);
  }
  while (take_output(ends[0], out.text)) {
  }
  ::close(ends[0]);
  out.text = trimmed(out.text);
  out.good = ended && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (ended) {
    out.ending = ending_of(status);
  } else if (left()) {
    out.ending = "was given up";
  } else {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(limit);
    out.ending = "did not end within " + std::to_string(seconds.count()) + " s";
  }
  return out;
}

}  // namespace tandem
