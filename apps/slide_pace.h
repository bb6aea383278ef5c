// How long a folder of slides will take: the files that are left at the pace of those that are
// done.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "pathology/slide.h"

namespace serpentine {

/// A slide's work goes with the size of its file: both are mostly tissue.
class SlidePace {
 public:
  /// clock: seconds; unset: a steady clock.
  explicit SlidePace(const std::vector<SlideFile>& slides, std::function<double()> clock = {});
  /// Before a slide.
  void begin();
  /// After it. worked: false for one that was finished before, which says nothing about the pace.
  void end(const SlideFile& slide, bool worked);
  /// " (all slides: 3:20 min left)"; "" before the first slide is done, and for a single one.
  std::string left() const;

 private:
  double waiting_ = 0, done_ = 0;  // bytes
  double seconds_ = 0, began_ = 0;
  size_t slides_;
  std::function<double()> clock_;
};

}  // namespace serpentine
