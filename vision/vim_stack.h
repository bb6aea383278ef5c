// The layers of Vim and its relatives: residual blocks of routed mixers over a sequence of patches
// with class tokens in between, and the last norm.
//
// Zhu et al., "Vision Mamba", arXiv 2401.09417, Figure 2; layer-wise shuffle: Huang et al., arXiv
// 2408.17081. B batch, T tokens (patches and class tokens), C channels.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/nn/block.h"
#include "vision/image_scan.h"
#include "vision/position_embedding.h"
#include "vision/routed_mamba.h"

namespace serpentine {

/// Where class tokens stand among the patches.
struct ClassTokens {
  std::string position = "middle";  // first, middle, both, spread (as scans/class_token) or none
  int64_t count = 1;                // if spread
  /// Their places in the sequence, ascending, for this many patches.
  std::vector<int64_t> places(int64_t patches) const;
  int64_t number() const;
};

/// `scan` with class tokens put into each of its sequences, as YAML.
std::string scan_with_classes(const ClassTokens& classes, const Config& scan);

/// An order over patches and then class tokens, for tokens that lie in sequence with the class
/// tokens at `places`.
ScanOrder in_sequence(const ScanOrder& order, const std::vector<int64_t>& places);

struct VimStackOptions {
  int64_t dim = 192, depth = 24;
  bool rms_norm = true, residual_in_fp32 = true;
  double norm_eps = 1e-5, drop_path = 0;
  RoutedMambaOptions mixer;  // its d_model is dim
  bool both_ways = true;     // without a `scan`: the sequence and its reverse, else it alone
  bool pairs = false;        // layers in twos, the second over the reverse, their results added
  bool recompute = false;    // training keeps only what enters each layer
  double shuffle_rate = 0;   // probability of a shuffle in the last layer; it grows from 0
  ClassTokens classes;
  Config scan;  // over the patches; empty: the sequence as it lies
};

/// Registers `layers` and `norm_f` in the model that owns it.
class VimStack {
 public:
  using OnLayer = std::function<void(int64_t layer, const Streams& streams, const Trace& mixer)>;

  VimStack(torch::nn::Module& owner, const VimStackOptions& options);

  /// x: [B, T, C] in sequence, of height x width patches -> [B, T, C]. `rope` may be empty; it
  /// turns the residual stream too if `rope_residual`. `on_layer` may be empty.
  torch::Tensor forward(const torch::Tensor& x, int64_t height, int64_t width, bool training,
                        RotaryGrid rope = nullptr, bool rope_residual = false,
                        const OnLayer& on_layer = {});

  /// Vim's: what goes back into the stream is divided by sqrt(depth).
  void reset();

 private:
  ScanOrder order(int64_t height, int64_t width, int64_t tokens, at::Device device, int64_t layer,
                  bool training);
  ScanOrder routed(int64_t height, int64_t width, int64_t tokens, at::Device device,
                   const ScanContext& context);

  VimStackOptions options_;
  ImageScan scan_;
  bool custom_, varies_;  // a `scan` was given; it may differ from layer to layer
  std::map<std::tuple<int64_t, int64_t, std::string>, ScanOrder> kept_;
  std::vector<Block> blocks_;
  std::vector<RoutedMamba> mixers_;
  std::vector<double> drop_;
  Norm norm_f_{nullptr};
};

}  // namespace serpentine
