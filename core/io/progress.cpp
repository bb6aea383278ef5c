#include "core/io/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace serpentine {
namespace {

constexpr double kLiveEvery = 0.1;  // seconds between redraws
constexpr int kBarWidth = 24;

double steady_seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

size_t terminal_width(std::FILE* out) {
  struct winsize size = {};
  const bool known = ::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

std::string bar(double share) {
  const int full = static_cast<int>(share * kBarWidth);
  std::string text = "[";
  text.append(static_cast<size_t>(full), '#');
  text.append(static_cast<size_t>(kBarWidth - full), '.');
  return text + "]";
}

std::string format_rate(double rate) {
  char text[48];
  if (rate >= 1)
    std::snprintf(text, sizeof text, "%.*f/s", rate < 100 ? 1 : 0, rate);
  else
    std::snprintf(text, sizeof text, "%.1f s each", 1 / rate);
  return text;
}

}  // namespace

std::string format_seconds(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(std::clamp(seconds, 0.0, 3.6e8)));
  char text[48];
  if (whole < 60) {
    std::snprintf(text, sizeof text, "%d s", static_cast<int>(whole));
  } else if (whole < 3600) {
    std::snprintf(text, sizeof text, "%d:%02d min", static_cast<int>(whole / 60),
                  static_cast<int>(whole % 60));
  } else {
    std::snprintf(text, sizeof text, "%d:%02d h", static_cast<int>(whole / 3600),
                  static_cast<int>(whole / 60 % 60));
  }
  return text;
}

Progress::Progress(std::string title, int64_t total, int64_t start, ProgressOptions options)
    : title_(std::move(title)),
      total_(total),
      start_(start),
      done_(start),
      options_(std::move(options)) {
  if (!options_.clock) options_.clock = steady_seconds;
  using Style = ProgressOptions::Style;
  live_ = options_.style == Style::kLive ||
          (options_.style == Style::kAuto && ::isatty(::fileno(options_.out)) == 1);
  began_ = options_.clock();
  printed_ = live_ ? began_ - kLiveEvery : began_;
}

Progress::~Progress() {
  if (open_line_) std::fputc('\n', options_.out);
}

void Progress::update(int64_t done, const std::string& note) {
  done_ = done;
  const double now = options_.clock();
  if (now - printed_ < (live_ ? kLiveEvery : options_.plain_every)) return;
  printed_ = now;
  note_ = note;
  print(false);
}

void Progress::finish(const std::string& note) {
  if (finished_) return;
  finished_ = true;
  note_ = note;
  print(true);
}

std::string Progress::line(bool last) const {
  const double spent = options_.clock() - began_;
  std::string text = title_;
  const auto add = [&](const std::string& part) { text += "  " + part; };
  if (total_ > 0) {
    const double share =
        std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0);
    if (live_) add(bar(share));
    add(std::to_string(done_) + "/" + std::to_string(total_));
    add(std::to_string(static_cast<int>(share * 100)) + "%");
  } else {
    add(std::to_string(done_));
  }
  const double fresh = static_cast<double>(done_ - start_);
  if (fresh > 0 && spent > 0) {
    add(format_rate(fresh / spent));
    if (last)
      add("took " + format_seconds(spent));
    else if (total_ > 0) {
      add("left " + format_seconds(spent / fresh * static_cast<double>(total_ - done_)));
    }
  }
  if (!note_.empty()) add(note_);
  return text;
}

void Progress::print(bool last) {
  std::string text = line(last);
  if (!live_) {
    std::fprintf(options_.out, "%s\n", text.c_str());
  } else {
    // a line that wraps could not be overwritten
    const size_t width = terminal_width(options_.out);
    if (text.size() >= width) text.resize(width - 1);
    std::fprintf(options_.out, "\r%s\x1b[K%s", text.c_str(), last ? "\n" : "");
    open_line_ = !last;
  }
  std::fflush(options_.out);
}

}  // namespace serpentine
