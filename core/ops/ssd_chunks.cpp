#include "core/ops/ssd_chunks.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <ATen/ATen.h>

#include "core/ops/scan_device.h"
#include "core/ops/ssd_fused.h"

namespace serpentine {
namespace {

int64_t divided_up(int64_t count, int64_t by) { return (count + by - 1) / by; }

std::vector<int64_t> offsets_of(const ScanOrder& order) {
  if (order.num_sequences() == 1) return {0, order.num_positions()};  // a GPU is not waited for
  const at::Tensor host = order.offsets.to(at::kCPU, at::kLong).contiguous();
  return {host.data_ptr<int64_t>(), host.data_ptr<int64_t>() + host.numel()};
}

at::Tensor moved(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}

bool counts_up(const std::vector<int64_t>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] != static_cast<int64_t>(i)) return false;
  }
  return true;
}

std::vector<int64_t> rows_shape(const at::Tensor& x, int64_t rows, int64_t columns) {
  std::vector<int64_t> shape{rows, columns};
  for (int64_t axis = 2; axis < x.dim(); ++axis) shape.push_back(x.size(axis));
  return shape;
}

/// One step: `own` holds a sum and gets the state, which moves on.
void advance(at::Tensor own, const at::Tensor& decay, at::Tensor& state) {
  const at::Tensor next = at::addcmul(own, state, decay);
  own.copy_(state);
  state.copy_(next);
}

/// Blocks of about sqrt(steps) steps: all blocks walk side by side from zero, then the blocks'
/// starts one after another, then every step gets its block's start through the decays between.
void pass_in_blocks(at::Tensor& sums, const at::Tensor& decay, at::Tensor& state, int64_t steps,
                    Direction direction) {
  const bool forward = direction == Direction::kForward;
  const int64_t sequences = state.size(1);
  const auto length = static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(steps))));
  const int64_t blocks = steps / length, rest = steps - blocks * length;
  const auto step_of = [&](const at::Tensor& x, int64_t step) {
    return x.narrow(1, step * sequences, sequences);
  };
  // the steps that fill no block come last in the direction of the walk
  const int64_t from = forward ? 0 : rest;
  const auto in_blocks = [&](const at::Tensor& x) {
    return x.narrow(1, from * sequences, blocks * length * sequences)
        .unflatten(1, {blocks, length, sequences});
  };
  const at::Tensor all = in_blocks(sums), factors = in_blocks(decay);
  at::Tensor local = at::zeros_like(all.select(2, 0));
  at::Tensor through = at::empty_like(factors);  // the decays since the block's start
  at::Tensor product = at::ones_like(factors.select(2, 0));
  for (int64_t i = 0; i < length; ++i) {
    const int64_t place = forward ? i : length - 1 - i;
    advance(all.select(2, place), factors.select(2, place), local);
    through.select(2, place).copy_(product);
    product = product * factors.select(2, place);
  }
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t block = forward ? i : blocks - 1 - i;
    advance(local.select(1, block), product.select(1, block), state);
  }
  all.addcmul_(local.unsqueeze(2), through);
  for (int64_t i = 0; i < rest; ++i) {
    const int64_t step = forward ? blocks * length + i : rest - 1 - i;
    advance(step_of(sums, step), step_of(decay, step), state);
  }
}

}  // namespace

