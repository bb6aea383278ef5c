#include "core/ops/cuda_memory.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>

#include "core/check.h"

namespace serpentine::cuda {
namespace {

constexpr int64_t kLongestRow = 0x10000000;  // elements; see RowsView

}  // namespace

void* stream() { return at::cuda::getCurrentCUDAStream().stream(); }

void check_launch(const char* who, const char* error) {
  SERPENTINE_CHECK(error == nullptr, who, "CUDA: ", error);
}

Element element_of(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return Element::kDouble;
    case at::kBFloat16:
      return Element::kBFloat16;
    case at::kHalf:
      return Element::kHalf;
    default:
      return Element::kFloat;
  }
}

at::Tensor with_dense_rows(const at::Tensor& rows) {
  const bool dense = rows.stride(-1) == 1 || rows.size(-1) == 1;
  return dense && rows.stride(1) < kLongestRow ? rows : rows.contiguous();
}

RowsView view_rows(const at::Tensor& rows, bool by_token) {
  RowsView view;
  view.data = const_cast<void*>(rows.const_data_ptr());
  view.by_token = by_token;
  view.batch = rows.stride(0);
  view.row = static_cast<int32_t>(rows.stride(1));
  view.branch = rows.dim() == 4 ? rows.stride(2) : 0;
  return view;
}

void set_order(ScanCall& call, const ScanOrder& order) {
  call.positions = order.num_positions();
  call.sequences = order.num_sequences();
  call.branches = order.num_branches;
  call.tokens = order.identity ? nullptr : order.tokens.const_data_ptr<int32_t>();
  call.tokens_batch = order.tokens.dim() == 2 ? order.tokens.stride(0) : 0;
  call.offsets = order.offsets.const_data_ptr<int32_t>();
  call.branch = order.branch.const_data_ptr<int32_t>();
}

at::Tensor sum_rows(const at::Tensor& parts, const ScanOrder& order, bool visits, bool by_branch,
                    bool mean, at::ScalarType type) {
  RowSum sum;
  sum.from = element_of(parts.scalar_type());
  sum.to = element_of(type);
  sum.parts = parts.const_data_ptr();
  sum.groups = parts.size(0);
  sum.batch = parts.size(1);
  sum.positions = parts.size(2);
  sum.tokens = visits ? order.num_tokens : sum.positions;
  sum.width = parts.size(3);
  if (visits) {
    sum.visits = order.visits.const_data_ptr<int32_t>();
    sum.num_visits = order.num_visits();
    sum.visits_batch = order.visits.dim() == 3 ? order.num_tokens * sum.num_visits : 0;
  }
  if (by_branch && order.num_branches > 1) {
    sum.offsets = order.offsets.const_data_ptr<int32_t>();
    sum.branch = order.branch.const_data_ptr<int32_t>();
    sum.sequences = order.num_sequences();
    sum.branches = order.num_branches;
    sum.complete = order.complete;
  }
  sum.mean = mean;
  std::vector<int64_t> shape = {sum.batch, sum.tokens, sum.width};
  if (by_branch) shape.insert(shape.begin() + 2, order.num_branches);
  at::Tensor out = at::empty(shape, parts.options().dtype(type));
  sum.out = out.mutable_data_ptr();
  check_launch("sum_rows", sum_rows(sum, stream()));
  return out;
}

std::vector<at::Tensor> sum_slots(const ScanCall& call, const std::vector<SlotParts>& all,
                                  const at::TensorOptions& type) {
  std::vector<at::Tensor> made;
  std::vector<SlotSum> sums;
  const bool any = call.batch * call.sequences != 0;
  for (const SlotParts& of : all) {
    made.push_back(at::empty({call.branches, of.rows, of.width}, type));
    if (!any) made.back().zero_();
    sums.push_back({element_of(made.back().scalar_type()), of.parts, made.back().mutable_data_ptr(),
                    of.rows, of.width, of.padded});
  }
  if (any) {
    check_launch("sum_slots",
                 sum_slots(call, sums.data(), static_cast<int>(sums.size()), stream()));
  }
  return made;
}

}  // namespace serpentine::cuda
