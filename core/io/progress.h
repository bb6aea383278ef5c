// How far a long task is: one live line on a terminal, a plain line now and then elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>

namespace serpentine {

struct ProgressOptions {
  std::FILE* out = stderr;
  enum class Style { kAuto, kLive, kPlain } style = Style::kAuto;  // kAuto: live on a terminal
  double plain_every = 10;                                         // seconds between plain lines
  std::function<double()> clock;                                   // seconds; unset: a steady clock
};

/// Not thread-safe. Between two printed lines an update costs one look at the clock.
class Progress {
 public:
  /// `total`: 0 when unknown. `start`: units done before, which say nothing about the speed now.
  Progress(std::string title, int64_t total, int64_t start = 0, ProgressOptions options = {});
  ~Progress();  // ends the live line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `note` stands at the end of the line, such as "loss 0.32".
  void update(int64_t done, const std::string& note = "");
  /// Prints the last state and, on a terminal, ends the line.
  void finish(const std::string& note = "");

 private:
  std::string line(bool last) const;
  void print(bool last);

  std::string title_, note_;
  int64_t total_, start_, done_;
  ProgressOptions options_;
  bool live_ = false, finished_ = false, open_line_ = false;
  double began_ = 0, printed_ = 0;
};

/// "45 s", "3:20 min", "2:05 h".
std::string format_seconds(double seconds);

}  // namespace serpentine
