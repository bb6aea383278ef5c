// The direction in which points vary least, for several sets of points at once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace serpentine::cpu {

inline constexpr int64_t kSpreads = 8;     // matrices at a time
inline constexpr size_t kSpreadParts = 6;  // of a symmetric matrix: xx yy zz xy xz yz

/// Symmetric matrices part by part.
struct Spreads {
  std::array<std::array<double, kSpreads>, kSpreadParts> part;
};

struct LeastVariances {
  /// The eigenvectors of the least eigenvalues, of length 1; the component of largest magnitude is
  /// positive.
  std::array<std::array<double, kSpreads>, 3> direction;
  std::array<double, kSpreads> share;  // of the least eigenvalue in the sum of all three
};

/// By Jacobi's rotations. A matrix's result does not depend on the others. Golub & Van Loan,
/// "Matrix Computations", section 8.5.
LeastVariances least_variances(const Spreads& spreads);

}  // namespace serpentine::cpu
