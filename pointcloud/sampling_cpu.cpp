#include "pointcloud/sampling_cpu.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "core/ops/parallel.h"
#include "pointcloud/kd_tree.h"
#include "pointcloud/point_kernels.h"
#include "pointcloud/radix_sort.h"

namespace serpentine::cpu {
namespace {

constexpr int64_t kQueryGrain = 256;  // queries a thread takes at a time
constexpr int64_t kFewPoints = 2048;  // of which all are looked at
constexpr int64_t kManyQueries = 4096;
constexpr int64_t kAhead = 4;  // queries, whose results' places are asked for: they lie far apart

int64_t filled(int64_t count) { return (count + kPointLanes - 1) / kPointLanes * kPointLanes; }

// ten bits of each axis, interleaved: numbers near one another are places near one another
uint64_t interleaved(uint64_t x) {
  x = (x | x << 16U) & 0x030000FFU;
  x = (x | x << 8U) & 0x0300F00FU;
  x = (x | x << 4U) & 0x030C30C3U;
  return (x | x << 2U) & 0x09249249U;
}

template <class T>
void ask_for(const T* row, int64_t count) {
  const auto *begin = reinterpret_cast<const char*>(row),
             *end = reinterpret_cast<const char*>(row + count);
  for (; begin < end; begin += 64) __builtin_prefetch(begin, /*rw=*/1);
}

/// One cloud axis by axis, filled up to whole lanes with points that are no matches.
struct AxisRows {
  std::vector<float> x, y, z;

  AxisRows(const float* points, int64_t count) {
    for (auto* axis : {&x, &y, &z})
      axis->resize(static_cast<size_t>(filled(count)), std::numeric_limits<float>::infinity());
    for (int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(i);
      x[at] = points[3 * i];
      y[at] = points[3 * i + 1];
      z[at] = points[3 * i + 2];
    }
  }
  PointRows rows(int64_t first = 0) const {
    return {x.data() + first, y.data() + first, z.data() + first};
  }
};

/// The queries' rows in a sequence that keeps the tree's upper nodes and leaves at hand.
std::vector<int64_t> query_sequence(const float* queries, int64_t asked, const float* points,
                                    int64_t count, const KdTree& tree) {
  if (queries == points && asked == count) return {tree.order().begin(), tree.order().end()};
  if (asked >= kManyQueries) return near_sequence(queries, asked);
  std::vector<int64_t> as_they_are(static_cast<size_t>(asked));
  for (int64_t i = 0; i < asked; ++i) as_they_are[static_cast<size_t>(i)] = i;
  return as_they_are;
}

/// Clouds side by side where there are enough of them; else their queries are.
template <class Body>
void each_cloud(int64_t batch, const Body& body) {
  const int64_t grain = batch >= at::get_num_threads() ? 1 : batch;
  parallel_for(0, batch, grain, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) body(b);
  });
}

/// Calls use(tree, query, its number) for each query of a cloud, and before that ahead(its number).
template <class Ahead, class Use>
void each_query(const float* queries, int64_t asked, const float* points, int64_t count,
                const Ahead& ahead, const Use& use) {
  const KdTree tree(points, count);
  const auto sequence = query_sequence(queries, asked, points, count, tree);
  parallel_for(0, asked, kQueryGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) ahead(sequence[static_cast<size_t>(i + kAhead)]);
      const int64_t s = sequence[static_cast<size_t>(i)];
      use(tree, queries + 3 * s, s);
    }
  });
}

// of few points: the first of them inside, without a tree
int64_t first_within(const AxisRows& points, int64_t count, const float* query, float limit,
                     int64_t k, int64_t* index) {
  constexpr int64_t kScan = 64;
  const float below = limit > 0 ? std::nextafter(limit, 0.0F) : -1;
  std::array<float, kScan> distance{};
  int64_t found = 0;
  for (int64_t begin = 0; begin < count && found < k; begin += kScan) {
    uint64_t bits = distances_within(points.rows(begin), std::min(kScan, count - begin), query,
                                     below, distance.data());
    for (; bits != 0 && found < k; bits &= bits - 1)
      index[found++] = begin + std::countr_zero(bits);
  }
  return found;
}

}  // namespace

