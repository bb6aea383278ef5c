// Random scans for tests: orders, operands, and one call with its gradients.
#pragma once

#include <string>
#include <vector>

#include <torch/torch.h>

#include "core/ops/selective_scan.h"

namespace serpentine::testing {

/// What a scan test varies.
struct ScanCase {
  std::string order = "identity";
  int64_t batch = 2, tokens = 33, channels = 24, states = 16;
  Rows rows = Rows::kToken;
  Merge merge = Merge::kSum;
  bool optional_inputs = true, initial_state = false, softplus = true;
  at::ScalarType type = torch::kFloat;
};

std::string name_of(const ScanCase& scan);

/// Orders by name: identity, reversed, random (own for each sample), cross (4 branches), padded
/// (one branch, pads inside and at the end), groups (4 branches, one visit), ragged (4 sequences,
/// one empty), twice (one branch that visits each token two times).
ScanOrder make_test_order(const std::string& name, int64_t batch, int64_t tokens);

SelectiveScanArgs random_args(const ScanCase& scan, const ScanOrder& order);

/// The defined operands, in the order of SelectiveScanArgs.
std::vector<torch::Tensor> operands_of(const SelectiveScanArgs& args);
SelectiveScanArgs with_operands(SelectiveScanArgs args, const std::vector<torch::Tensor>& operands);

/// On another device; in_double: the same values in float64.
SelectiveScanArgs move_to(const SelectiveScanArgs& args, at::Device device, bool in_double = false);

/// What every device is tested on: many sizes; every order, row layout and merge; every type.
std::vector<ScanCase> shape_cases();
std::vector<ScanCase> order_cases();
std::vector<ScanCase> type_cases();

/// y, the final state and the gradient of every operand, for fixed random cotangents.
struct ScanRun {
  std::vector<std::string> names;
  std::vector<torch::Tensor> values;
};
/// The same tensors of the same names, bit for bit.
void expect_same(const ScanRun& actual, const ScanRun& expected);
using ScanFunction = SelectiveScanResult (*)(const SelectiveScanArgs&, const ScanOrder&, Rows,
                                             Merge, bool);
ScanRun run_scan(ScanFunction function, const SelectiveScanArgs& args, const ScanOrder& order,
                 const ScanCase& scan);

}  // namespace serpentine::testing
