#include "apps/doctor_checks.h"

#include <dlfcn.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include <hwy/targets.h>

namespace serpentine {
namespace {

// what a command writes on stdout, at most some kilobytes
std::string printed_by(const std::string& command) {
  FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r");
  if (!pipe) return "";
  std::array<char, 4096> text{};
  const size_t size = std::fread(text.data(), 1, text.size(), pipe);
  pclose(pipe);
  return {text.data(), size};
}

}  // namespace

std::vector<std::string> gpus() {
  // asked of the driver itself, so that a program without CUDA still sees the GPU
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!driver) return {};
  const auto symbol = [&](const char* name) { return dlsym(driver, name); };
  const auto init = reinterpret_cast<int (*)(unsigned)>(symbol("cuInit"));
  const auto version = reinterpret_cast<int (*)(int*)>(symbol("cuDriverGetVersion"));
  const auto count = reinterpret_cast<int (*)(int*)>(symbol("cuDeviceGetCount"));
  const auto name = reinterpret_cast<int (*)(char*, int, int)>(symbol("cuDeviceGetName"));
  std::vector<std::string> found;
  int devices = 0, cuda = 0;
  if (init && version && count && name && init(0) == 0 && count(&devices) == 0 &&
      version(&cuda) == 0) {
    for (int device = 0; device < devices; ++device) {
      std::array<char, 256> text{};
      if (name(text.data(), static_cast<int>(text.size()), device) != 0) continue;
      found.push_back(std::string(text.data()) + ", driver for CUDA " +
                      std::to_string(cuda / 1000) + "." + std::to_string(cuda % 1000 / 10));
    }
  }
  dlclose(driver);
  return found;
}

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  std::string line, name = "unknown processor";
  while (std::getline(file, line)) {
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos) {
      name = line.substr(line.find(": ") + 2);
      break;
    }
  }
  return name + ", " + std::to_string(std::thread::hardware_concurrency()) + " threads";
}

std::string simd_name() {
  // a lower bit is a better instruction set
  const int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  return usable ? hwy::TargetName(usable & -usable) : "none";
}

std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path ? path : "/usr/bin:/bin");
  std::string folder;
  while (std::getline(folders, folder, ':')) {
    const std::string candidate = folder + "/" + name;
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return "";
}

std::string version_of(const std::string& program, const std::string& option) {
  std::string text = printed_by(program + " " + option);
  text = text.substr(0, text.find('\n'));
  while (!text.empty() && text.back() == '\r') text.pop_back();
  return text;
}

std::string cuda_toolkit() {
  std::string compiler = find_program("nvcc");
  const char* home = std::getenv("CUDA_HOME");
  for (const std::string& folder :
       {std::string(home ? home : ""), std::string("/usr/local/cuda")}) {
    const std::string candidate = folder + "/bin/nvcc";
    if (compiler.empty() && !folder.empty() && access(candidate.c_str(), X_OK) == 0)
      compiler = candidate;
  }
  if (compiler.empty()) return "";

  // "Cuda compilation tools, release 13.0, V13.0.88"
  const std::string text = printed_by(compiler + " --version");
  const size_t at = text.find(", V");
  const std::string version = at == std::string::npos
                                  ? "of unknown version"
                                  : text.substr(at + 3, text.find('\n', at) - at - 3);
  return version + " in " + compiler.substr(0, compiler.rfind('/'));
}

}  // namespace serpentine
