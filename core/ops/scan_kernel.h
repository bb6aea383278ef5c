// What the CPU kernels of the selective scan know: plain memory, no tensors.
//
// Channels are handled in blocks of 16. Arrays marked [.., blocks] hold a block's states as [N,
// 16], so that one vector holds one state of neighbouring channels, whatever the machine's vector
// length.
#pragma once

#include <cstddef>
#include <cstdint>

namespace serpentine::cpu {

inline constexpr int64_t kBlock = 16;           // channels
inline constexpr int64_t kStatesWithSteps = 2;  // up to so many, dt is kept for the backward pass

enum class Element : uint8_t { kFloat, kDouble, kBFloat16, kHalf };

/// Rows of channels or states. Strides count elements; the innermost one is 1.
struct RowsView {
  void* data = nullptr;
  Element element = Element::kFloat;
  bool by_token = false;  // a row a token (pads have none), else a row a position
  int64_t batch = 0, row = 0, branch = 0;
};

/// Neighbouring sequences [first, last) of one branch: the unit of work beside samples and
/// channels.
struct Slab {
  int64_t first = 0, last = 0, branch = 0;
};

/// One call. T is float, or double when the rows are; every T array is dense.
struct ScanCall {
  int64_t batch = 0, positions = 0, channels = 0, states = 0, sequences = 0;
  const int32_t* tokens = nullptr;   // null: position p is token p
  int64_t tokens_batch = 0;          // stride of tokens between samples, 0 when shared
  const int32_t* offsets = nullptr;  // [S + 1]
  const Slab* slabs = nullptr;
  int64_t num_slabs = 0;
  bool softplus = false;
  int64_t chunk = 64;                     // positions between saved states
  const int64_t* saved_before = nullptr;  // [S]: saved states of the sequences before s
  int64_t num_saved = 0;

  RowsView u, delta, B, C, y;
  const void* A = nullptr;              // T [K, blocks], multiplied by the logarithm's scale
  const void* D = nullptr;              // T [K, channels] or null
  const void* delta_bias = nullptr;     // T [K, channels] or null
  const void* initial_state = nullptr;  // T [B, S, channels, N] or null
  void* final_state = nullptr;          // T [B, S, channels, N] or null
  void* saved = nullptr;  // T [B, num_saved, blocks]: states at the chunks' starts, or null
  void* steps = nullptr;  // T [B, P, channels]: dt, kept where there are few states, or null

  // the backward pass alone
  int64_t groups = 1;  // of channel blocks; each owns a part of dB and dC
  RowsView dy, du, ddelta;
  const void* dfinal = nullptr;  // T [B, S, channels, N] or null
  void* dinitial = nullptr;      // T [B, S, channels, N] or null
  void* dA = nullptr;            // T [B, slabs, channels, N]
  void* dD = nullptr;            // T [B, slabs, channels] or null
  void* dbias = nullptr;         // T [B, slabs, channels] or null
  void* dB = nullptr;            // T [groups, B, P, N]
  void* dC = nullptr;            // T [groups, B, P, N]

  int64_t num_blocks() const { return (channels + kBlock - 1) / kBlock; }
};

/// What A is multiplied by before the call: the kernel's exponential has base 2 in float.
inline constexpr double kFloatScale = 1.4426950408889634, kDoubleScale = 1.0;

/// Work items [begin, end) of B x slabs x blocks, on the best instructions of this machine.
void scan_forward(const ScanCall& call, bool wide, int64_t begin, int64_t end);

/// Work items [begin, end) of B x slabs x groups.
void scan_backward(const ScanCall& call, bool wide, int64_t begin, int64_t end);

}  // namespace serpentine::cpu
