#include "core/nn/hippo.h"

#include <cmath>
#include <cstdlib>

#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr const char* kHippoWho = "HiPPO";
constexpr double kHippoPi = 3.14159265358979323846;

torch::Tensor counts(int64_t states) { return torch::arange(states, torch::kDouble); }

[[noreturn]] void unknown(const char* what, const std::string& name, const char* known) {
  TORCH_CHECK(false, kHippoWho, ": ", what, " must be one of ", known, ", got ", name);
  std::abort();
}

constexpr const char* kMeasures = "legs, legt, fourier";

HippoSystem fourier(int64_t states) {
  SERPENTINE_CHECK(states % 2 == 0, kHippoWho, "fourier needs an even number of states, got ",
                   states);
  auto B = torch::zeros({states}, torch::kDouble);
  B.slice(0, 0, c10::nullopt, 2) = std::sqrt(2.0);
  B[0] = 1;
  // rotations of the pairs (2 k, 2 k + 1) by pi k
  auto A = -torch::outer(B, B);
  for (int64_t k = 1; k < states / 2; ++k) {
    A[2 * k][2 * k + 1] -= kHippoPi * static_cast<double>(k);
    A[2 * k + 1][2 * k] += kHippoPi * static_cast<double>(k);
  }
  return {A, B};
}

}  // namespace

HippoSystem hippo_system(const std::string& measure, int64_t states) {
  const auto n = counts(states);
  const auto root = (2 * n + 1).sqrt();
  if (measure == "legs") {
    return {-torch::outer(root, root).tril(-1) - torch::diag(n + 1), root};
  }
  if (measure == "legt") {
    const auto lag = n.unsqueeze(1) - n.unsqueeze(0);
    const auto sign = 1 - 2 * lag.abs().remainder(2);  // (-1)^(i - j)
    const auto A = -torch::outer(root, root) * torch::where(lag < 0, sign, torch::ones_like(sign));
    return {A / 2, root / 2};
  }
  if (measure == "fourier") return fourier(states);
  unknown("the measure", measure, kMeasures);
}

torch::Tensor hippo_rank_correction(const std::string& measure, int64_t states, int64_t rank) {
  const auto n = counts(states);
  torch::Tensor P;
  if (measure == "legs") {
    P = (n + 0.5).sqrt().unsqueeze(0);
  } else if (measure == "legt") {
    const auto root = (n + 0.5).sqrt();
    const auto odd = n.remainder(2);
    P = torch::stack({root * odd, root * (1 - odd)});
  } else if (measure == "fourier") {
    P = fourier(states).B.unsqueeze(0);
  } else {
    unknown("the measure", measure, kMeasures);
  }
  SERPENTINE_CHECK(rank >= P.size(0), kHippoWho, measure, " needs rank ", P.size(0), ", got ",
                   rank);
  return torch::cat({P, torch::zeros({rank - P.size(0), states}, P.options())});
}

NormalPlusLowRank hippo_nplr(const std::string& measure, int64_t states, int64_t rank,
                             double B_clip) {
  SERPENTINE_CHECK(states >= 2 && states % 2 == 0, kHippoWho,
                   "the number of states must be even, got ", states);
  const auto [A, B] = hippo_system(measure, states);
  const auto P = hippo_rank_correction(measure, states, rank);
  const auto normal = A + torch::matmul(P.t(), P);  // its symmetric part is a multiple of I
  const auto skew = torch::complex(torch::zeros_like(normal), -(normal - normal.t()) / 2);
  const auto [imaginary, vectors] = torch::linalg_eigh(skew);  // ascending
  const auto real = torch::full({states / 2}, normal.diagonal().mean().item<double>(), A.options());
  const auto w = torch::complex(real, imaginary.narrow(0, 0, states / 2).contiguous());
  auto V = vectors.narrow(1, 0, states / 2).clone();
  if (w[-1].abs().item<double>() < 1e-4) {
    // two modes of eigenvalue zero: any pair of conjugate vectors of their plane will do
    V.select(1, states / 2 - 1).zero_();
    V[0][states / 2 - 1] = std::sqrt(0.5);
    V[1][states / 2 - 1] = c10::complex<double>(0, std::sqrt(0.5));
  }
  const auto inverse = V.conj().t().resolve_conj();  // [N/2, N]
  auto rotated = torch::matmul(inverse, B.to(torch::kComplexDouble));
  if (B_clip > 0) {
    rotated = torch::complex(torch::real(rotated).contiguous(),
                             torch::imag(rotated).clamp(-B_clip, B_clip));
  }
  const auto turned = torch::matmul(inverse, P.t().to(torch::kComplexDouble)).t().contiguous();
  return {w, turned, rotated, V};
}

torch::Tensor diagonal_system(const std::string& name, int64_t states) {
  if (name == "legs") return hippo_nplr("legs", states).w;
  const auto n = counts(states / 2);
  const double N = static_cast<double>(states);
  torch::Tensor imaginary;
  if (name == "lin") {
    imaginary = kHippoPi * n;
  } else if (name == "inv") {
    imaginary = N / kHippoPi * (N / (2 * n + 1) - 1);
  } else if (name == "inv2") {
    imaginary = N / kHippoPi * (N / (n + 1) - 1);
  } else if (name == "quad") {
    imaginary = (1 + 2 * n).square() / kHippoPi;
  } else if (name == "real") {
    return torch::complex(-(n + 1), torch::zeros_like(n));
  } else {
    unknown("the diagonal system", name, "lin, inv, inv2, quad, real, legs");
  }
  return torch::complex(torch::full_like(n, -0.5), -imaginary);
}

}  // namespace serpentine
