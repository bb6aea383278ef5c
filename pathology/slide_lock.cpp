#include "pathology/slide_lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <stdexcept>
#include <utility>

namespace serpentine {
namespace {

constexpr double kAbandoned = 86400;  // seconds

std::string host() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

/// Whether the process that made the lock cannot be working any more.
bool stale(const std::string& path, std::string& holder) {
  std::ifstream file(path);
  std::string machine;
  int64_t process = 0;
  file >> machine >> process;
  holder = "process " + std::to_string(process) + " on " + (machine.empty() ? "?" : machine);
  if (machine == host() && process > 0) {
    return kill(static_cast<pid_t>(process), 0) != 0 && errno == ESRCH;
  }
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) return false;
  return std::difftime(std::time(nullptr), status.st_mtime) > kAbandoned;
}

}  // namespace

SlideLock::SlideLock(std::string path) : path_(std::move(path)) {}

SlideLock::SlideLock(SlideLock&& other) noexcept : path_(std::exchange(other.path_, "")) {}

SlideLock::~SlideLock() {
  if (!path_.empty()) unlink(path_.c_str());
}

std::optional<SlideLock> SlideLock::take(const std::string& path, std::string& holder) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file >= 0) {
      const std::string text = host() + " " + std::to_string(getpid()) + "\n";
      const bool written =
          write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
      close(file);
      if (!written) throw std::runtime_error(path + ": cannot be written: " + std::strerror(errno));
      return SlideLock(path);
    }
    if (errno != EEXIST) throw std::runtime_error(path + ": " + std::strerror(errno));
    if (!stale(path, holder)) return std::nullopt;
    // only one of several processes can rename it away
    const std::string aside = path + ".stale-" + std::to_string(getpid());
    if (rename(path.c_str(), aside.c_str()) == 0) unlink(aside.c_str());
  }
  return std::nullopt;
}

}  // namespace serpentine
