#include "core/ops/causal_conv1d_kernel.h"

// Highway compiles the middle of this file once for each instruction set
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/causal_conv1d_kernel.cpp"
#include <hwy/foreach_target.h>

// in this order
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace serpentine::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D, class V>
HWY_INLINE V sigmoid(D d, V x) {
  // beyond the bound exp leaves its range; the result is 0 to rounding
  const auto bound = hn::Set(d, static_cast<hn::TFromD<D>>(80));
  const auto one = hn::Set(d, static_cast<hn::TFromD<D>>(1));
  return hn::Div(one, hn::Add(one, hn::Exp(d, hn::Min(hn::Neg(x), bound))));
}

template <int kWidth, class D, class T>
HWY_INLINE auto convolve(D d, const ConvRow<T>& row, int64_t c) {
  const int64_t width = kWidth > 0 ? kWidth : row.width;
  auto sum = hn::LoadU(d, row.bias + c);
  for (int64_t k = 0; k < width; ++k) {
    sum = hn::MulAdd(hn::LoadU(d, row.weight + k * row.channels + c),
                     hn::LoadU(d, row.samples[k] + c), sum);
  }
  return sum;
}

template <int kWidth, class D, class T>
HWY_INLINE int64_t forward_span(D d, const ConvRow<T>& row, int64_t c, T* out) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (; c + lanes <= row.channels; c += lanes) {
    const auto x = convolve<kWidth>(d, row, c);
    hn::StoreU(row.silu ? hn::Mul(x, sigmoid(d, x)) : x, d, out + c);
  }
  return c;
}

template <int kWidth, class D, class T>
HWY_INLINE int64_t backward_span(D d, const ConvRow<T>& row, int64_t c, const T* dy, T* g,
                                 T* weight_grad, T* bias_grad) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto one = hn::Set(d, static_cast<T>(1));
  const int64_t width = kWidth > 0 ? kWidth : row.width;
  for (; c + lanes <= row.channels; c += lanes) {
    auto grad = hn::LoadU(d, dy + c);
    if (row.silu) {
      const auto x = convolve<kWidth>(d, row, c);
      const auto s = sigmoid(d, x);
      grad = hn::Mul(grad, hn::Mul(s, hn::MulAdd(x, hn::Sub(one, s), one)));
    }
    hn::StoreU(grad, d, g + c);
    hn::StoreU(hn::Add(hn::LoadU(d, bias_grad + c), grad), d, bias_grad + c);
    for (int64_t k = 0; k < width; ++k) {
      T* const slot = weight_grad + k * row.channels + c;
      hn::StoreU(hn::MulAdd(grad, hn::LoadU(d, row.samples[k] + c), hn::LoadU(d, slot)), d, slot);
    }
  }
  return c;
}

// the published width gets unrolled loops; the tail of channels runs one lane at a time
template <class T>
void forward_row(const ConvRow<T>& row, T* out) {
  const hn::ScalableTag<T> d;
  const int64_t done =
      row.width == 4 ? forward_span<4>(d, row, 0, out) : forward_span<0>(d, row, 0, out);
  forward_span<0>(hn::CappedTag<T, 1>(), row, done, out);
}

template <class T>
void backward_row(const ConvRow<T>& row, const T* dy, T* g, T* weight_grad, T* bias_grad) {
  const hn::ScalableTag<T> d;
  const int64_t done = row.width == 4 ? backward_span<4>(d, row, 0, dy, g, weight_grad, bias_grad)
                                      : backward_span<0>(d, row, 0, dy, g, weight_grad, bias_grad);
  backward_span<0>(hn::CappedTag<T, 1>(), row, done, dy, g, weight_grad, bias_grad);
}

void forward_f32(const ConvRow<float>& row, float* out) { forward_row(row, out); }
void forward_f64(const ConvRow<double>& row, double* out) { forward_row(row, out); }
void backward_f32(const ConvRow<float>& row, const float* dy, float* g, float* weight_grad,
                  float* bias_grad) {
  backward_row(row, dy, g, weight_grad, bias_grad);
}
void backward_f64(const ConvRow<double>& row, const double* dy, double* g, double* weight_grad,
                  double* bias_grad) {
  backward_row(row, dy, g, weight_grad, bias_grad);
}

}  // namespace serpentine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serpentine::cpu {

HWY_EXPORT(forward_f32);
HWY_EXPORT(forward_f64);
HWY_EXPORT(backward_f32);
HWY_EXPORT(backward_f64);

void conv_row(const ConvRow<float>& row, float* out) {
  HWY_DYNAMIC_DISPATCH(forward_f32)(row, out);
}
void conv_row(const ConvRow<double>& row, double* out) {
  HWY_DYNAMIC_DISPATCH(forward_f64)(row, out);
}
void conv_row_backward(const ConvRow<float>& row, const float* dy, float* g, float* weight_grad,
                       float* bias_grad) {
  HWY_DYNAMIC_DISPATCH(backward_f32)(row, dy, g, weight_grad, bias_grad);
}
void conv_row_backward(const ConvRow<double>& row, const double* dy, double* g, double* weight_grad,
                       double* bias_grad) {
  HWY_DYNAMIC_DISPATCH(backward_f64)(row, dy, g, weight_grad, bias_grad);
}

}  // namespace serpentine::cpu
#endif
