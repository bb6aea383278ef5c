#include "apps/slide_pace.h"

#include <chrono>
#include <filesystem>
#include <utility>

#include "core/io/progress.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

double pace_clock() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Of the file, or of all files of a folder that is one slide.
double slide_bytes(const SlideFile& slide) {
  std::error_code error;
  if (!fs::is_directory(slide.path, error)) {
    const auto bytes = fs::file_size(slide.path, error);
    return error ? 1 : static_cast<double>(bytes);
  }
  double sum = 1;
  for (const auto& entry : fs::directory_iterator(slide.path, error)) {
    const auto bytes = entry.file_size(error);
    if (!error) sum += static_cast<double>(bytes);
  }
  return sum;
}

}  // namespace

SlidePace::SlidePace(const std::vector<SlideFile>& slides, std::function<double()> clock)
    : slides_(slides.size()), clock_(clock ? std::move(clock) : pace_clock) {
  for (const auto& slide : slides) waiting_ += slide_bytes(slide);
}

void SlidePace::begin() { began_ = clock_(); }

void SlidePace::end(const SlideFile& slide, bool worked) {
  const double bytes = slide_bytes(slide);
  waiting_ -= bytes;
  if (!worked) return;
  done_ += bytes;
  seconds_ += clock_() - began_;
}

std::string SlidePace::left() const {
  if (slides_ < 2 || done_ <= 0) return "";
  return " (all slides: " + format_seconds(seconds_ / done_ * waiting_) + " left)";
}

}  // namespace serpentine
