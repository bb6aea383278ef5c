#include "core/ops/visit_sum.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include "core/ops/parallel.h"

namespace serpentine::cpu {
namespace {

/// Parts as plain memory.
template <class T>
struct Parts {
  const T* data;
  int64_t groups, batch, positions, width;
  const T* row(int64_t g, int64_t b, int64_t p) const {
    return data + ((g * batch + b) * positions + p) * width;
  }
};

template <class T>
Parts<T> view(const at::Tensor& parts) {
  return {parts.const_data_ptr<T>(), parts.size(0), parts.size(1), parts.size(2), parts.size(3)};
}

template <class T>
void add_row(const Parts<T>& parts, int64_t b, int64_t p, T* sum) {
  for (int64_t g = 0; g < parts.groups; ++g) {
    const T* row = parts.row(g, b, p);
    for (int64_t x = 0; x < parts.width; ++x) sum[x] += row[x];
  }
}

int64_t grain(int64_t work) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, work)); }

template <class T, class Out>
void add_positions(const Parts<T>& parts, Out* out) {
  const int64_t size = parts.batch * parts.positions * parts.width;
  parallel_for(0, size, grain(parts.groups), [&](int64_t begin, int64_t end) {
    constexpr int64_t kPiece = 256;
    T sum[kPiece];
    for (int64_t at = begin; at < end; at += kPiece) {
      const int64_t count = std::min(kPiece, end - at);
      std::fill_n(sum, count, T{0});
      for (int64_t g = 0; g < parts.groups; ++g) {
        const T* from = parts.data + g * size + at;
        for (int64_t x = 0; x < count; ++x) sum[x] += from[x];
      }
      std::copy_n(sum, count, out + at);
    }
  });
}

struct Visits {
  const int32_t* data;
  int64_t batch_stride, tokens, count;
  std::vector<int32_t> branch;  // of each position; empty: all in one
  int64_t branches;
  bool mean;
};

Visits visits_of(const ScanOrder& order, bool by_branch, bool mean) {
  const int64_t size = order.num_tokens * order.num_visits();
  Visits visits{order.visits.const_data_ptr<int32_t>(),
                order.visits.dim() == 3 ? size : 0,
                order.num_tokens,
                order.num_visits(),
                {},
                1,
                mean};
  if (!by_branch) return visits;
  visits.branches = order.num_branches;
  if (order.num_branches == 1) return visits;
  visits.branch.resize(static_cast<size_t>(order.num_positions()));
  const auto* offsets = order.offsets.const_data_ptr<int32_t>();
  for (int64_t s = 0; s < order.num_sequences(); ++s) {
    std::fill(visits.branch.begin() + offsets[s], visits.branch.begin() + offsets[s + 1],
              order.branch.const_data_ptr<int32_t>()[s]);
  }
  return visits;
}

/// One token's sums: [branches, width].
template <class T>
void add_token(const Parts<T>& parts, const Visits& visits, int64_t b, int64_t t,
               std::vector<T>& sum) {
  std::fill(sum.begin(), sum.end(), T{0});
  const int32_t* positions = visits.data + b * visits.batch_stride + t * visits.count;
  int64_t found = 0;
  for (int64_t v = 0; v < visits.count; ++v) {
    const int32_t p = positions[v];
    if (p < 0) continue;
    ++found;
    const int64_t k = visits.branch.empty() ? 0 : visits.branch[static_cast<size_t>(p)];
    add_row(parts, b, p, sum.data() + k * parts.width);
  }
  if (!visits.mean || found < 2) return;
  for (T& value : sum) value /= static_cast<T>(found);
}

template <class T, class Out>
void add_tokens(const Parts<T>& parts, const Visits& visits, Out* out) {
  const int64_t width = visits.branches * parts.width;
  parallel_for(0, parts.batch * visits.tokens, grain(parts.groups * visits.count * width),
               [&](int64_t begin, int64_t end) {
                 std::vector<T> sum(static_cast<size_t>(width));
                 for (int64_t i = begin; i < end; ++i) {
                   add_token(parts, visits, i / visits.tokens, i % visits.tokens, sum);
                   std::copy(sum.begin(), sum.end(), out + i * width);
                 }
               });
}

/// Calls `run(T*, Out*)` types for wide parts and the output's dtype.
template <class Run>
void for_types(const at::Tensor& parts, at::Tensor& out, const Run& run) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, out.scalar_type(), "sum_rows", [&] {
    auto* data = out.mutable_data_ptr<scalar_t>();
    if (parts.scalar_type() == at::kDouble) {
      run(view<double>(parts), data);
    } else {
      run(view<float>(parts), data);
    }
  });
}

}  // namespace

at::Tensor sum_parts(const at::Tensor& parts, at::ScalarType type, at::IntArrayRef shape) {
  if (parts.size(0) == 1 && parts.scalar_type() == type) return parts.view(shape);
  at::Tensor out = at::empty(shape, parts.options().dtype(type));
  for_types(parts, out, [](const auto& rows, auto* data) { add_positions(rows, data); });
  return out;
}

at::Tensor sum_visits(const at::Tensor& parts, const ScanOrder& order, bool by_branch, bool mean,
                      at::ScalarType type) {
  std::vector<int64_t> shape = {parts.size(1), order.num_tokens, parts.size(3)};
  if (by_branch) shape.insert(shape.begin() + 2, order.num_branches);
  at::Tensor out = at::empty(shape, parts.options().dtype(type));
  const Visits visits = visits_of(order, by_branch, mean);
  for_types(parts, out, [&](const auto& rows, auto* data) { add_tokens(rows, visits, data); });
  return out;
}

at::Tensor sum_slabs(const at::Tensor& parts, const std::vector<Slab>& slabs,
                     int64_t num_branches) {
  std::vector<int64_t> shape(parts.sizes().begin() + 1, parts.sizes().end());
  shape[0] = num_branches;
  const int64_t count = static_cast<int64_t>(slabs.size()), batch = parts.size(0);
  if (batch * count == 1 && num_branches == 1) return parts.view(shape);
  at::Tensor out = at::empty(shape, parts.options());
  const int64_t width = c10::multiply_integers(shape.begin() + 1, shape.end());
  AT_DISPATCH_FLOATING_TYPES(parts.scalar_type(), "sum_slabs", [&] {
    const auto* from = parts.const_data_ptr<scalar_t>();
    auto* to = out.mutable_data_ptr<scalar_t>();
    parallel_for(0, width, grain(batch * count), [&](int64_t begin, int64_t end) {
      for (int64_t k = 0; k < num_branches; ++k) {
        std::fill(to + k * width + begin, to + k * width + end, scalar_t{0});
      }
      for (int64_t i = 0; i < batch * count; ++i) {
        scalar_t* row = to + slabs[static_cast<size_t>(i % count)].branch * width;
        for (int64_t x = begin; x < end; ++x) row[x] += from[i * width + x];
      }
    });
  });
  return out;
}

}  // namespace serpentine::cpu
