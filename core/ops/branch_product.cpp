#include "core/ops/branch_product.h"

#include <deque>
#include <mutex>

#include <ATen/ATen.h>

namespace serpentine {
namespace {

/// Whether rows [B, t, X] are those of one matrix [B t, X].
bool is_one_matrix(const at::Tensor& rows) {
  return rows.size(0) == 1 || rows.stride(0) == rows.size(1) * rows.stride(1);
}

at::Tensor as_matrix(const at::Tensor& rows) {
  return rows.view({rows.size(0) * rows.size(1), rows.size(2)});
}

std::vector<int64_t> count_positions(const ScanOrder& order) {
  const at::Tensor offsets = order.offsets.to(at::kCPU, at::kLong),
                   branch = order.branch.to(at::kCPU, at::kLong);
  const auto *at_offset = offsets.const_data_ptr<int64_t>(),
             *at_branch = branch.const_data_ptr<int64_t>();
  std::vector<int64_t> sizes(static_cast<size_t>(order.num_branches), 0);
  for (int64_t s = 0; s < branch.size(0); ++s)
    sizes[static_cast<size_t>(at_branch[s])] += at_offset[s + 1] - at_offset[s];
  return sizes;
}

/// Sizes of the last orders on GPUs, known again by their tensors: a model asks in every layer, a
/// GPU would wait each time, and a copy to the host cannot be part of a CUDA graph.
class KeptSizes {
 public:
  std::vector<int64_t> of(const ScanOrder& order) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Known& known : known_) {
      if (is(known.offsets, order.offsets) && is(known.branch, order.branch)) return known.sizes;
    }
    constexpr size_t kMostKnown = 32;
    if (known_.size() == kMostKnown) known_.pop_front();
    known_.push_back({Weak(order.offsets.getIntrusivePtr()), Weak(order.branch.getIntrusivePtr()),
                      count_positions(order)});
    return known_.back().sizes;
  }

 private:
  using Weak = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;
  struct Known {
    Weak offsets, branch;
    std::vector<int64_t> sizes;
  };

  static bool is(const Weak& known, const at::Tensor& tensor) {
    return !known.expired() && known._unsafe_get_target() == tensor.unsafeGetTensorImpl();
  }

  std::mutex mutex_;
  std::deque<Known> known_;
};

}  // namespace

std::vector<int64_t> branch_sizes(const ScanOrder& order) {
  const auto count = static_cast<size_t>(order.num_branches);
  if (count == 1) return {order.num_positions()};
  if (order.complete) return std::vector<int64_t>(count, order.num_tokens);
  if (order.offsets.is_cpu()) return count_positions(order);
  static KeptSizes kept;
  return kept.of(order);
}

void branch_product(const at::Tensor& to, const at::Tensor& rows, const at::Tensor& matrices,
                    const std::vector<int64_t>& sizes, bool add) {
  int64_t first = 0;
  for (size_t k = 0; k < sizes.size(); first += sizes[k++]) {
    at::Tensor out = to.narrow(1, first, sizes[k]);
    const at::Tensor in = rows.narrow(1, first, sizes[k]);
    at::Tensor matrix = matrices.select(0, static_cast<int64_t>(k));
    if (is_one_matrix(out) && is_one_matrix(in)) {
      at::Tensor flat = as_matrix(out);
      if (add) {
        flat.addmm_(as_matrix(in), matrix);
      } else {
        at::mm_out(flat, as_matrix(in), matrix);
      }
      continue;
    }
    matrix = matrix.unsqueeze(0).expand({in.size(0), in.size(2), out.size(2)});
    if (add) {
      out.baddbmm_(in, matrix);
    } else {
      at::bmm_out(out, in, matrix);
    }
  }
}

at::Tensor branch_gram(const at::Tensor& left, const at::Tensor& right,
                       const std::vector<int64_t>& sizes) {
  const int64_t outs = left.size(2), ins = right.size(2);
  std::vector<at::Tensor> made;
  int64_t first = 0;
  for (const int64_t size : sizes) {
    const at::Tensor a = left.narrow(1, first, size), b = right.narrow(1, first, size);
    first += size;
    const bool flat = is_one_matrix(a) && is_one_matrix(b);
    // a sum of products of each sample, unless those are larger than a copy of the rows
    if (!flat && size * (outs + ins) > outs * ins) {
      made.push_back(at::bmm(a.transpose(1, 2), b).sum(0));
    } else {
      made.push_back(at::mm(a.reshape({-1, outs}).t(), b.reshape({-1, ins})));
    }
  }
  return made.size() == 1 ? made[0].unsqueeze(0) : at::stack(made);
}

}  // namespace serpentine
