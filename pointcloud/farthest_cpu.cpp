// Farthest points on a CPU: all distances of a small cloud; of a large one only those that a new
// point can lower. Han et al., "QuickFPS", IEEE TCAD 42 (2023): the same points, found sooner.
#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include <ATen/ATen.h>

#include "core/ops/parallel.h"
#include "pointcloud/point_kernels.h"
#include "pointcloud/sampling_cpu.h"

namespace serpentine::cpu {
namespace {

constexpr float kFarthestFar = 1e10F;    // before the first choice, as published
constexpr int64_t kBucket = 128;         // points that are near one another
constexpr int64_t kBucketsFrom = 8192;   // points of a cloud
constexpr int64_t kBucketsChoices = 64;  // fewer choices do not pay for the buckets

/// Points of one cloud in a given sequence, in buckets of filled rows, each with its box and the
/// largest distance that is left in it.
class FarthestSearch {
 public:
  FarthestSearch(const float* points, const bool* never, int64_t count,
                 const std::vector<int64_t>& sequence, int64_t bucket)
      : points_(points), bucket_(bucket), buckets_((count + bucket - 1) / bucket) {
    for (auto* axis : {&x_, &y_, &z_}) axis->assign(static_cast<size_t>(buckets_ * bucket), 0);
    distance_.assign(x_.size(), -2);  // of what fills the last bucket: below all others
    row_.assign(x_.size(), std::numeric_limits<int64_t>::max());
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = sequence[static_cast<size_t>(i)];
      const auto at = static_cast<size_t>(i);
      row_[at] = row;
      x_[at] = points[3 * row];
      y_[at] = points[3 * row + 1];
      z_[at] = points[3 * row + 2];
      distance_[at] = never && never[row] ? -1 : kFarthestFar;
    }
    const auto filled =
        static_cast<size_t>((buckets_ + kPointLanes - 1) / kPointLanes * kPointLanes);
    for (auto& axis : low_) axis.assign(filled, std::numeric_limits<float>::infinity());
    for (auto& axis : high_) axis.assign(filled, -std::numeric_limits<float>::infinity());
    most_.assign(filled, -2);
    best_.assign(filled, -1);
    reached_.resize(filled);
    for (int64_t b = 0; b < buckets_; ++b) add_box(b);
  }

  /// The row of the farthest point once `last` was chosen; of several, the lowest one.
  int64_t next(int64_t last) {
    const float* point = points_ + 3 * last;
    const BoxRows boxes = {low_[0].data(),  low_[1].data(),  low_[2].data(),
                           high_[0].data(), high_[1].data(), high_[2].data()};
    const int64_t reached = reached_boxes(boxes, most_.data(), buckets_, point, reached_.data());
    for (int64_t i = 0; i < reached; ++i) {
      const auto b = static_cast<size_t>(reached_[static_cast<size_t>(i)]);
      const auto first = static_cast<int64_t>(b) * bucket_;
      most_[b] = lower_distances({x_.data() + first, y_.data() + first, z_.data() + first},
                                 distance_.data() + first, bucket_, point);
      best_[b] = -1;
    }
    const auto filled = static_cast<int64_t>(most_.size());
    const float most = largest(most_.data(), filled);
    int64_t chosen = std::numeric_limits<int64_t>::max();
    for (int64_t b = first_equal(most_.data(), filled, most); b < buckets_; ++b)
      if (most_[static_cast<size_t>(b)] == most)
        chosen = std::min(chosen, best_of(static_cast<size_t>(b)));
    return chosen;
  }

 private:
  void add_box(int64_t bucket) {
    const auto number = static_cast<size_t>(bucket);
    for (size_t axis = 0; axis < 3; ++axis) {
      const auto& values = axis == 0 ? x_ : axis == 1 ? y_ : z_;
      float low = low_[axis][number], high = high_[axis][number];
      for (int64_t i = bucket * bucket_; i < (bucket + 1) * bucket_; ++i) {
        const auto at = static_cast<size_t>(i);
        if (distance_[at] == -2) continue;
        low = std::min(low, values[at]);
        high = std::max(high, values[at]);
      }
      low_[axis][number] = low;
      high_[axis][number] = high;
    }
    most_[number] = kFarthestFar;
  }

  int64_t best_of(size_t bucket) {
    if (best_[bucket] >= 0) return best_[bucket];
    int64_t best = std::numeric_limits<int64_t>::max();
    const auto first = static_cast<int64_t>(bucket) * bucket_, last = first + bucket_;
    for (int64_t i = first; i < last; ++i) {
      const auto at = static_cast<size_t>(i);
      if (distance_[at] == most_[bucket]) best = std::min(best, row_[at]);
    }
    return best_[bucket] = best;
  }

  const float* points_;
  int64_t bucket_, buckets_;  // points of one, how many there are
  std::vector<float> x_, y_, z_, distance_;
  std::vector<int64_t> row_;
  std::array<std::vector<float>, 3> low_, high_;  // of each axis, of each bucket
  std::vector<int32_t> reached_;
  std::vector<float> most_;
  std::vector<int64_t> best_;  // the lowest row with that distance; -1: not looked for
};

/// The same where every bucket would be reached: one bucket, whose rows lie as the points do.
class FarthestOfFew {
 public:
  FarthestOfFew(const float* points, const bool* never, int64_t count) : points_(points) {
    const int64_t filled = (count + kPointLanes - 1) / kPointLanes * kPointLanes;
    for (auto* axis : {&x_, &y_, &z_}) axis->assign(static_cast<size_t>(filled), 0);
    distance_.assign(x_.size(), -2);
    for (int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(i);
      x_[at] = points[3 * i];
      y_[at] = points[3 * i + 1];
      z_[at] = points[3 * i + 2];
      distance_[at] = never && never[i] ? -1 : kFarthestFar;
    }
  }
  int64_t next(int64_t last) {
    const auto count = static_cast<int64_t>(distance_.size());
    const float most = lower_distances({x_.data(), y_.data(), z_.data()}, distance_.data(), count,
                                       points_ + 3 * last);
    return first_equal(distance_.data(), count, most);
  }

 private:
  const float* points_;
  std::vector<float> x_, y_, z_, distance_;
};

}  // namespace

at::Tensor farthest_points(const at::Tensor& points, const at::Tensor& never, int64_t count) {
  const int64_t batch = points.size(0), all = points.size(1);
  const at::Tensor chosen = at::zeros({batch, count}, points.options().dtype(at::kLong));
  const float* from = points.const_data_ptr<float>();
  const bool* skip = never.defined() ? never.const_data_ptr<bool>() : nullptr;
  auto* to = chosen.mutable_data_ptr<int64_t>();
  parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const float* cloud = from + 3 * b * all;
      const bool* not_these = skip ? skip + b * all : nullptr;
      int64_t* row = to + b * count;
      const auto choose = [&](auto search) {
        for (int64_t i = 1; i < count; ++i) row[i] = search.next(row[i - 1]);
      };
      if (all >= kBucketsFrom && count >= kBucketsChoices) {
        choose(FarthestSearch(cloud, not_these, all, near_sequence(cloud, all), kBucket));
      } else {
        choose(FarthestOfFew(cloud, not_these, all));
      }
    }
  });
  return chosen;
}

}  // namespace serpentine::cpu
