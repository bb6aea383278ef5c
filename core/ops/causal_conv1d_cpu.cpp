// The causal convolution on a CPU: vectors over channels, threads over pieces of the sequences.
#include <ATen/ATen.h>

#include "core/ops/causal_conv1d_device.h"
#include "core/ops/causal_conv1d_kernel.h"
#include "core/ops/causal_conv1d_walk.h"
#include "core/ops/merge.h"

namespace serpentine::cpu {
namespace {

/// The widened operands of one call.
template <class T>
struct ConvOperands {
  at::Tensor x, weight, bias,
      initial;  // [B, T, D] rows contiguous, [K, W, D], [K, D], [B, S, W - 1, D]
  Walk<T> walk;
};

template <class T>
ConvOperands<T> widen(const CausalConv1dArgs& args, const ScanOrder& order) {
  const auto wide = c10::CppTypeToScalarType<T>::value;
  ConvOperands<T> made;
  made.x = args.x.to(wide);
  if (made.x.size(2) > 1 && made.x.stride(2) != 1) made.x = made.x.contiguous();
  made.weight = args.weight.to(wide).transpose(1, 2).contiguous();
  made.bias = args.bias.defined()
                  ? args.bias.to(wide).contiguous()
                  : at::zeros({args.weight.size(0), args.weight.size(1)}, made.weight.options());
  if (args.initial_state.defined()) made.initial = args.initial_state.to(wide).contiguous();
  made.walk = Walk<T>(made.x, made.initial, order, args.weight.size(2));
  return made;
}

template <class T>
ConvRow<T> row_of(const ConvOperands<T>& of, int64_t sequence, bool silu) {
  const int64_t k = of.walk.branch(sequence);
  return {nullptr,
          of.weight.template const_data_ptr<T>() + k * of.weight.stride(0),
          of.bias.template const_data_ptr<T>() + k * of.bias.stride(0),
          of.weight.size(1),
          of.weight.size(2),
          silu};
}

template <class T>
at::Tensor forward(const ConvOperands<T>& of, const ScanOrder& order, bool silu) {
  const int64_t positions = order.num_positions(), channels = of.x.size(2);
  at::Tensor y = at::empty({of.x.size(0), positions, channels}, of.x.options());
  T* const out = y.template mutable_data_ptr<T>();
  of.walk.for_each_piece(kPieces, [&](int64_t b, const Piece& piece, int64_t) {
    auto row = row_of(of, piece.sequence, silu);
    Window<T> window(of.walk, b, piece);
    for (int64_t p = piece.begin; p < piece.end; ++p) {
      row.samples = window.advance(p);
      conv_row(row, out + (b * positions + p) * channels);
    }
  });
  return y;
}

template <class T>
at::Tensor final_state(const ConvOperands<T>& of, const ScanOrder& order) {
  const int64_t batch = of.x.size(0), sequences = order.num_sequences(),
                before = of.weight.size(1) - 1;
  const int64_t channels = of.x.size(2);
  at::Tensor state = at::empty({batch, sequences, before, channels}, of.x.options());
  T* out = state.template mutable_data_ptr<T>();
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t s = 0; s < sequences; ++s) {
      for (int64_t j = 0; j < before; ++j, out += channels) {
        const T* const row = of.walk.row(b, s, of.walk.end(s) - before + j);
        std::copy(row, row + channels, out);
      }
    }
  }
  return state;
}

/// The gradient before the activation, [B, P, D], and the sums for weight and bias.
template <class T>
struct Inner {
  at::Tensor g, weight, bias;  // [B, P, D], [K, W, D], [K, D]
};

template <class T>
Inner<T> backward_inner(const ConvOperands<T>& of, const ScanOrder& order, bool silu,
                        const at::Tensor& dy) {
  const int64_t positions = order.num_positions(), channels = of.x.size(2),
                width = of.weight.size(1);
  const int64_t branches = of.weight.size(0), slot = (width + 1) * channels;

  // a fixed number of partial sums, whatever the number of threads: the result does not depend on
  // it
  const int64_t groups =
      std::clamp<int64_t>(of.x.size(0) * positions / kPieceLength, 1, kMaxGroups);
  at::Tensor partial = at::zeros({groups, branches, width + 1, channels}, of.x.options());
  at::Tensor g = at::empty({of.x.size(0), positions, channels}, of.x.options());
  T* const sums = partial.template mutable_data_ptr<T>();
  T* const out = g.template mutable_data_ptr<T>();
  const T* const in = dy.template const_data_ptr<T>();
  of.walk.for_each_piece(groups, [&](int64_t b, const Piece& piece, int64_t group) {
    auto row = row_of(of, piece.sequence, silu);
    Window<T> window(of.walk, b, piece);

    // a sum a piece, then a sum of pieces: long sequences do not lose digits
    std::vector<T> sum(static_cast<size_t>(slot), T(0));
    for (int64_t p = piece.begin; p < piece.end; ++p) {
      row.samples = window.advance(p);
      const int64_t at = (b * positions + p) * channels;
      conv_row_backward(row, in + at, out + at, sum.data(), sum.data() + width * channels);
    }
    T* const total = sums + (group * branches + of.walk.branch(piece.sequence)) * slot;
    for (int64_t i = 0; i < slot; ++i) total[i] += sum[static_cast<size_t>(i)];
  });
  const at::Tensor total = partial.sum(0);
  return {g, total.narrow(1, 0, width), total.select(1, width)};
}

