// What a device brings to the selective scan: a forward and a backward pass over tensors. The
// checks before them and the autograd function around them are in selective_scan.cpp.
#pragma once

#include "core/ops/selective_scan.h"

namespace serpentine {

/// How the rows of y leave the kernel.
enum class ScanOutput {
  kDirect,     // one visit a token: straight to its row
  kMerged,     // by position, then summed over the visits
  kPositions,  // by position, for the caller to merge
};

struct ScanOptions {
  ScanOrder order;
  Rows rows = Rows::kToken;
  Merge merge = Merge::kSum;
  ScanOutput output = ScanOutput::kDirect;
  bool want_final_state = false;
  bool keep_states = false;  // for the backward pass
  bool keep_pieces = false;  // so that a second forward pass need not find them again
};

/// Those of a scan that writes the rows of y as its order and merge have it; keeps nothing.
ScanOptions scan_options(const ScanOrder& order, Rows rows, Merge merge);

struct ScanForward {
  at::Tensor y;  // [B, T, D] of u's dtype, or [B, P, D] (kPositions) of a type of the device
  at::Tensor final_state;  // [B, S, D, N] if wanted
  at::Tensor states;       // the device's own, for its backward pass; undefined unless kept
  at::Tensor steps;        // the same; may be undefined
  at::Tensor pieces;       // the device's own, where it cut the sequences and they were to be kept
};

struct ScanGradients {
  at::Tensor u, delta, A, B, C, D, delta_bias, initial_state;  // undefined where the operand is
};

/// Gradient rows lie by token when each visit has one row to itself, else by position, as
/// `pending_type`, until they are summed over the visits. by_branch: a token has one row a branch.
struct GradientRows {
  GradientRows(const at::Tensor& like, bool by_branch, const ScanOptions& options,
               at::ScalarType pending_type);
  at::Tensor rows;
  bool by_token, pending;
};

/// The gradient of y with a dense last axis, divided by the visits where y is their mean.
at::Tensor output_gradient(const at::Tensor& grad, const ScanOptions& options);

namespace cpu {
ScanForward forward_pass(const SelectiveScanArgs& args, const ScanOptions& options);
ScanGradients backward_pass(const SelectiveScanArgs& args, const ScanOptions& options,
                            const ScanForward& kept, const at::Tensor& grad_y,
                            const at::Tensor& grad_state);
}  // namespace cpu

namespace cuda {
/// Throw in a build without CUDA.
/// before: `steps` and `pieces` of an earlier pass over the same operands, or undefined tensors.
ScanForward forward_pass(const SelectiveScanArgs& args, const ScanOptions& options,
                         const ScanForward& before = {});
ScanGradients backward_pass(const SelectiveScanArgs& args, const ScanOptions& options,
                            const ScanForward& kept, const at::Tensor& grad_y,
                            const at::Tensor& grad_state);
/// False in a build without CUDA: the definition of the scan serves then.
bool is_built();
}  // namespace cuda

}  // namespace serpentine