std::vector<int64_t> near_sequence(const float* points, int64_t count) {
  constexpr float kFar = std::numeric_limits<float>::infinity();
  std::array<float, 3> low = {kFar, kFar, kFar}, high = {-kFar, -kFar, -kFar};
  for (int64_t i = 0; i < count; ++i) {
    for (size_t axis = 0; axis < 3; ++axis) {
      const float value = points[3 * i + static_cast<int64_t>(axis)];
      const bool finite = value - value == 0;
      low[axis] = finite && value < low[axis] ? value : low[axis];
      high[axis] = finite && value > high[axis] ? value : high[axis];
    }
  }
  const float side = std::max({high[0] - low[0], high[1] - low[1], high[2] - low[2]});
  const float cells = side > 0 && std::isfinite(side) ? 1023 / side : 0;
  std::vector<KeyedRow> rows(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    uint64_t key = 0;
    for (size_t axis = 0; axis < 3; ++axis) {
      const float cell = (points[3 * i + static_cast<int64_t>(axis)] - low[axis]) * cells;
      const float kept = cell > 0 ? (cell < 1023 ? cell : 1023) : 0;  // 0 also of what is no number
      key |= interleaved(static_cast<uint64_t>(static_cast<int32_t>(kept))) << axis;
    }
    rows[static_cast<size_t>(i)] = {key, i};
  }
  sort_by_key(rows, (uint64_t{1} << 30U) - 1);
  std::vector<int64_t> sequence(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) sequence[i] = rows[i].row;
  return sequence;
}

void nearest_points(const at::Tensor& queries, const at::Tensor& points, int64_t k,
                    at::Tensor& index, at::Tensor& squared_distance) {
  const int64_t batch = points.size(0), asked = queries.size(1), all = points.size(1);
  index = at::empty({batch, asked, k}, points.options().dtype(at::kLong));
  squared_distance = at::empty({batch, asked, k}, points.options());
  const float *from = points.const_data_ptr<float>(), *query = queries.const_data_ptr<float>();
  auto* to = index.mutable_data_ptr<int64_t>();
  auto* distance = squared_distance.mutable_data_ptr<float>();
  each_cloud(batch, [&](int64_t b) {
    each_query(
        query + 3 * b * asked, asked, from + 3 * b * all, all,
        [&](int64_t s) {
          ask_for(to + (b * asked + s) * k, k);
          ask_for(distance + (b * asked + s) * k, k);
        },
        [&](const KdTree& tree, const float* one, int64_t s) {
          const int64_t row = b * asked + s;
          tree.nearest(one, k, to + row * k, distance + row * k);
        });
  });
}

at::Tensor ball_query(const at::Tensor& queries, const at::Tensor& points, float limit, int64_t k) {
  const int64_t batch = points.size(0), asked = queries.size(1), all = points.size(1);
  const at::Tensor index = at::empty({batch, asked, k}, points.options().dtype(at::kLong));
  const float *from = points.const_data_ptr<float>(), *query = queries.const_data_ptr<float>();
  auto* to = index.mutable_data_ptr<int64_t>();
  const auto fill = [k](int64_t* row, int64_t found) {
    const int64_t again = found > 0 ? row[0] : 0;
    for (int64_t i = found; i < k; ++i) row[i] = again;
  };
  if (all <= kFewPoints) {
    parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const AxisRows mine(from + 3 * b * all, all);
        for (int64_t row = b * asked; row < (b + 1) * asked; ++row)
          fill(to + row * k, first_within(mine, all, query + 3 * row, limit, k, to + row * k));
      }
    });
    return index;
  }
  each_cloud(batch, [&](int64_t b) {
    each_query(
        query + 3 * b * asked, asked, from + 3 * b * all, all,
        [&](int64_t s) { ask_for(to + (b * asked + s) * k, k); },
        [&](const KdTree& tree, const float* one, int64_t s) {
          int64_t* row = to + (b * asked + s) * k;
          fill(row, tree.within(one, limit, k, row));
        });
  });
  return index;
}

}  // namespace serpentine::cpu
