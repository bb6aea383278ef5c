// How sequences of any lengths become chunks of one length, and how states travel between chunks.
//
// A chunk lies within one sequence; slots behind a sequence's end are pads. Sequences are sorted by
// their number of chunks, longest first, and chunks by (their place in the sequence, the sequence):
// so the chunks of one step are neighbours and each belongs to the carried state of its own rank.
// Q slots a chunk, M chunks, P positions, S sequences.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "core/scan_order.h"

namespace serpentine {

struct ChunkPlan {
  int64_t length = 1;             // Q
  int64_t chunks = 0;             // M
  int64_t positions = 0;          // P
  int64_t sequences = 0;          // S
  std::vector<int64_t> active;    // sequences that have a chunk at each step, not increasing
  std::vector<int64_t> sequence;  // of each chunk, [M]
  at::Tensor ranked;  // int64 [S]: the sequence of each rank; undefined if that is itself
  at::Tensor rank;    // int64 [S], the inverse
  at::Tensor slots;   // int64 [P]: the slot of each position; undefined if slot p is p
  at::Tensor filled;  // int64 [M Q]: the position at each slot, kPad at pads
};

/// Chunks of at most `most` positions, as equal as the longest sequence allows.
ChunkPlan make_chunk_plan(const ScanOrder& order, int64_t most, at::Device device);

/// Rows at positions [B, P, ...] -> rows of chunks [B M, Q, ...], zeros at pads; a view if it can
/// be.
at::Tensor to_chunks(const at::Tensor& x, const ChunkPlan& plan);
at::Tensor from_chunks(const at::Tensor& x, const ChunkPlan& plan, int64_t batch);

enum class Direction { kForward, kBackward };

/// Forward: replaces the sums of each chunk by the state that enters it, and returns the states
/// behind the last chunks: state = decay state + sum. Backward: the same from the end, for
/// gradients, and returns what arrives before the first chunks.
/// sums: [B, M, ...]; decay: [B, M, ...], broadcasts to them; start: [B, S, ...] by rank, may be
/// undefined (zeros). With `in_blocks` sequences of equal length take 2 sqrt(steps) steps instead
/// of one after another, and one more pass over the sums: for devices that wait long for a step.
at::Tensor pass_states(at::Tensor& sums, const at::Tensor& decay, const at::Tensor& start,
                       const ChunkPlan& plan, Direction direction, bool in_blocks);

}  // namespace serpentine
