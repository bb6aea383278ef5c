// Loops of vector arithmetic alone, in the widths that this machine has.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace serpentine::bench {

enum class Loop {
  kExp2,      // exp2 of one vector
  kForward,   // one step of the recurrence: a = exp2(dt A), h = a h + (dt u) B, y += C h
  kBackward,  // the same step again, then the step of its adjoint with five gradients
};

/// Names of the instruction sets at hand, the best first, as in "AVX2".
std::vector<std::string> instruction_sets();

/// Runs `count` vector operations of the loop on one thread and returns the lanes worked on.
int64_t run_loop(const std::string& instruction_set, Loop loop, int64_t count);

}  // namespace serpentine::bench
