// A model as ONNX: what its forward pass does for one input size, in standard operators.
#pragma once

#include <functional>
#include <map>
#include <string>

#include <torch/types.h>

namespace serpentine {

struct OnnxExport {
  std::string bytes;                         // a ModelProto, opset 17
  std::map<std::string, int64_t> operators;  // how often each occurs
};

/// Runs `forward` on `example` (input "input"; the result is "output") and writes down what it did.
/// Weights are part of the file, batch and sizes those of the example. The selective scan becomes
/// the standard operator Scan with five operators in its body. Call it without gradients, on a CPU,
/// in evaluation mode. Throws with the name of the first operator that has no counterpart here.
OnnxExport export_onnx(const std::function<torch::Tensor(const torch::Tensor&)>& forward,
                       const torch::Tensor& example,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace serpentine
