// Arguments of the Python operators: optional tensors, and a scan order from its parts.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string_view>
#include <tuple>

#include "core/ops/selective_scan.h"
#include "core/scan_order.h"

namespace serpentine {

using OptionalTensor = std::optional<at::Tensor>;

inline at::Tensor or_undefined(const OptionalTensor& tensor) {
  return tensor.value_or(at::Tensor());
}

inline Rows parse_rows(std::string_view name) {
  TORCH_CHECK(name == "token" || name == "position", "rows must be token or position, got ", name);
  return name == "token" ? Rows::kToken : Rows::kPosition;
}

inline Merge parse_merge(std::string_view name) {
  TORCH_CHECK(name == "sum" || name == "mean" || name == "concat",
              "merge must be sum, mean or concat, got ", name);
  return name == "sum" ? Merge::kSum : name == "mean" ? Merge::kMean : Merge::kConcat;
}

using OrderParts = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, bool>;

inline OrderParts order_parts(const at::Tensor& tokens, const OptionalTensor& offsets,
                              const OptionalTensor& branch, int64_t num_tokens) {
  const at::TensorOptions ints = tokens.options().dtype(at::kInt);
  const int64_t positions = tokens.size(-1);
  const at::Tensor starts =
      offsets ? *offsets : at::arange(0, positions + 1, std::max<int64_t>(positions, 1), ints);
  const at::Tensor branches = branch ? *branch : at::zeros({starts.size(0) - 1}, ints);
  const ScanOrder order = make_order(tokens, starts, branches, num_tokens);
  return {order.tokens, order.offsets, order.branch, order.visits, order.complete};
}

// Without tokens, the identity over u's rows; offsets and branch default to one sequence. With
// visits, the five are taken as serpentine::make_order gave them, and nothing is derived again.
inline ScanOrder order_of(const at::Tensor& u, int64_t num_branches, const OptionalTensor& tokens,
                          const OptionalTensor& offsets, const OptionalTensor& branch,
                          const OptionalTensor& visits, bool complete,
                          std::optional<int64_t> num_tokens) {
  TORCH_CHECK(u.dim() >= 2, "a scan's rows must be [B, T, ...] or [B, P, ...], got ", u.sizes());
  if (!tokens) {
    TORCH_CHECK(!branch && !visits, "a scan's branch and visits need tokens");
    return offsets ? ragged_order(*offsets) : identity_order(u.size(1), u.device());
  }
  ScanOrder order;
  if (visits) {
    TORCH_CHECK(offsets && branch, "a scan's visits need offsets and branch");
    order = {*tokens, *offsets, *branch, *visits};
    order.complete = complete;
  } else {
    std::tie(order.tokens, order.offsets, order.branch, order.visits, order.complete) =
        order_parts(*tokens, offsets, branch, num_tokens.value_or(u.size(1)));
  }
  order.num_tokens = order.visits.size(-2);
  order.num_branches = num_branches;
  return order;
}

}  // namespace serpentine
