// What the CUDA kernels of the selective scan know: plain memory, no tensors.
//
// Letters: B batch, T tokens, P positions, S sequences, K branches, D channels, N states. A piece
// is a run of positions that one block walks: a whole sequence, or, where few channels meet a long
// sequence, `piece` positions of it. Piece i of sequence s has the slot offsets[s] / piece + s + i
// (s when pieces are whole sequences), so that no table has to be made.
#pragma once

#include <cstdint>

namespace serpentine::cuda {

enum class Element : uint8_t { kFloat, kDouble, kBFloat16, kHalf };

/// Rows of channels or states. Strides count elements; the innermost one is 1.
struct RowsView {
  void* data = nullptr;
  bool by_token = false;  // a row a token (pads have none), else a row a position
  int64_t batch = 0, branch = 0;
  int32_t row = 0;  // fewer than 2^28: 4 GiB of the widest type
};

/// How the states of a channel are spread over a warp: `lanes` neighbouring lanes, `each` states a
/// lane. Padded states decay from zero and stay zero.
struct StateLayout {
  int each = 1, lanes = 1;
  constexpr int padded() const { return each * lanes; }
};

inline constexpr int kTile = 16;  // positions whose states the backward pass holds at once
inline constexpr int kWarp = 32;  // lanes
inline constexpr int kWarps = 4;  // of a block, side by side along the channels
inline constexpr int kThreads = kWarps * kWarp;

/// Every array is dense unless it is a RowsView. R is float, or double when the rows are.
struct ScanCall {
  Element element = Element::kFloat;  // of every RowsView
  int64_t batch = 0, positions = 0, channels = 0, states = 0, sequences = 0, branches = 0;
  const int32_t* tokens = nullptr;   // null: position p is token p
  int64_t tokens_batch = 0;          // stride of tokens between samples, 0 when shared
  const int32_t* offsets = nullptr;  // [S + 1]
  const int32_t* branch = nullptr;   // [S]
  bool softplus = false;
  int64_t piece = 0;  // positions of a piece, a multiple of chunk(); 0: whole sequences

  RowsView u, delta, B, C, y;
  const void* A = nullptr;              // R [K, D, N]
  const void* D = nullptr;              // R [K, D] or null
  const void* delta_bias = nullptr;     // R [K, D] or null
  const void* initial_state = nullptr;  // R [B, S, D, N] or null
  void* final_state = nullptr;          // R [B, S, D, N] or null
  void* saved = nullptr;        // R [B, saved slots, D, padded N]: states at chunk starts, or null
  void* piece_state = nullptr;  // R [B, slots, D, padded N]: state before each piece, if cut
  void* piece_step = nullptr;   // R [B, slots, D]: sum of dt over each piece, if cut
  bool joined = false;          // both are those of an earlier call with these operands

  // the backward pass alone
  RowsView dy, du, ddelta;
  const void* dfinal = nullptr;  // R [B, S, D, N] or null
  void* dinitial = nullptr;      // R [B, S, D, N] or null
  void* piece_grad = nullptr;    // R [B, slots, D, padded N]: gradient behind each piece, if cut
  void* dA = nullptr;            // R [B, slots, D, padded N]
  void* dD = nullptr;            // R [B, slots, D] or null
  void* dbias = nullptr;         // R [B, slots, D] or null
  void* dB = nullptr;            // R [channel blocks, B, P, N]
  void* dC = nullptr;            // R [channel blocks, B, P, N]

  int64_t pairs = 0;  // channels of a block with two a lane (scan_pair_*.cu); 0: one a lane
  int64_t plane = 0;  // tokens whose sums over branches a block holds: scan_plane_*.cu
  bool mean = false;  // of the branches, with `plane`; else their sum

  constexpr int64_t slots() const { return piece == 0 ? sequences : positions / piece + sequences; }
  /// Positions between saved states: they take no more memory than u for N <= 16, 4 u for all N.
  constexpr int64_t chunk() const;
  constexpr int64_t saved_slots() const { return positions / chunk() + sequences; }
  constexpr StateLayout layout() const;
  constexpr int64_t block_channels() const {
    if (pairs != 0) return pairs;
    return layout().lanes == 1 ? kWarp : kThreads / layout().lanes;
  }
  constexpr int64_t channel_blocks() const {
    return (channels + block_channels() - 1) / block_channels();
  }
};

constexpr StateLayout ScanCall::layout() const {
  if (states <= 1) return {1, 1};
  if (states <= 2) return {2, 1};
  if (states <= 4) return {4, 1};
  if (states <= 8) return {4, 2};
  if (states <= 16) return {4, 4};
  if (states <= 32) return {4, 8};
  if (states <= 64) return {8, 8};
  if (states <= 128) return {8, 16};
  return {8, 32};
}

constexpr int64_t ScanCall::chunk() const {
  if (layout().lanes == 1) return int64_t{kWarps} * (states <= 2 ? 8 : 4);
  const int tiles = layout().padded() / 16;
  return int64_t{kTile} * (tiles < 1 ? 1 : tiles);
}

/// Launch on `stream` (a cudaStream_t). Return a CUDA error's text, or null.
const char* scan_forward(const ScanCall& call, void* stream);
const char* scan_backward(const ScanCall& call, void* stream);

/// The same with two channels a lane. takes_pairs: whether that fits the forward pass and pays;
/// pair_channels: the channels of a block of the backward pass then, else 0.
bool takes_pairs(const ScanCall& call);
int64_t pair_channels(const ScanCall& call);
const char* pair_forward(const ScanCall& call, void* stream);
const char* pair_backward(const ScanCall& call, void* stream);

/// The same with all branches of a few channels in one block, and whether that fits.
bool takes_plane(const ScanCall& call, int64_t tokens);
const char* plane_forward(const ScanCall& call, void* stream);
const char* plane_backward(const ScanCall& call, void* stream);

/// Sums of rows in a fixed order: out[b, t, k, x] = sum over groups g and the visits p of token t
/// (those of branch k when branches are kept apart) of parts[g, b, p, x].
struct RowSum {
  Element from = Element::kFloat, to = Element::kFloat;
  const void* parts = nullptr;  // [G, B, P, X]
  void* out = nullptr;          // [B, T, K or 1, X]
  int64_t groups = 1, batch = 0, positions = 0, tokens = 0, width = 0;
  const int32_t* visits = nullptr;  // [T, V] or [B, T, V]; null: token t has the one visit t
  int64_t visits_batch = 0, num_visits = 1;
  const int32_t* offsets = nullptr;  // [S + 1], to find a position's branch; null: one branch
  const int32_t* branch = nullptr;   // [S]
  int64_t sequences = 0, branches = 1;
  bool complete = false;  // visit v is branch v's: ScanOrder::complete
  bool mean = false;      // divide by the number of visits
};
const char* sum_rows(const RowSum& sum, void* stream);

/// out[k, x] = sum over samples and the slots of branch k of parts[b, slot, x]; both of type
/// `type`.
struct SlotSum {
  Element type = Element::kFloat;  // float or double
  const void* parts = nullptr;     // [B, slots, rows, padded width]
  void* out = nullptr;             // [K, rows, width]
  int64_t rows = 0, width = 1, padded = 1;
};
/// All of one type, at most kMostSums of them, in one launch.
inline constexpr int kMostSums = 3;
const char* sum_slots(const ScanCall& call, const SlotSum* sums, int count, void* stream);

}  // namespace serpentine::cuda
