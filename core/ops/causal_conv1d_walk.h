// How the CPU convolution walks an order: pieces of sequences, and the window of samples at a
// position.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include <ATen/ATen.h>

#include "core/ops/causal_conv1d.h"
#include "core/ops/parallel.h"

namespace serpentine::cpu {

inline constexpr int64_t kPieceLength =
    64;  // positions: enough work for a task, short enough to balance
inline constexpr int64_t kMaxGroups = 32;  // partial sums of the weights' gradient
inline constexpr int64_t kPieces = 0;      // for_each_piece: every piece is its own task

struct Piece {
  int64_t sequence, begin, end;  // positions [begin, end) of one sequence
};

/// Finds the row of each sample. Borrows the tensors it is made from.
template <class T>
class Walk {
 public:
  Walk() = default;
  Walk(const at::Tensor& x, const at::Tensor& initial, const ScanOrder& order, int64_t width)
      : x_(x.const_data_ptr<T>()),
        x_batch_(x.stride(0)),
        x_row_(x.stride(1)),
        initial_(initial.defined() ? initial.const_data_ptr<T>() : nullptr),
        tokens_(order.identity ? nullptr : order.tokens.const_data_ptr<int32_t>()),
        tokens_batch_(order.tokens.dim() == 2 ? order.tokens.size(1) : 0),
        offsets_(to_vector(order.offsets)),
        branch_(to_vector(order.branch)),
        zeros_(static_cast<size_t>(x.size(2)), T(0)),
        batch_(x.size(0)),
        before_(width - 1),
        channels_(x.size(2)) {
    for (int64_t s = 0; s < order.num_sequences(); ++s) {
      for (int64_t p = begin(s); p < end(s); p += kPieceLength) {
        pieces_.push_back({s, p, std::min(p + kPieceLength, end(s))});
      }
    }
  }

  int64_t begin(int64_t sequence) const { return offsets_[static_cast<size_t>(sequence)]; }
  int64_t end(int64_t sequence) const { return offsets_[static_cast<size_t>(sequence) + 1]; }
  int64_t branch(int64_t sequence) const { return branch_[static_cast<size_t>(sequence)]; }
  int64_t width() const { return before_ + 1; }

  /// The sample at position p of a sequence; p reaches W - 1 positions before its begin. Pads are
  /// zeros.
  const T* row(int64_t b, int64_t sequence, int64_t p) const {
    if (p < begin(sequence)) {
      if (initial_ == nullptr) return zeros_.data();
      const int64_t sequences = static_cast<int64_t>(branch_.size());
      return initial_ +
             ((b * sequences + sequence) * before_ + p - begin(sequence) + before_) * channels_;
    }
    const int64_t token = tokens_ == nullptr ? p : tokens_[b * tokens_batch_ + p];
    return token < 0 ? zeros_.data() : x_ + b * x_batch_ + token * x_row_;
  }

  /// Calls work(b, piece, group) for every piece of every batch row; the pieces of one group run in
  /// order on one thread. `groups` = kPieces: no groups.
  template <class Work>
  void for_each_piece(int64_t groups, const Work& work) const {
    const int64_t count = static_cast<int64_t>(pieces_.size()), total = batch_ * count;
    const auto run = [&](int64_t item, int64_t group) {
      work(item / count, pieces_[static_cast<size_t>(item % count)], group);
    };
    if (groups == kPieces) {
      const int64_t grain =
          std::max<int64_t>(1, 32768 / (kPieceLength * std::max<int64_t>(1, channels_)));
      parallel_for(0, total, grain, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) run(item, 0);
      });
      return;
    }
    parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group) {
        for (int64_t item = group * total / groups; item < (group + 1) * total / groups; ++item)
          run(item, group);
      }
    });
  }

 private:
  static std::vector<int32_t> to_vector(const at::Tensor& tensor) {
    const at::Tensor flat = tensor.cpu().contiguous();
    return {flat.const_data_ptr<int32_t>(), flat.const_data_ptr<int32_t>() + flat.numel()};
  }

  const T* x_ = nullptr;
  int64_t x_batch_ = 0, x_row_ = 0;
  const T* initial_ = nullptr;
  const int32_t* tokens_ = nullptr;  // null: position p is token p
  int64_t tokens_batch_ = 0;
  std::vector<int32_t> offsets_, branch_;
  std::vector<T> zeros_;
  int64_t batch_ = 0, before_ = 0, channels_ = 0;
  std::vector<Piece> pieces_;
};

/// The W samples that one position sees; positions are visited in order.
template <class T>
class Window {
 public:
  Window(const Walk<T>& walk, int64_t b, const Piece& piece)
      : walk_(walk), b_(b), sequence_(piece.sequence) {
    for (int64_t k = 1; k < walk.width(); ++k)
      rows_[k] = walk.row(b, sequence_, piece.begin - walk.width() + k);
  }

  const T* const* advance(int64_t p) {
    const int64_t width = walk_.width();
    for (int64_t k = 1; k < width; ++k) rows_[k - 1] = rows_[k];
    rows_[width - 1] = walk_.row(b_, sequence_, p);
    return rows_.data();
  }

 private:
  const Walk<T>& walk_;
  int64_t b_, sequence_;
  std::array<const T*, kMaxConvWidth> rows_{};
};

}  // namespace serpentine::cpu
