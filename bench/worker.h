// The timed side of the benchmark: reads commands from standard input, answers one JSON line each.
//
//   load FOLDER B D L N THREADS   reads FOLDER/{u,delta,A,B,C,dy}.f32
//   time fwd|both COUNT WARM      COUNT times in milliseconds, after WARM calls that are not
//   counted save fwd|both PREFIX          writes FOLDER/PREFIX.{y,...}.f32 memory fwd|both growth
//   of the resident set at its peak, in bytes
// The driver keeps one such process an implementation and lets them run in turn.
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

namespace serpentine::bench {

struct Case {
  std::string folder;
  int64_t batch = 0, channels = 0, length = 0, states = 0;
  int threads = 1;
};

/// One implementation of y = selective_scan(u, softplus(delta), A, B, C).
class Implementation {
 public:
  virtual ~Implementation() = default;
  virtual void load(const Case& shape) = 0;
  virtual void run(bool backward) = 0;
  virtual void save(bool backward, const std::string& prefix) = 0;
};

inline std::vector<float> read_floats(const std::string& path, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  std::ifstream file(path, std::ios::binary);
  const auto bytes = static_cast<std::streamsize>(values.size() * sizeof(float));
  if (!file.read(reinterpret_cast<char*>(values.data()), bytes)) {
    throw std::runtime_error(path + ": expected " + std::to_string(count) + " floats");
  }
  return values;
}

inline void write_floats(const std::string& path, const float* values, int64_t count) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values),
             static_cast<std::streamsize>(static_cast<size_t>(count) * sizeof(float)));
  if (!file) throw std::runtime_error(path + ": could not be written");
}

/// A line of /proc/self/status in bytes, as in "VmRSS" (now) and "VmHWM" (at the peak).
inline int64_t resident(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(name + ":", 0) == 0) return std::stoll(line.substr(name.size() + 1)) * 1024;
  }
  throw std::runtime_error("/proc/self/status has no " + name);
}

inline void answer_time(Implementation& implementation, bool backward, int count, int warm) {
  using Clock = std::chrono::steady_clock;
  for (int i = 0; i < warm; ++i) implementation.run(backward);
  std::string times;
  for (int i = 0; i < count; ++i) {
    const auto start = Clock::now();
    implementation.run(backward);
    const std::chrono::duration<double, std::milli> elapsed = Clock::now() - start;
    if (i > 0) times += ", ";
    times += std::to_string(elapsed.count());
  }
  std::cout << "{\"ms\": [" << times << "]}" << std::endl;
}

inline void answer_memory(Implementation& implementation, bool backward) {
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak starts again from here
  const int64_t before = resident("VmRSS");
  implementation.run(backward);
  std::cout << "{\"growth\": " << resident("VmHWM") - before << "}" << std::endl;
}

/// Answers commands until the input ends.
inline int serve(Implementation& implementation) {
  Case shape;
  for (std::string command, what; std::cin >> command;) {
    try {
      if (command == "load") {
        std::cin >> shape.folder >> shape.batch >> shape.channels >> shape.length >> shape.states >>
            shape.threads;
        implementation.load(shape);
        std::cout << "{\"loaded\": true}" << std::endl;
        continue;
      }
      std::cin >> what;
      const bool backward = what == "both";
      if (command == "time") {
        int count = 0, warm = 0;
        std::cin >> count >> warm;
        answer_time(implementation, backward, count, warm);
      } else if (command == "memory") {
        answer_memory(implementation, backward);
      } else if (command == "save") {
        std::string prefix;
        std::cin >> prefix;
        implementation.save(backward, shape.folder + "/" + prefix);
        std::cout << "{\"saved\": true}" << std::endl;
      } else {
        throw std::runtime_error("unknown command " + command);
      }
    } catch (const std::exception& error) {
      std::string text = error.what();
      for (char& c : text) {
        if (c == '"' || c == '\\' || c == '\n') c = ' ';
      }
      std::cout << "{\"error\": \"" << text.substr(0, 300) << "\"}" << std::endl;
    }
  }
  return 0;
}

}  // namespace serpentine::bench
