// Row kernels of the causal convolution, vectorised over channels; the instruction set is chosen at
// run time.
#pragma once

#include <cstdint>

namespace serpentine::cpu {

/// One position's operands. `T` is float or double.
template <class T>
struct ConvRow {
  const T* const* samples;  // [W] pointers to rows of D channels, the newest last
  const T* weight;          // [W, D]
  const T* bias;            // [D]
  int64_t width, channels;  // W, D
  bool silu;
};

/// out [D] = act(bias + sum_k weight[k] samples[k]).
void conv_row(const ConvRow<float>& row, float* out);
void conv_row(const ConvRow<double>& row, double* out);

/// g [D] = dy act'(...); adds g samples[k] to weight_grad [W, D] and g to bias_grad [D].
void conv_row_backward(const ConvRow<float>& row, const float* dy, float* g, float* weight_grad,
                       float* bias_grad);
void conv_row_backward(const ConvRow<double>& row, const double* dy, double* g, double* weight_grad,
                       double* bias_grad);

}  // namespace serpentine::cpu
