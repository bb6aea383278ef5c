// The scan order: which token is read at each position, as one value type, and its algebra.
//
// Letters: B batch, T tokens, P positions, S sequences, K branches, V visits.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

namespace serpentine {

inline constexpr int32_t kPad = -1;  // a position that reads zeros and writes nothing

enum class Merge { kSum, kMean, kConcat };

/// A token is a row of [B, T, D]. A sequence is one run of the recurrence from a zero state.
/// Sequences are sorted by branch; a branch is one set of SSM parameters.
struct ScanOrder {
  at::Tensor tokens;       // int32 [P] or [B, P]: the token at each position, or kPad
  at::Tensor offsets;      // int32 [S + 1]: sequence s owns positions [offsets[s], offsets[s + 1])
  at::Tensor branch;       // int32 [S], non-decreasing
  at::Tensor visits;       // int32 [T, V] or [B, T, V]: the positions of each token, kPad filled
  int64_t num_tokens = 0;  // T
  int64_t num_branches = 1;  // K
  bool identity = false;     // position p is token p: kernels skip the index load
  bool complete = false;     // every branch visits every token once: visit v is branch v's, no pads

  int64_t num_positions() const { return tokens.size(-1); }  // P
  int64_t num_sequences() const { return branch.size(0); }   // S
  int64_t num_visits() const { return visits.size(-1); }     // V
  ScanOrder to(at::Device device) const;
};

/// Derives `visits` and checks the rest: offsets cover P, branches are sorted from 0 without a gap,
/// tokens are below T (checked on the CPU only). Pass `offsets` and `branch` on the CPU and a known
/// `num_visits` (V, the most that any token has) to spare a GPU the synchronisation.
ScanOrder make_order(const at::Tensor& tokens, const at::Tensor& offsets, const at::Tensor& branch,
                     int64_t num_tokens, int64_t num_visits = -1);

/// One branch, one sequence, position p is token p.
ScanOrder identity_order(int64_t num_tokens, at::Device device = at::kCPU);

/// The same sequences and branches over other tokens: [P] or [B, P], each of the `num_tokens`
/// tokens at most `num_visits` times. Waits for no GPU.
ScanOrder with_tokens(const ScanOrder& order, const at::Tensor& tokens, int64_t num_tokens,
                      int64_t num_visits);

/// The same tokens, each sequence walked from its end.
ScanOrder reversed(const ScanOrder& order);

/// Side by side; each part keeps its branches (their numbers shift). A known `num_visits` spares a
/// GPU the synchronisation: V, or the parts' V together, which leaves unused slots.
ScanOrder stack(at::ArrayRef<ScanOrder> parts, int64_t num_visits = -1);

/// Token t becomes token permutation[t]. permutation: int64 [T] or [B, T].
ScanOrder relabeled(const ScanOrder& order, const at::Tensor& permutation);

/// Cuts each sequence into pieces of at most `length` positions that start from a zero state.
ScanOrder split(const ScanOrder& order, int64_t length);

/// Identity with sequence boundaries: `offsets` int32 [S + 1], one branch (packed, ragged batches).
ScanOrder ragged_order(const at::Tensor& offsets);

}  // namespace serpentine
