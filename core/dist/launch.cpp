#include "core/dist/launch.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/check.h"

namespace serpentine {

namespace {

int free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  const bool bound = fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  const std::string cause = std::strerror(errno);
  if (fd >= 0) close(fd);
  SERPENTINE_CHECK(bound, "launch", "could not find a free local port: ", cause);
  return ntohs(address.sin_port);
}

[[noreturn]] void become(const std::vector<std::string>& arguments, int64_t rank, int64_t nproc,
                         int port) {
  const auto set = [](const char* name, const std::string& value) {
    setenv(name, value.c_str(), 1);
  };
  set("RANK", std::to_string(rank));
  set("LOCAL_RANK", std::to_string(rank));
  set("WORLD_SIZE", std::to_string(nproc));
  set("MASTER_ADDR", "127.0.0.1");
  set("MASTER_PORT", std::to_string(port));
  if (std::getenv("OMP_NUM_THREADS") == nullptr) {  // as torchrun does not, share the cores out
    const auto cores = static_cast<int64_t>(std::thread::hardware_concurrency());
    set("OMP_NUM_THREADS", std::to_string(std::max<int64_t>(1, cores / nproc)));
  }
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  const char* cause = std::strerror(errno);
  (void)!write(STDERR_FILENO, cause, std::strlen(cause));
  _exit(127);
}

volatile std::sig_atomic_t passed_on = 0;  // a handler can reach nothing else
void note(int signal) { passed_on = signal; }

void tell(const std::map<pid_t, int64_t>& running, int signal) {
  for (const auto& [pid, rank] : running) kill(pid, signal);
}

int code_of(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int wait_for_all(std::map<pid_t, int64_t> running) {
  using Clock = std::chrono::steady_clock;
  int first_failure = 0, told = 0;
  Clock::time_point deadline = Clock::time_point::max();
  while (!running.empty()) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid > 0 && running.erase(pid) && code_of(status) != 0 && first_failure == 0) {
      first_failure = code_of(status);
      if (!told) {
        told = SIGTERM;
        deadline = Clock::now() + std::chrono::seconds(30);
        tell(running, SIGTERM);
      }
    }
    if (passed_on != 0 && !told) {
      told = passed_on;
      deadline =
          Clock::now() + std::chrono::minutes(10);  // they finish a step and write a checkpoint
      tell(running, told);
    }
    if (Clock::now() > deadline) tell(running, SIGKILL);
    if (pid <= 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return first_failure;
}

}  // namespace

int launch(int64_t nproc, const std::vector<std::string>& arguments) {
  SERPENTINE_CHECK(nproc >= 1 && !arguments.empty(), "launch", "needs at least 1 process, got ",
                   nproc);
  const int port = free_port();
  passed_on = 0;
  struct sigaction action = {}, was_int = {}, was_term = {};
  action.sa_handler = note;
  sigaction(SIGINT, &action, &was_int);
  sigaction(SIGTERM, &action, &was_term);
  std::map<pid_t, int64_t> running;
  for (int64_t rank = 0; rank < nproc; ++rank) {
    const pid_t pid = fork();
    if (pid == 0) become(arguments, rank, nproc, port);
    if (pid > 0) running[pid] = rank;
    if (pid < 0) {
      const std::string cause = std::strerror(errno);
      tell(running, SIGKILL);
      wait_for_all(running);
      SERPENTINE_CHECK(false, "launch", "could not start process ", rank, ": ", cause);
    }
  }
  const int code = wait_for_all(running);
  sigaction(SIGINT, &was_int, nullptr);
  sigaction(SIGTERM, &was_term, nullptr);
  return code;
}

}  // namespace serpentine
