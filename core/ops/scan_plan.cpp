#include "core/ops/scan_plan.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include "core/ops/parallel.h"

namespace serpentine::cpu {
namespace {

constexpr int64_t kSlabPositions = 256;   // short sequences share a slab until it is this long
constexpr int64_t kGroupBlocks = 4;       // channel blocks that share one part of dB and dC
constexpr int64_t kWideGroupBlocks = 16;  // the same at few states, where a row's page costs most
constexpr int64_t kLeastItems = 4;        // of work, so that there is some for each thread

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

/// A [K, D, N] times `scale` as [K, blocks, N, 16], zeros behind the last channel.
at::Tensor in_blocks(const at::Tensor& A, double scale) {
  const int64_t branches = A.size(0), channels = A.size(1), states = A.size(2);
  const int64_t blocks = (channels + kBlock - 1) / kBlock;
  at::Tensor out = at::empty({branches, blocks, states, kBlock}, A.options());
  const at::Tensor dense = A.contiguous();
  AT_DISPATCH_FLOATING_TYPES(A.scalar_type(), "in_blocks", [&] {
    const auto factor = static_cast<scalar_t>(scale);
    const auto* from = dense.const_data_ptr<scalar_t>();
    auto* to = out.mutable_data_ptr<scalar_t>();
    for (int64_t k = 0; k < branches; ++k, from += channels * states) {
      for (int64_t block = 0; block < blocks; ++block) {
        const auto* rows = from + block * kBlock * states;
        const int64_t count = std::min(kBlock, channels - block * kBlock);
        for (int64_t n = 0; n < states; ++n, to += kBlock) {
          for (int64_t c = 0; c < count; ++c) to[c] = rows[c * states + n] * factor;
          std::fill(to + count, to + kBlock, scalar_t{0});
        }
      }
    }
  });
  return out;
}

at::Tensor with_dense_rows(const at::Tensor& rows) {
  return rows.stride(-1) == 1 || rows.size(-1) == 1 ? rows : rows.contiguous();
}

}  // namespace

RowsView view_rows(const at::Tensor& rows, bool by_token) {
  RowsView view;
  view.data = const_cast<void*>(rows.const_data_ptr());
  view.element = element_of(rows.scalar_type());
  view.by_token = by_token;
  view.batch = rows.stride(0);
  view.row = rows.stride(1);
  view.branch = rows.dim() == 4 ? rows.stride(2) : 0;
  return view;
}

ScanPlan::ScanPlan(const SelectiveScanArgs& args, const ScanOrder& order, Rows rows)
    : type(args.u.scalar_type()), wide(args.A.scalar_type()) {
  const bool by_token = rows == Rows::kToken;
  call.batch = args.u.size(0);
  call.positions = order.num_positions();
  call.channels = args.u.size(2);
  call.states = args.A.size(2);
  call.sequences = order.num_sequences();
  call.softplus = args.delta_softplus;
  call.tokens = order.identity ? nullptr : order.tokens.const_data_ptr<int32_t>();
  call.tokens_batch = order.tokens.dim() == 2 ? order.tokens.stride(0) : 0;
  call.offsets = order.offsets.const_data_ptr<int32_t>();
  cut(order);

  operands.reserve(8);
  const auto keep = [this](const at::Tensor& tensor) {
    operands.push_back(tensor);
    return operands.back();
  };
  const auto dense = [&](const at::Tensor& tensor) -> const void* {
    return tensor.defined() ? keep(tensor.contiguous()).const_data_ptr() : nullptr;
  };
  call.u = view_rows(keep(with_dense_rows(args.u)), by_token);
  call.delta = view_rows(keep(with_dense_rows(args.delta)), by_token);
  call.B = view_rows(keep(with_dense_rows(args.B)), by_token);
  call.C = view_rows(keep(with_dense_rows(args.C)), by_token);
  call.A = dense(in_blocks(args.A, wide == at::kDouble ? kDoubleScale : kFloatScale));
  call.D = dense(args.D);
  call.delta_bias = dense(args.delta_bias);
  call.initial_state = dense(args.initial_state);
}

void ScanPlan::cut(const ScanOrder& order) {
  const auto* branch = order.branch.const_data_ptr<int32_t>();
  call.chunk =
      (call.states + 63) / 64 * 64;  // saved states are at most a 64th of B P D N, or B P D
  int64_t size = 0;
  for (int64_t s = 0; s < call.sequences; ++s) {
    const int64_t length = call.offsets[s + 1] - call.offsets[s];
    if (slabs.empty() || slabs.back().branch != branch[s] || size >= kSlabPositions) {
      slabs.push_back({s, s, branch[s]});
      size = 0;
    }
    slabs.back().last = s + 1;
    size += length;
    saved_before.push_back(call.num_saved);
    call.num_saved += std::max<int64_t>(0, (length + call.chunk - 1) / call.chunk - 1);
  }
  call.slabs = slabs.data();
  call.num_slabs = static_cast<int64_t>(slabs.size());
  call.saved_before = saved_before.data();

  // all parts of dB and dC together are no larger than u's gradient
  const int64_t most = std::max<int64_t>(1, call.channels / (2 * call.states));
  int64_t groups = call.num_blocks() / kGroupBlocks;
  if (call.states <= kStatesWithSteps) {
    const int64_t units = std::max<int64_t>(1, call.batch * call.num_slabs);
    groups = std::min(
        groups, std::max(call.num_blocks() / kWideGroupBlocks, (kLeastItems + units - 1) / units));
  }
  call.groups = std::clamp<int64_t>(groups, 1, most);
}

void ScanPlan::run(int64_t items, bool backward) const {
  const int64_t units = call.batch * call.num_slabs;
  if (units == 0 || call.channels == 0) return;
  const int64_t work =
      call.batch * call.positions * call.channels * (call.states + 4) / std::max<int64_t>(1, items);
  const int64_t grain = std::max<int64_t>(1, 40000 / std::max<int64_t>(1, work));
  const bool is_double = wide == at::kDouble;
  parallel_for(0, items, grain, [&](int64_t begin, int64_t end) {
    (backward ? scan_backward : scan_forward)(call, is_double, begin, end);
  });
}

void ScanPlan::run_forward() const {
  run(call.batch * call.num_slabs * call.num_blocks(), /*backward=*/false);
}

void ScanPlan::run_backward() const {
  run(call.batch * call.num_slabs * call.groups, /*backward=*/true);
}

}  // namespace serpentine::cpu
