// Random operands of ssd for tests, and one call with its gradients.
#pragma once

#include <string>
#include <vector>

#include "core/ops/scan_cases.h"
#include "core/ops/ssd.h"

namespace serpentine::testing {

/// What a test of ssd varies.
struct SsdCase {
  std::string order = "identity";
  int64_t batch = 2, tokens = 45, heads = 4, channels = 5, groups = 2, states = 6, chunk = 16;
  Rows rows = Rows::kToken;
  Merge merge = Merge::kSum;
  bool optional_inputs = true, wide_skip = false, initial_state = false, softplus = true;
  double dt_min = 0, dt_max = 1e9;
  at::ScalarType type = torch::kFloat;
};

std::string name_of(const SsdCase& of);
SsdArgs random_args(const SsdCase& of, const ScanOrder& order);

/// The defined operands, in the order of SsdArgs.
std::vector<torch::Tensor> operands_of(const SsdArgs& args);
SsdArgs with_operands(SsdArgs args, const std::vector<torch::Tensor>& operands);
SsdArgs move_to(const SsdArgs& args, at::Device device, bool in_double = false);

/// Every order, row layout and merge; sizes, groups, states up to 256; types.
std::vector<SsdCase> ssd_cases();

using SsdFunction = SsdResult (*)(const SsdArgs&, const ScanOrder&, Rows, Merge, bool);

/// y, the final state and the gradient of every operand, for fixed random cotangents.
ScanRun run_ssd(SsdFunction function, const SsdArgs& args, const ScanOrder& order,
                const SsdCase& of);

}  // namespace serpentine::testing
