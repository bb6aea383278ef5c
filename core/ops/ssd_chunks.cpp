#include "core/ops/ssd_chunks.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>

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

at::Tensor pass_states(at::Tensor& sums, const at::Tensor& decay, const at::Tensor& first,
                       const ChunkPlan& plan) {
  std::vector<int64_t> shape(sums.sizes().begin(), sums.sizes().end());
  shape[1] = plan.sequences;
  at::Tensor state = first.defined() ? first.clone() : at::zeros(shape, sums.options());
  int64_t chunk = 0;
  for (const int64_t alive : plan.active) {
    at::Tensor now = state.narrow(1, 0, alive), own = sums.narrow(1, chunk, alive);
    const at::Tensor next = at::addcmul(own, now, decay.narrow(1, chunk, alive));
    own.copy_(now);
    now.copy_(next);
    chunk += alive;
  }
  return state;
}

at::Tensor pass_states_back(at::Tensor& sums, const at::Tensor& decay, const at::Tensor& last,
                            const ChunkPlan& plan) {
  at::Tensor state = last.clone();
  int64_t chunk = plan.chunks;
  for (size_t step = plan.active.size(); step-- > 0;) {
    const int64_t alive = plan.active[step];
    chunk -= alive;
    at::Tensor now = state.narrow(1, 0, alive), own = sums.narrow(1, chunk, alive);
    const at::Tensor next = at::addcmul(own, now, decay.narrow(1, chunk, alive));
    own.copy_(now);
    now.copy_(next);
  }
  return state;
}

}  // namespace serpentine