ChunkPlan make_chunk_plan(const ScanOrder& order, int64_t most, at::Device device) {
  const std::vector<int64_t> offsets = offsets_of(order);
  const size_t sequences = offsets.size() - 1;
  ChunkPlan plan;
  plan.positions = order.num_positions();
  plan.sequences = static_cast<int64_t>(sequences);
  int64_t longest = 1;
  for (size_t s = 0; s < sequences; ++s) longest = std::max(longest, offsets[s + 1] - offsets[s]);
  plan.length = divided_up(longest, divided_up(longest, most));

  const auto chunks_of = [&](int64_t s) {
    const auto i = static_cast<size_t>(s);
    return divided_up(offsets[i + 1] - offsets[i], plan.length);
  };
  std::vector<int64_t> ranked(sequences), rank(sequences);
  std::iota(ranked.begin(), ranked.end(), 0);
  std::stable_sort(ranked.begin(), ranked.end(),
                   [&](int64_t a, int64_t b) { return chunks_of(a) > chunks_of(b); });
  for (size_t r = 0; r < sequences; ++r)
    rank[static_cast<size_t>(ranked[r])] = static_cast<int64_t>(r);
  std::vector<int64_t> first_chunk;
  for (int64_t step = 0, alive = plan.sequences;; ++step) {
    while (alive > 0 && chunks_of(ranked[static_cast<size_t>(alive - 1)]) <= step) --alive;
    if (alive == 0) break;
    plan.active.push_back(alive);
    first_chunk.push_back(plan.chunks);
    plan.chunks += alive;
    plan.sequence.insert(plan.sequence.end(), ranked.begin(), ranked.begin() + alive);
  }
  if (!counts_up(ranked)) {
    plan.ranked = moved(ranked, device);
    plan.rank = moved(rank, device);
  }

  // one sequence, or sequences of one full chunk each: slot p is position p
  const bool in_place = sequences == 1 || (plan.active.size() == 1 && counts_up(ranked) &&
                                           plan.chunks * plan.length == plan.positions);
  if (in_place) return plan;
  std::vector<int64_t> slots(static_cast<size_t>(plan.positions));
  std::vector<int64_t> filled(static_cast<size_t>(plan.chunks * plan.length), kPad);
  for (size_t s = 0; s < sequences; ++s) {
    for (int64_t p = offsets[s]; p < offsets[s + 1]; ++p) {
      const int64_t step = (p - offsets[s]) / plan.length, place = (p - offsets[s]) % plan.length;
      const int64_t slot = (first_chunk[static_cast<size_t>(step)] + rank[s]) * plan.length + place;
      slots[static_cast<size_t>(p)] = slot;
      filled[static_cast<size_t>(slot)] = p;
    }
  }
  plan.slots = moved(slots, device);
  plan.filled = moved(filled, device);
  return plan;
}

at::Tensor to_chunks(const at::Tensor& x, const ChunkPlan& plan) {
  const int64_t all = plan.chunks * plan.length;
  at::Tensor rows = x;
  if (plan.slots.defined()) {
    rows = x.index_select(1, plan.filled.clamp_min(0));
    if (all != plan.positions) {
      std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
      shape[1] = all;
      rows.masked_fill_((plan.filled < 0).view(shape), 0);
    }
  } else if (all != plan.positions) {
    rows = at::empty(rows_shape(x, x.size(0), all), x.options());
    rows.narrow(1, 0, plan.positions).copy_(x);
    rows.narrow(1, plan.positions, all - plan.positions).zero_();
  }
  return rows.reshape(rows_shape(x, x.size(0) * plan.chunks, plan.length));
}

at::Tensor from_chunks(const at::Tensor& x, const ChunkPlan& plan, int64_t batch) {
  const at::Tensor rows = x.view(rows_shape(x, batch, plan.chunks * plan.length));
  return plan.slots.defined() ? rows.index_select(1, plan.slots)
                              : rows.narrow(1, 0, plan.positions);
}

at::Tensor pass_states(at::Tensor& sums, const at::Tensor& decay, const at::Tensor& start,
                       const ChunkPlan& plan, Direction direction, bool in_blocks) {
  std::vector<int64_t> shape(sums.sizes().begin(), sums.sizes().end());
  shape[1] = plan.sequences;
  at::Tensor state = start.defined() ? start.clone() : at::zeros(shape, sums.options());
  const auto steps = static_cast<int64_t>(plan.active.size());
  const bool uniform = steps > 0 && plan.active.back() == plan.sequences;
  if (sums.is_cuda() && uniform && sums.scalar_type() == at::kFloat && sums.is_contiguous() &&
      cuda::is_built()) {
    cuda::ssd_states(sums, decay.flatten(2), state, direction == Direction::kForward);
    return state;
  }
  if (in_blocks && uniform && steps > 8) {
    pass_in_blocks(sums, decay, state, steps, direction);
    return state;
  }
  const bool forward = direction == Direction::kForward;
  int64_t chunk = forward ? 0 : plan.chunks;
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t alive = plan.active[static_cast<size_t>(forward ? step : steps - 1 - step)];
    if (!forward) chunk -= alive;
    at::Tensor now = state.narrow(1, 0, alive);
    advance(sums.narrow(1, chunk, alive), decay.narrow(1, chunk, alive), now);
    if (forward) chunk += alive;
  }
  return state;
}

}  // namespace serpentine
