// Running a program in a test: its exit code and what it said.
#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace serpentine::test {

struct Ended {
  int code = 0;      // 128 + signal when a signal ended it
  std::string said;  // standard output and error
};

inline std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// `largest_file`: bytes after which a write fails, as on a full disk; 0: no limit. A deadline of
/// two minutes turns a hang into SIGALRM.
inline Ended run_program(const std::vector<std::string>& arguments, rlim_t largest_file = 0) {
  const std::string output = ::testing::TempDir() + "/said_" + std::to_string(getpid());
  const pid_t pid = fork();
  if (pid == 0) {
    const int fd = open(output.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    alarm(120);
    if (largest_file > 0) {
      signal(SIGXFSZ, SIG_IGN);  // the write fails with EFBIG instead
      const rlimit limit = {largest_file, largest_file};
      setrlimit(RLIMIT_FSIZE, &limit);
    }
    std::vector<char*> argv;
    for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return {WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), read_bytes(output)};
}

/// A new, empty folder.
inline std::string fresh_folder(const std::string& name) {
  const std::string folder =
      ::testing::TempDir() + "/serpentine_" + std::to_string(getpid()) + "_" + name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

}  // namespace serpentine::test
