#include "core/ops/softplus_table.h"

#include <array>
#include <cmath>
#include <numbers>

namespace serpentine::cpu {
namespace {

constexpr int kNodes = SoftplusTable::kDegree + 1;

/// The polynomial in x - center through softplus at the Chebyshev nodes of center +- 1/2.
std::array<double, kNodes> piece(double center) {
  std::array<double, kNodes> node, slope, out{};
  for (int i = 0; i < kNodes; ++i) {
    node[i] = 0.5 * std::cos((2 * i + 1) * std::numbers::pi / (2 * kNodes));
    slope[i] = std::log1p(std::exp(center + node[i]));
  }
  for (int j = 1; j < kNodes; ++j) {  // divided differences
    for (int i = kNodes - 1; i >= j; --i) {
      slope[i] = (slope[i] - slope[i - 1]) / (node[i] - node[i - j]);
    }
  }
  for (int j = kNodes - 1; j >= 0; --j) {  // out = out (r - node_j) + slope_j
    for (int i = kNodes - 1; i > 0; --i) out[i] = out[i - 1] - node[j] * out[i];
    out[0] = slope[j] - node[j] * out[0];
  }
  return out;
}

}  // namespace

SoftplusTable::SoftplusTable() {
  for (int k = -kPieces / 2; k < kPieces / 2; ++k) {
    const std::array<double, kNodes> made = piece(k);
    for (int j = 0; j < kNodes; ++j) {
      coefficient[j][(k + kPieces) % kPieces] = static_cast<float>(made[j]);
    }
  }
}

const SoftplusTable& softplus_table() {
  static const SoftplusTable made;
  return made;
}

}  // namespace serpentine::cpu
