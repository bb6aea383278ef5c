// The passes of state space duality on CUDA: tensors as the kernels' plain memory.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>

#include "core/ops/cuda_memory.h"
#include "core/ops/ssd_cuda.h"
#include "core/ops/ssd_fused.h"

namespace serpentine::cuda {
namespace {

SsdSlab slab_of(const SsdChunks& in) {
  SsdSlab slab;
  slab.chunks = in.x.size(0);
  slab.length = in.x.size(1);
  slab.heads = in.x.size(2);
  slab.channels = in.x.size(3);
  slab.groups = in.B.size(2);
  return slab;
}

const float* floats(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}

at::Tensor square(const SsdSlab& slab, const at::TensorOptions& options) {
  return at::empty({slab.chunks * slab.heads, slab.length, slab.length}, options);
}

}  // namespace

bool takes_ssd(const SsdChunks& in) {
  const auto type = in.x.scalar_type();
  return in.x.is_cuda() && in.w.scalar_type() == at::kFloat &&
         (type == at::kFloat || type == at::kBFloat16 || type == at::kHalf) &&
         in.x.size(1) <= kLongestSsdChunk;
}

at::Tensor ssd_mixed(const SsdChunks& in, const at::Tensor& sum, const at::Tensor& pairs,
                     at::ScalarType type) {
  const c10::cuda::CUDAGuard guard(in.x.device());
  const at::Tensor sums = sum.contiguous(), dense = pairs.contiguous();
  SsdMixing call;
  call.slab = slab_of(in);
  call.slab.sum = floats(sums);
  call.element = element_of(type);
  call.pairs = floats(dense);
  at::Tensor mixing = square(call.slab, in.x.options().dtype(type));
  call.mixing = mixing.mutable_data_ptr();
  check_launch("ssd", ssd_mixing(call, stream()));
  return mixing;
}

SsdMixedBack ssd_mixed_back(const SsdChunks& in, const at::Tensor& sum, const at::Tensor& pairs,
                            const at::Tensor& grad, at::ScalarType type) {
  const c10::cuda::CUDAGuard guard(in.x.device());
  const at::Tensor sums = sum.contiguous(), dense = pairs.contiguous(), w = in.w.contiguous();
  SsdMixing call;
  call.slab = slab_of(in);
  call.slab.sum = floats(sums);
  call.element = element_of(type);
  call.pairs = floats(dense);
  call.w = floats(w);
  call.grad = grad.mutable_data_ptr<float>();
  SsdMixedBack made;
  made.mixing = square(call.slab, in.x.options().dtype(type));
  call.mixing = made.mixing.mutable_data_ptr();
  made.row = at::empty({call.slab.chunks, call.slab.heads, call.slab.length}, w.options());
  made.column = at::empty_like(made.row);
  call.row = made.row.mutable_data_ptr<float>();
  call.column = made.column.mutable_data_ptr<float>();
  check_launch("ssd", ssd_mixing(call, stream()));
  return made;
}

void ssd_combined(const SsdChunks& in, const at::Tensor& out, const at::Tensor& inside,
                  const at::Tensor& inside_scale, const at::Tensor& seen,
                  const at::Tensor& seen_scale, const at::Tensor& x) {
  const c10::cuda::CUDAGuard guard(in.x.device());
  const auto dense = [](const at::Tensor& one) { return one.defined() ? one.contiguous() : one; };
  const at::Tensor inner = dense(inside), inner_scale = dense(inside_scale), outer = dense(seen),
                   outer_scale = dense(seen_scale), D = dense(in.D);
  const at::Tensor rows = x.stride(3) == 1 ? x : x.contiguous();
  SsdCombine call;
  call.slab = slab_of(in);
  call.element = element_of(out.scalar_type());
  call.x_element = element_of(rows.scalar_type());
  call.out = out.mutable_data_ptr();
  call.inside = floats(inner);
  call.inside_scale = floats(inner_scale);
  call.seen = floats(outer);
  call.seen_scale = floats(outer_scale);
  call.D = floats(D);
  call.x = rows.const_data_ptr();
  call.x_chunk = rows.stride(0);
  call.x_row = rows.stride(1);
  call.x_head = rows.stride(2);
  check_launch("ssd", ssd_combine(call, stream()));
}

void ssd_states(at::Tensor& sums, const at::Tensor& decay, at::Tensor& state, bool forward) {
  const c10::cuda::CUDAGuard guard(sums.device());
  const at::Tensor factors = decay.contiguous();
  SsdStates call;
  call.batch = sums.size(0);
  call.sequences = state.size(1);
  call.steps = sums.size(1) / call.sequences;
  call.groups = sums.size(2);
  call.states = sums.size(3);
  call.heads = sums.size(2) * sums.size(4);
  call.channels = sums.size(5);
  call.forward = forward;
  call.sums = sums.mutable_data_ptr<float>();
  call.decay = floats(factors);
  call.state = state.mutable_data_ptr<float>();
  check_launch("ssd", ssd_pass_states(call, stream()));
}

}  // namespace serpentine::cuda
