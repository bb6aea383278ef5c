// Stands in for the CUDA kernels in a build without them: the operators' definitions serve instead.
#include "core/check.h"
#include "core/ops/causal_conv1d_device.h"
#include "core/ops/exp_rate.h"
#include "core/ops/fused_device.h"
#include "core/ops/instance_norm_device.h"
#include "core/ops/scan_device.h"
#include "core/ops/ssd_fused.h"

namespace serpentine::cuda {

bool is_built() { return false; }

ScanForward forward_pass(const SelectiveScanArgs&, const ScanOptions&, const ScanForward&) {
  SERPENTINE_CHECK(false, "selective_scan", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

ScanGradients backward_pass(const SelectiveScanArgs&, const ScanOptions&, const ScanForward&,
                            const at::Tensor&, const at::Tensor&) {
  SERPENTINE_CHECK(false, "selective_scan", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

CausalConv1dResult conv_forward_pass(const CausalConv1dArgs&, const ScanOrder&, bool) {
  SERPENTINE_CHECK(false, "causal_conv1d", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

ConvGradients conv_backward_pass(const CausalConv1dArgs&, const ScanOrder&, const at::Tensor&,
                                 const at::Tensor&, bool) {
  SERPENTINE_CHECK(false, "causal_conv1d", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

bool takes(const AddNormArgs&) { return false; }
bool takes_gate(const at::Tensor&, const at::Tensor&) { return false; }

NormForward norm_forward_pass(const AddNormArgs&, at::ScalarType) {
  SERPENTINE_CHECK(false, "add_norm", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

NormGradients norm_backward_pass(const AddNormArgs&, const NormForward&, const at::Tensor&,
                                 const at::Tensor&) {
  SERPENTINE_CHECK(false, "add_norm", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

at::Tensor gate_forward_pass(const at::Tensor&, const at::Tensor&) {
  SERPENTINE_CHECK(false, "silu_gate", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

GateGradients gate_backward_pass(const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  SERPENTINE_CHECK(false, "silu_gate", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

bool takes_instances(const at::Tensor&, const at::Tensor&, const at::Tensor&) { return false; }

InstanceForward instance_forward_pass(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                      double, double) {
  SERPENTINE_CHECK(false, "instance_norm", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

InstanceGradients instance_backward_pass(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                         const InstanceForward&, const at::Tensor&, double) {
  SERPENTINE_CHECK(false, "instance_norm", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

bool takes_ssd(const SsdChunks&) { return false; }

at::Tensor ssd_mixed(const SsdChunks&, const at::Tensor&, const at::Tensor&, at::ScalarType) {
  SERPENTINE_CHECK(false, "ssd", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

SsdMixedBack ssd_mixed_back(const SsdChunks&, const at::Tensor&, const at::Tensor&,
                            const at::Tensor&, at::ScalarType) {
  SERPENTINE_CHECK(false, "ssd", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

void ssd_combined(const SsdChunks&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                  const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  SERPENTINE_CHECK(false, "ssd", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

void ssd_states(at::Tensor&, const at::Tensor&, at::Tensor&, bool) {
  SERPENTINE_CHECK(false, "ssd", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

double exp_rate(c10::Device) {
  SERPENTINE_CHECK(false, "exp_rate", "this build has no CUDA kernels (SERPENTINE_CUDA=ON)");
}

}  // namespace serpentine::cuda