/// Adds to each sample's gradient the transposed convolution of g; samples are the P positions,
/// then the rows of the initial states.
template <class T>
void backward_samples(const ConvOperands<T>& of, const ScanOrder& order, const at::Tensor& g,
                      const at::Tensor& dfinal, at::Tensor& dx, at::Tensor& dinitial) {
  const int64_t positions = order.num_positions(), channels = of.x.size(2),
                width = of.weight.size(1);
  const int64_t sequences = order.num_sequences();
  const at::Tensor flipped = of.weight.flip(1).contiguous(),
                   zero = at::zeros({channels}, of.x.options());
  const T* const none = zero.template const_data_ptr<T>();
  const T* const grad = g.template const_data_ptr<T>();
  const T* const last = dfinal.defined() ? dfinal.template const_data_ptr<T>() : nullptr;
  T* const to_x = dx.template mutable_data_ptr<T>();
  T* const to_state = dinitial.defined() ? dinitial.template mutable_data_ptr<T>() : nullptr;

  const auto sample = [&](int64_t b, int64_t s, int64_t p, T* out) {
    std::array<const T*, kMaxConvWidth> rows{};
    for (int64_t k = 0; k < width; ++k) {
      const bool inside = p + k >= of.walk.begin(s) && p + k < of.walk.end(s);
      rows[k] = inside ? grad + (b * positions + p + k) * channels : none;
    }
    const T* const weight =
        flipped.template const_data_ptr<T>() + of.walk.branch(s) * width * channels;
    const int64_t into_final = p - (of.walk.end(s) - (width - 1));
    const bool kept = last != nullptr && into_final >= 0;
    const T* const added =
        kept ? last + ((b * sequences + s) * (width - 1) + into_final) * channels : none;
    conv_row(ConvRow<T>{rows.data(), weight, added, width, channels, false}, out);
  };
  of.walk.for_each_piece(kPieces, [&](int64_t b, const Piece& piece, int64_t) {
    for (int64_t p = piece.begin; p < piece.end; ++p) {
      sample(b, piece.sequence, p, to_x + (b * positions + p) * channels);
    }
  });
  if (to_state == nullptr) return;
  parallel_for(0, of.x.size(0) * sequences, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t s = i % sequences;
      for (int64_t j = 0; j < width - 1; ++j) {
        sample(i / sequences, s, of.walk.begin(s) - (width - 1) + j,
               to_state + (i * (width - 1) + j) * channels);
      }
    }
  });
}

template <class T>
ConvGradients backward(const CausalConv1dArgs& args, const ScanOrder& order, const at::Tensor& grad,
                       const at::Tensor& grad_final, bool want_x) {
  const auto of = widen<T>(args, order);
  const auto wide = of.x.scalar_type();
  at::Tensor dfinal;
  if (grad_final.defined()) dfinal = grad_final.to(wide).contiguous();
  const auto inner = backward_inner(of, order, args.silu, grad.to(wide).contiguous());
  ConvGradients made;
  if (want_x || args.initial_state.defined()) {
    made.x = at::empty_like(inner.g);
    if (args.initial_state.defined()) made.initial_state = at::empty_like(of.initial);
    backward_samples(of, order, inner.g, dfinal, made.x, made.initial_state);
    made.x = merge_rows(made.x, order, Merge::kSum).to(args.x.scalar_type());
    if (made.initial_state.defined()) {
      made.initial_state = made.initial_state.to(args.initial_state.scalar_type());
    }
  }
  if (args.bias.defined()) made.bias = inner.bias.to(args.bias.scalar_type());
  made.weight = inner.weight.transpose(1, 2).to(args.weight.scalar_type());
  return made;
}

template <class T>
CausalConv1dResult run(const CausalConv1dArgs& args, const ScanOrder& order,
                       bool want_final_state) {
  const auto of = widen<T>(args, order);
  CausalConv1dResult made;
  made.y = forward(of, order, args.silu).to(args.x.scalar_type());
  if (want_final_state) made.final_state = final_state(of, order).to(args.x.scalar_type());
  return made;
}

}  // namespace

CausalConv1dResult conv_forward_pass(const CausalConv1dArgs& args, const ScanOrder& order,
                                     bool want_final_state) {
  return args.x.scalar_type() == at::kDouble ? run<double>(args, order, want_final_state)
                                             : run<float>(args, order, want_final_state);
}

ConvGradients conv_backward_pass(const CausalConv1dArgs& args, const ScanOrder& order,
                                 const at::Tensor& dy, const at::Tensor& dfinal, bool want_x) {
  return args.x.scalar_type() == at::kDouble ? backward<double>(args, order, dy, dfinal, want_x)
                                             : backward<float>(args, order, dy, dfinal, want_x);
}

}  // namespace serpentine::cpu
