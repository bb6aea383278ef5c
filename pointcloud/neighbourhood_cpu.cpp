#include "pointcloud/neighbourhood_cpu.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include "core/ops/parallel.h"
#include "pointcloud/packed_map.h"

namespace serpentine::cpu {
namespace {

/// The larger one, or NaN when b is none or a is: std::max would hide it in an answer.
float larger(float a, float b) { return a > b ? a : a == a ? b : a; }

constexpr int64_t kRowsAtATime = 768;  // of D floats: a second or third cache holds them

}  // namespace

at::Tensor neighbour_deviation(const at::Tensor& rows, const at::Tensor& anchors,
                               const at::Tensor& near) {
  const int64_t batch = rows.size(0), points = rows.size(1), channels = rows.size(2);
  const int64_t centres = near.size(1), k = near.size(2);
  const auto* from = rows.const_data_ptr<float>();
  const auto* centre = anchors.const_data_ptr<float>();
  const auto* index = near.const_data_ptr<int64_t>();
  std::vector<double> sums(static_cast<size_t>(2 * batch * centres));  // of values and of squares
  parallel_for(0, batch * centres, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> sum(static_cast<size_t>(channels)), square(static_cast<size_t>(channels));
    for (int64_t s = begin; s < end; ++s) {
      std::fill(sum.begin(), sum.end(), 0.0F);
      std::fill(square.begin(), square.end(), 0.0F);
      const float* own = centre + s * channels;
      for (int64_t n = 0; n < k; ++n) {
        const float* row = from + (s / centres * points + index[s * k + n]) * channels;
        float *a = sum.data(), *b = square.data();
        for (int64_t c = 0; c < channels; ++c) {
          const float apart = row[c] - own[c];
          a[c] += apart;
          b[c] += apart * apart;
        }
      }
      double all = 0, squares = 0;
      for (const float value : sum) all += static_cast<double>(value);
      for (const float value : square) squares += static_cast<double>(value);
      sums[static_cast<size_t>(2 * s)] = all;
      sums[static_cast<size_t>(2 * s + 1)] = squares;
    }
  });
  const at::Tensor out = at::empty({batch}, rows.options());
  const auto count = static_cast<double>(centres * k * channels);
  for (int64_t b = 0; b < batch; ++b) {
    double all = 0, squares = 0;
    for (int64_t s = b * centres; s < (b + 1) * centres; ++s) {
      all += sums[static_cast<size_t>(2 * s)];
      squares += sums[static_cast<size_t>(2 * s + 1)];
    }
    const double variance = std::max(0.0, squares - all * all / count) / (count - 1);
    out.mutable_data_ptr<float>()[b] = static_cast<float>(std::sqrt(variance));
  }
  return out;
}

namespace {

struct Neighbourhoods {
  const float *points, *centres;  // [B N, D], [B S, D]
  const int64_t* near;            // [B S, k]
  int64_t num_points, num_centres, k, width;
};

/// Rows [some k, D] of the neighbourhoods from `first` on: relu(point + centre).
void join(const Neighbourhoods& all, int64_t first, int64_t some, float* row) {
  for (int64_t s = first; s < first + some; ++s) {
    const float* mine = all.centres + s * all.width;
    for (int64_t n = 0; n < all.k; ++n, row += all.width) {
      const int64_t point = s / all.num_centres * all.num_points + all.near[s * all.k + n];
      const float* other = all.points + point * all.width;
      for (int64_t d = 0; d < all.width; ++d) row[d] = larger(0.0F, other[d] + mine[d]);
    }
  }
}

/// The largest of each neighbourhood's rows, at least 0: the last relu commutes with it.
void largest(const float* row, int64_t some, int64_t k, int64_t width, float* result) {
  for (int64_t s = 0; s < some; ++s, result += width) {
    std::fill_n(result, width, 0.0F);
    for (int64_t n = 0; n < k; ++n, row += width)
      for (int64_t d = 0; d < width; ++d) result[d] = larger(result[d], row[d]);
  }
}

}  // namespace

at::Tensor neighbourhood_features(const at::Tensor& from_points, const at::Tensor& from_centres,
                                  const at::Tensor& near,
                                  const std::vector<std::pair<FoldedMap, FoldedMap>>& layers,
                                  at::ScalarType narrow) {
  const at::Tensor every = from_points.contiguous(), own = from_centres.contiguous();
  const int64_t centres = near.size(1), k = near.size(2), width = every.size(2);
  const int64_t count = near.size(0) * centres;
  const at::Tensor out = at::empty({near.size(0), centres, width}, every.options());
  const Neighbourhoods all = {every.const_data_ptr<float>(),
                              own.const_data_ptr<float>(),
                              near.const_data_ptr<int64_t>(),
                              every.size(1),
                              centres,
                              k,
                              width};
  auto* to = out.mutable_data_ptr<float>();
  const int64_t at_a_time = std::max<int64_t>(1, kRowsAtATime / k);
  std::vector<std::pair<PackedMap, PackedMap>> maps;
  for (const auto& [one, two] : layers) {
    maps.emplace_back(PackedMap(one, at_a_time * k, narrow), PackedMap(two, at_a_time * k, narrow));
  }
  parallel_for(0, (count + at_a_time - 1) / at_a_time, 1, [&](int64_t begin, int64_t end) {
    // no gradient is needed, whatever this thread was told
    const at::AutoDispatchBelowADInplaceOrView guard;
    const at::Tensor rows = at::empty({at_a_time * k, width}, at::TensorOptions(at::kFloat));
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t first = piece * at_a_time, some = std::min(at_a_time, count - first);
      at::Tensor now = rows.narrow(0, 0, some * k);
      join(all, first, some, now.mutable_data_ptr<float>());
      now = now.to(narrow);
      for (size_t i = 0; i < maps.size(); ++i) {
        now = maps[i].second.plus(maps[i].first.relu_of(now), now);
        if (i + 1 < maps.size()) now.relu_();
      }
      largest(now.to(at::kFloat).const_data_ptr<float>(), some, k, width, to + first * width);
    }
  });
  return out;
}

}  // namespace serpentine::cpu
