// The kernels of S4: diagonal, or diagonal plus low rank through its generating function.
//
// Gu et al., "Efficiently Modeling Long Sequences with Structured State Spaces", arXiv 2111.00396;
// Gu et al., arXiv 2206.11893. Keys, conventions and numbers as state-spaces/s4's models/s4/s4.
// H channels, C kernels a channel, N states, S independent systems, R rank, L length.
#pragma once

#include <string>

#include <torch/nn/module.h>
#include <torch/types.h>

#include "core/config.h"

namespace serpentine {

struct S4Options {
  int64_t d_model = 256;       // H
  int64_t d_state = 64;        // N, even: N / 2 conjugate pairs
  int64_t l_max = 0;           // a longer input meets a kernel cut to this length; 0: no limit
  int64_t channels = 1;        // C
  bool bidirectional = false;  // twice the kernels, half of them from the end
  std::string mode = "dplr";   // dplr or diag
  std::string init = "legs";   // legs, legt, fourier; diag-lin, diag-inv, diag-inv2, diag-quad, ...
  std::string disc;            // zoh or bilinear; empty: bilinear for dplr, zoh for diag
  int64_t rank = 1;            // R
  int64_t n_ssm = 0;           // S, a divisor of H; 0: H
  std::string real_transform = "exp";  // A's real part is minus this of A_real
  std::string dt_transform = "exp";    // dt is this of inv_dt
  bool dt_tie = true;                  // one step a channel; false: one a mode
  double dt_min = 1e-3, dt_max = 1e-1, dropout = 0;
  std::string activation = "gelu";  // gelu or id
  std::string final_act = "glu";    // glu or id
  int64_t kernels() const { return bidirectional ? 2 * channels : channels; }
  void fields(Fields& f);  // all but d_model, which the model around it knows
};

/// Keys `C` [C, H, N/2, 2], `B` [1, S, N/2, 2], `A_real` and `A_imag` [S, N/2], `inv_dt` [H, 1];
/// low rank also `P` [R, S, N/2, 2] and the buffer `l_kernel`. A = -f(A_real) - i A_imag.
class S4KernelImpl : public torch::nn::Module {
 public:
  explicit S4KernelImpl(const S4Options& options);

  /// [C, H, L]. Low rank: the first call adapts C to a kernel of l_max or, without that, this
  /// length; a longer one doubles it. C and l_kernel belong together.
  torch::Tensor forward(int64_t length);

  /// The discrete system of one step, for states of `state_size()` numbers a channel: diagonal
  /// `decay` [H, N/2], or dense [H, N, N] for low rank, whose states hold both conjugates.
  struct Step {
    torch::Tensor decay, B, C;  // B: [H, n], C: [C, H, n]; y = real(C x), with 2 inside C
  };
  Step step();
  int64_t state_size() const { return options.mode == "diag" ? modes() : options.d_state; }
  int64_t modes() const { return options.d_state / 2; }

  S4Options options;
  torch::Tensor C, B, P, A_real, A_imag, inv_dt;
  torch::Tensor l_kernel;  // int64, 0 before the first call

 private:
  struct System {
    torch::Tensor A, B, P, dt;  // complex [H, N/2], [H, N/2], [R, H, N/2], real [H, 1] or [H, N/2]
  };
  System system() const;
  torch::Tensor complex_C() const;
  torch::Tensor diagonal(int64_t length);
  torch::Tensor low_rank(int64_t length);
  torch::Tensor dense_step(const System& now) const;  // [H, N, N]
  void adapt(int64_t length);
};
TORCH_MODULE(S4Kernel);

}  // namespace serpentine
