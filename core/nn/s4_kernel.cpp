#include "core/nn/s4_kernel.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/hippo.h"
#include "core/ops/long_conv.h"

namespace serpentine {
namespace {

constexpr const char* kS4KernelWho = "S4";
constexpr double kS4KernelPi = 3.14159265358979323846;

torch::Tensor complex_of(const torch::Tensor& pairs) {
  return torch::view_as_complex(pairs.contiguous());
}

torch::Tensor pairs_of(const torch::Tensor& values) {
  return torch::view_as_real(values.to(torch::kComplexFloat).resolve_conj()).clone();
}

/// Positive numbers from free ones, by name, and back.
torch::Tensor transformed(const std::string& name, const torch::Tensor& x) {
  if (name == "exp") return x.exp();
  if (name == "relu") return torch::relu(x) + 1e-4;
  if (name == "sigmoid") return x.sigmoid();
  if (name == "softplus") return torch::softplus(x);
  return x;
}
torch::Tensor untransformed(const std::string& name, const torch::Tensor& x) {
  const auto positive = x.clamp_min(1e-4);
  if (name == "exp") return positive.log();
  if (name == "sigmoid") return torch::logit(positive);
  if (name == "softplus") return positive + torch::log(-torch::expm1(-positive));
  return x;
}

bool is_one_of(const std::string& name, std::initializer_list<const char*> known) {
  for (const char* one : known) {
    if (name == one) return true;
  }
  return false;
}

void check(const S4Options& options) {
  SERPENTINE_CHECK(options.d_model >= 1 && options.d_state >= 2 && options.d_state % 2 == 0,
                   kS4KernelWho, "d_model must be at least 1 and d_state even, got ",
                   options.d_model, " and ", options.d_state);
  SERPENTINE_CHECK(
      options.n_ssm >= 0 && (options.n_ssm == 0 || options.d_model % options.n_ssm == 0),
      kS4KernelWho, "n_ssm must divide d_model = ", options.d_model, ", got ", options.n_ssm);
  SERPENTINE_CHECK(is_one_of(options.mode, {"dplr", "diag"}), kS4KernelWho,
                   "mode must be dplr or diag, got ", options.mode);
  SERPENTINE_CHECK(is_one_of(options.disc, {"", "zoh", "bilinear"}), kS4KernelWho,
                   "disc must be zoh or bilinear, got ", options.disc);
  SERPENTINE_CHECK(options.mode == "diag" || options.disc != "zoh", kS4KernelWho,
                   "a kernel of low rank is discretised by bilinear only");
  SERPENTINE_CHECK(options.mode == "diag" || options.dt_tie, kS4KernelWho,
                   "a kernel of low rank has one step a channel");
  for (const auto& name : {options.real_transform, options.dt_transform}) {
    SERPENTINE_CHECK(is_one_of(name, {"exp", "relu", "sigmoid", "softplus", "none"}), kS4KernelWho,
                     "a transform must be exp, relu, sigmoid, softplus or none, got ", name);
  }
}

/// Both conjugates of a half: [..., n] -> [..., 2 n].
torch::Tensor whole(const torch::Tensor& half) {
  return torch::cat({half, half.conj().resolve_conj()}, -1);
}

}  // namespace

S4KernelImpl::S4KernelImpl(const S4Options& chosen) : options(chosen) {
  check(options);
  const int64_t systems = options.n_ssm > 0 ? options.n_ssm : options.d_model;
  torch::Tensor A, own_B, own_P;
  if (options.init.rfind("diag", 0) == 0) {
    auto name = options.init.substr(std::min<size_t>(options.init.size(), 5));
    if (name == "linear" || name.empty()) name = "lin";
    A = diagonal_system(name, options.d_state);
    own_B = torch::ones_like(A);
    own_P = torch::zeros({options.rank, A.size(0)}, A.options());
  } else {
    const auto made =
        hippo_nplr(options.init, options.d_state,
                   options.init == "legt" ? std::max<int64_t>(2, options.rank) : options.rank);
    A = made.w;
    own_B = made.B;
    own_P = made.P;
  }
  C = register_parameter("C", pairs_of(torch::randn({options.kernels(), options.d_model, modes()},
                                                    torch::kComplexFloat)));
  B = register_parameter("B", pairs_of(own_B.expand({1, systems, -1})));
  const auto copies = [&](const torch::Tensor& x) {
    return x.to(torch::kFloat).expand({systems, -1}).clone();
  };
  A_real =
      register_parameter("A_real", untransformed(options.real_transform, copies(-torch::real(A))));
  A_imag = register_parameter("A_imag", copies(-torch::imag(A)));
  const double low = std::log(options.dt_min), high = std::log(options.dt_max);
  const auto log_dt =
      torch::rand({options.d_model, options.dt_tie ? 1 : modes()}) * (high - low) + low;
  inv_dt = register_parameter("inv_dt", untransformed(options.dt_transform, log_dt.exp()));
  if (options.mode == "diag") return;
  P = register_parameter("P", pairs_of(own_P.unsqueeze(1).expand({-1, systems, -1})));
  l_kernel = register_buffer("l_kernel", torch::zeros({}, torch::kLong));
}

torch::Tensor S4KernelImpl::complex_C() const { return complex_of(C); }

S4KernelImpl::System S4KernelImpl::system() const {
  const int64_t copies = options.d_model / A_real.size(0);
  System made;
  made.dt = transformed(options.dt_transform, inv_dt);
  made.A =
      torch::complex(-transformed(options.real_transform, A_real), -A_imag).repeat({copies, 1});
  made.B = complex_of(B).squeeze(0).repeat({copies, 1});
  if (P.defined()) made.P = complex_of(P).repeat({1, copies, 1});
  return made;
}

torch::Tensor S4KernelImpl::diagonal(int64_t length) {
  const auto now = step();
  return exponential_kernel(now.C * now.B / 2, now.decay.log(), length);
}

/// With the node w on the unit circle, the generating function's sums over modes are
/// s = sum v / (2 (1 - w) - dt A (1 + w)), finite also where w = -1.
torch::Tensor S4KernelImpl::low_rank(int64_t length) {
  const int64_t full = l_kernel.item<int64_t>(), rank = P.size(0);
  const auto now = system();
  const auto angle = torch::arange(full / 2 + 1, inv_dt.options()) *
                     (-2 * kS4KernelPi / static_cast<double>(full));
  auto node = torch::complex(angle.cos(), angle.sin());
  if (full % 2 == 0)
    node = torch::cat({node.narrow(0, 0, full / 2), -torch::ones({1}, node.options())});
  const auto sum = (1 + node), gap = 2 * (1 - node);  // [F]
  const auto poles = (now.A * now.dt).unsqueeze(-1);  // [H, N/2, 1]
  const auto kernel = 1 / (gap - poles * sum), mirrored = 1 / (gap - poles.conj() * sum);

  // rows B and P times columns C and P*: [1 + R, C + R, H, N/2]
  const auto left = torch::cat({now.B.unsqueeze(0), now.P}, 0);
  const auto right = torch::cat({complex_C(), now.P.conj()}, 0);
  const auto v = (left.unsqueeze(1) * right.unsqueeze(0)).flatten(0, 1).transpose(0, 1);
  const auto s = (torch::matmul(v, kernel) + torch::matmul(v.conj(), mirrored))
                     .transpose(0, 1)
                     .unflatten(0, {1 + rank, right.size(0)}) *
                 now.dt.unsqueeze(0);  // [1 + R, C + R, H, F]
  const int64_t rows = right.size(0) - rank;
  const auto s00 = s.narrow(0, 0, 1).narrow(1, 0, rows),
             s01 = s.narrow(0, 0, 1).narrow(1, rows, rank);
  const auto s10 = s.narrow(0, 1, rank).narrow(1, 0, rows),
             s11 = s.narrow(0, 1, rank).narrow(1, rows, rank);
  const auto front = [](const torch::Tensor& x) {
    return x.permute({2, 3, 0, 1});
  };  // [H, F, ., .]
  const auto core = torch::eye(rank, s.options()) + front(s11 * sum);
  const auto correction = torch::matmul(front(s01 * sum), torch::linalg_solve(core, front(s10)));
  const auto spectrum = 2 * (front(s00) - correction).squeeze(2).permute({2, 0, 1});  // [C, H, F]
  return torch::fft_irfft(spectrum, full).narrow(-1, 0, length);
}

torch::Tensor S4KernelImpl::forward(int64_t length) {
  if (options.mode == "diag") return diagonal(length);
  if (length == 0) return torch::zeros({options.kernels(), options.d_model, 0}, inv_dt.options());
  if (l_kernel.item<int64_t>() == 0 && options.l_max > 0) adapt(options.l_max);
  while (l_kernel.item<int64_t>() < length) adapt(length);
  return low_rank(length);
}

torch::Tensor S4KernelImpl::dense_step(const System& now) const {
  const auto poles = torch::diag_embed(whole(now.A));
  const auto low = whole(now.P).permute({1, 2, 0});  // [H, N, R]
  const auto A = poles - torch::matmul(low, low.conj().transpose(-1, -2));
  const auto half = A * (now.dt.unsqueeze(-1) / 2);
  const auto unit = torch::eye(options.d_state, A.options());
  return torch::linalg_solve(unit - half, unit + half);
}

/// C (I - A^L), the coefficients of a kernel cut at L; or, doubling, C (I + A^L).
void S4KernelImpl::adapt(int64_t length) {
  const torch::NoGradGuard no_grad;
  const int64_t before = l_kernel.item<int64_t>();
  const auto power = torch::matrix_power(dense_step(system()), before > 0 ? before : length);
  const auto all = whole(complex_C());
  const auto beyond = torch::einsum("chm,hmn->chn", {all, power});
  const auto adapted = before > 0 ? all + beyond : all - beyond;
  C.copy_(torch::view_as_real(adapted.narrow(-1, 0, modes()).contiguous()));
  l_kernel.fill_(before > 0 ? 2 * before : length);
}

S4KernelImpl::Step S4KernelImpl::step() {
  const auto now = system();
  Step made;
  if (options.mode == "diag") {
    const auto rate = now.A * now.dt;
    if (options.disc == "bilinear") {
      made.decay = (1 + rate / 2) / (1 - rate / 2);
      made.B = now.B * now.dt / (1 - rate / 2);
    } else {
      made.decay = rate.exp();
      made.B = now.B * (made.decay - 1) / now.A;
    }
    made.C = 2 * complex_C();
    return made;
  }
  made.decay = dense_step(now);
  const auto low = whole(now.P).permute({1, 2, 0});
  const auto A = torch::diag_embed(whole(now.A)) - torch::matmul(low, low.conj().transpose(-1, -2));
  const auto unit = torch::eye(options.d_state, A.options());
  made.B = torch::linalg_solve(unit - A * (now.dt.unsqueeze(-1) / 2),
                               (whole(now.B) * now.dt).unsqueeze(-1))
               .squeeze(-1);
  made.C = whole(complex_C());
  const int64_t full = l_kernel.item<int64_t>();
  if (full > 0) {  // undo what adapting did: C = C~ (I - A^L)^-1
    const auto cut = unit - torch::matrix_power(made.decay, full);
    made.C =
        torch::linalg_solve(cut.transpose(-1, -2), made.C.permute({1, 2, 0})).permute({2, 0, 1});
  }
  return made;
}

}  // namespace serpentine
