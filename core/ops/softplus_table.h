// softplus in pieces: 32 polynomials of degree 6 around -16 ... 15, as tables that vectors look up.
//
// One piece spans half a unit on either side, far from the nearest singularities (pi i), so that
// degree 6 leaves what rounding leaves: the relative error is at most 2e-7.
#pragma once

namespace serpentine::cpu {

struct SoftplusTable {
  static constexpr int kDegree = 6, kPieces = 32;
  static constexpr float kReach = 15.5f;  // arguments below this in magnitude have a piece

  SoftplusTable();

  /// The coefficient of r^j around k lies at [j][k mod 32].
  alignas(64) float coefficient[kDegree + 1][kPieces];
};

/// Made once.
const SoftplusTable& softplus_table();

}  // namespace serpentine::cpu
