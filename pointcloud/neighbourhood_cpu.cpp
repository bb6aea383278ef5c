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

at::Tensor neighbourhood_features(const at::Tensor& from_points, const at::Tensor& from_centres,
                                  const at::Tensor& near,
                                  const std::vector<std::pair<FoldedMap, FoldedMap>>& layers) {
  const int64_t batch = near.size(0), centres = near.size(1), k = near.size(2);
  const int64_t points = from_points.size(1), width = from_points.size(2);
  const at::Tensor every = from_points.contiguous(), own = from_centres.contiguous();
  const at::Tensor out = at::empty({batch, centres, width}, every.options());
  const auto *from = every.const_data_ptr<float>(), *centre = own.const_data_ptr<float>();
  const auto* index = near.const_data_ptr<int64_t>();
  auto* to = out.mutable_data_ptr<float>();
  const int64_t at_a_time = std::max<int64_t>(1, kRowsAtATime / k);
  const int64_t pieces = (batch * centres + at_a_time - 1) / at_a_time;
  std::vector<std::pair<PackedMap, PackedMap>> maps;
  for (const auto& [one, two] : layers) {
    maps.emplace_back(PackedMap(one, at_a_time * k), PackedMap(two, at_a_time * k));
  }
  parallel_for(0, pieces, 1, [&](int64_t begin, int64_t end) {
    // no gradient is needed, whatever this thread was told
    const at::AutoDispatchBelowADInplaceOrView guard;
    const at::Tensor rows = at::empty({at_a_time * k, width}, at::TensorOptions(at::kFloat));
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t first = piece * at_a_time, some = std::min(at_a_time, batch * centres - first);
      at::Tensor now = rows.narrow(0, 0, some * k);
      auto* row = now.mutable_data_ptr<float>();
      for (int64_t s = first; s < first + some; ++s) {
        for (int64_t n = 0; n < k; ++n, row += width) {
          const float* other = from + (s / centres * points + index[s * k + n]) * width;
          const float* mine = centre + s * width;
          for (int64_t d = 0; d < width; ++d) row[d] = larger(0.0F, other[d] + mine[d]);
        }
      }
      for (size_t i = 0; i < maps.size(); ++i) {
        now = maps[i].second.plus(maps[i].first.relu_of(now), now);
        if (i + 1 < maps.size()) now.relu_();
      }
      // the last relu commutes with the largest of the neighbours
      const auto* last = now.const_data_ptr<float>();
      for (int64_t s = first; s < first + some; ++s, last += k * width) {
        float* result = to + s * width;
        std::fill_n(result, width, 0.0F);
        for (int64_t n = 0; n < k; ++n)
          for (int64_t d = 0; d < width; ++d) result[d] = larger(result[d], last[n * width + d]);
      }
    }
  });
  return out;
}

}  // namespace serpentine::cpu
