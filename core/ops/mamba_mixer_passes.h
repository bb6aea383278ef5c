// The forward and the backward pass of mamba_mixer, over groups of inner channels.
#pragma once

#include "core/ops/mamba_mixer.h"
#include "core/ops/scan_device.h"

namespace serpentine {

/// What is made of a group of w channels on the way there. An undefined tensor was not kept.
struct MixerMade {
  at::Tensor x, z;      // [B, T, w]
  at::Tensor u, delta;  // [B, P, w]
  ScanForward scan;
  std::vector<at::Tensor> cuts;  // of each group's scan: pieces and steps, or undefined tensors
};

class MixerPasses {
 public:
  /// h and the projections are of one type. `args` must outlive this.
  MixerPasses(const MambaMixerArgs& args, const ScanOrder& order, const MambaMixerOptions& options);

  /// [B, T, E]. steps: [B, P, R + 2 N], made here. kept: receives what is to be kept, or is null.
  at::Tensor forward(at::Tensor& steps, MixerMade* kept);
  /// Each operand's gradient under its name. dy: [B, T, E]; made: what forward kept.
  MambaMixerArgs backward(const at::Tensor& dy, const at::Tensor& steps, MixerMade made);

 private:
  struct Group {
    int64_t first, count;
    size_t number;
    at::Tensor of(const at::Tensor& tensor, int64_t axis) const;
  };
  struct Sums;

  at::Tensor entered(const Group& group, bool is_gate) const;
  at::Tensor convolved(const at::Tensor& x, const Group& group) const;
  SelectiveScanArgs operands(const MixerMade& made, const at::Tensor& steps,
                             const Group& group) const;
  void make(MixerMade& made, const at::Tensor& steps, const Group& group,
            const ScanForward& before = {}) const;
  void gate_back(MixerMade& made, at::Tensor& dy, const Group& group, Sums& sums) const;
  void scan_back(MixerMade& made, at::Tensor& dy, const at::Tensor& steps, const Group& group,
                 Sums& sums) const;
  void steps_back(const at::Tensor& u, at::Tensor& du, const at::Tensor& dsteps, const Group& group,
                  Sums& sums) const;
  void convolution_back(at::Tensor& x, at::Tensor& du, const Group& group, Sums& sums) const;
  void into_h(const at::Tensor& grad, const Group& group, bool is_gate, Sums& sums) const;

  const MambaMixerArgs& args_;
  MambaMixerOptions options_;
  ScanOptions scan_;
  at::Tensor A_;  // [K, D, N]
  int64_t rank_, states_;
  std::vector<Group> groups_;
};

}  // namespace serpentine
