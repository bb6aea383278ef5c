#include "pointcloud/sampling_cpu.h"

#include <array>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "pointcloud/kd_tree.h"

namespace serpentine::cpu {
namespace {

constexpr int64_t kLanes = 16;            // of a running maximum, so that compilers use vectors
constexpr float kSamplingCpuFar = 1e10F;  // before the first choice, as published
constexpr int64_t kGrain = 256;           // queries a thread takes at a time

// One cloud, axis by axis, filled up to whole lanes with points that are never chosen.
struct Cloud {
  std::vector<float> x, y, z, distance;

  Cloud(const float* points, const bool* never, int64_t count) {
    const int64_t filled = (count + kLanes - 1) / kLanes * kLanes;
    x.resize(filled);
    y.resize(filled);
    z.resize(filled);
    distance.assign(filled, -1);
    for (int64_t i = 0; i < count; ++i) {
      x[i] = points[3 * i];
      y[i] = points[3 * i + 1];
      z[i] = points[3 * i + 2];
      distance[i] = never && never[i] ? -1 : kSamplingCpuFar;
    }
  }

  // brings distances up to date with a new point and returns the farthest, the first of several
  int32_t farthest(int64_t last) {
    const float px = x[last], py = y[last], pz = z[last];
    std::array<float, kLanes> best{};
    std::array<int32_t, kLanes> where{};
    best.fill(-2);
    const auto count = static_cast<int32_t>(distance.size());
    for (int32_t i = 0; i < count; i += kLanes) {
      for (int32_t lane = 0; lane < kLanes; ++lane) {
        const float dx = x[i + lane] - px, dy = y[i + lane] - py, dz = z[i + lane] - pz;
        const float to_new = dx * dx + dy * dy + dz * dz, old = distance[i + lane];
        const float now = to_new < old ? to_new : old;
        distance[i + lane] = now;
        where[lane] = now > best[lane] ? i + lane : where[lane];
        best[lane] = now > best[lane] ? now : best[lane];
      }
    }
    int32_t lane = 0;
    for (int32_t other = 1; other < kLanes; ++other) {
      const bool tie = best[other] == best[lane] && where[other] < where[lane];
      if (best[other] > best[lane] || tie) lane = other;
    }
    return where[lane];
  }
};

}  // namespace

at::Tensor farthest_points(const at::Tensor& points, const at::Tensor& never, int64_t count) {
  const int64_t batch = points.size(0), all = points.size(1);
  const at::Tensor chosen = at::zeros({batch, count}, points.options().dtype(at::kLong));
  const float* from = points.const_data_ptr<float>();
  const bool* skip = never.defined() ? never.const_data_ptr<bool>() : nullptr;
  auto* to = chosen.mutable_data_ptr<int64_t>();
  at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      Cloud cloud(from + 3 * b * all, skip ? skip + b * all : nullptr, all);
      for (int64_t i = 1; i < count; ++i) to[b * count + i] = cloud.farthest(to[b * count + i - 1]);
    }
  });
  return chosen;
}

void nearest_points(const at::Tensor& queries, const at::Tensor& points, int64_t k,
                    at::Tensor& index, at::Tensor& squared_distance) {
  const int64_t batch = points.size(0), asked = queries.size(1), all = points.size(1);
  index = at::empty({batch, asked, k}, points.options().dtype(at::kLong));
  squared_distance = at::empty({batch, asked, k}, points.options());
  const float *from = points.const_data_ptr<float>(), *query = queries.const_data_ptr<float>();
  auto* to = index.mutable_data_ptr<int64_t>();
  auto* distance = squared_distance.mutable_data_ptr<float>();
  for (int64_t b = 0; b < batch; ++b) {
    const KdTree tree(from + 3 * b * all, all);
    at::parallel_for(0, asked, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) {
        const int64_t row = b * asked + s;
        tree.nearest(query + 3 * row, k, to + row * k, distance + row * k);
      }
    });
  }
}

}  // namespace serpentine::cpu
