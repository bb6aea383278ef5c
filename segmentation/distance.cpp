#include "segmentation/distance.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr float kFar = std::numeric_limits<float>::infinity();

/// Squared distances along one line: f is replaced. `stride` in elements, `step` in millimetres.
struct Envelope {
  explicit Envelope(int64_t length)
      : place(static_cast<size_t>(length)),
        border(static_cast<size_t>(length) + 1),
        value(static_cast<size_t>(length)) {}
  std::vector<int64_t> place;
  std::vector<double> border, value;

  void run(float* f, int64_t length, int64_t stride, double step) {
    const double square = step * step;
    int64_t top = -1;
    for (int64_t q = 0; q < length; ++q) {
      const float own = f[q * stride];
      if (own == kFar) continue;
      double from = -std::numeric_limits<double>::infinity();
      while (top >= 0) {
        const auto last = static_cast<size_t>(top);
        const auto p = static_cast<double>(place[last]), at = static_cast<double>(q);
        from = ((static_cast<double>(own) + square * at * at) - (value[last] + square * p * p)) /
               (2 * square * (at - p));
        if (from > border[last]) break;
        --top;
        from = -std::numeric_limits<double>::infinity();
      }
      ++top;
      place[static_cast<size_t>(top)] = q;
      value[static_cast<size_t>(top)] = static_cast<double>(own);
      border[static_cast<size_t>(top)] = from;
    }
    if (top < 0) return;
    border[static_cast<size_t>(top) + 1] = std::numeric_limits<double>::infinity();
    size_t k = 0;
    for (int64_t q = 0; q < length; ++q) {
      while (border[k + 1] < static_cast<double>(q)) ++k;
      const double away = static_cast<double>(q - place[k]);
      f[q * stride] = static_cast<float>(value[k] + square * away * away);
    }
  }
};

void check_mask(const char* who, const torch::Tensor& mask) {
  SERPENTINE_CHECK(mask.dim() == 3 && mask.scalar_type() == torch::kBool && mask.is_cpu(), who,
                   "the mask must be bool [D, H, W] on the CPU, got ", mask.dtype(), " ",
                   mask.sizes());
}

class Union {
 public:
  int32_t fresh() {
    parent_.push_back(static_cast<int32_t>(parent_.size()));
    return parent_.back();
  }
  int32_t root(int32_t at) {
    while (parent_[static_cast<size_t>(at)] != at) {
      auto& up = parent_[static_cast<size_t>(at)];
      up = parent_[static_cast<size_t>(up)];
      at = up;
    }
    return at;
  }
  void join(int32_t a, int32_t b) {
    a = root(a);
    b = root(b);
    if (a < b) {
      parent_[static_cast<size_t>(b)] = a;
    } else {
      parent_[static_cast<size_t>(a)] = b;
    }
  }
  size_t size() const { return parent_.size(); }

 private:
  std::vector<int32_t> parent_ = {0};
};

bool narrow_enough(int64_t voxels) { return voxels < std::numeric_limits<int32_t>::max(); }

/// Parts of one value of a mask that touch over faces, in one cell a voxel and nothing beside it: 0
/// outside, below zero at the first voxel of a part (how many it has), else where to look on,
/// plus 1.
template <class Cell>
class Parts {
 public:
  static constexpr Cell kOpen = std::numeric_limits<Cell>::min();  // no part has as many voxels

  Parts(const torch::Tensor& mask, bool value)
      : size_{mask.size(0), mask.size(1), mask.size(2)},
        storage_(torch::zeros({mask.numel()}, torch::CppTypeToScalarType<Cell>::value)),
        cells_(storage_.mutable_data_ptr<Cell>()) {
    const auto* in = mask.const_data_ptr<bool>();
    const int64_t H = size_[1], W = size_[2];
    int64_t at = 0;
    for (int64_t z = 0; z < size_[0]; ++z) {
      for (int64_t y = 0; y < H; ++y) {
        for (int64_t x = 0; x < W; ++x, ++at) {
          if (in[at] != value) continue;
          cells_[at] = -1;
          if (x > 0 && cells_[at - 1] != 0) join(at, at - 1);
          if (y > 0 && cells_[at - W] != 0) join(at, at - W);
          if (z > 0 && cells_[at - H * W] != 0) join(at, at - H * W);
        }
      }
    }
  }

  Cell operator[](int64_t at) const { return cells_[at]; }

  int64_t root(int64_t at) {
    while (cells_[at] > 0) {
      const int64_t up = static_cast<int64_t>(cells_[at]) - 1;
      if (cells_[up] > 0) cells_[at] = cells_[up];  // halves the way
      at = up;
    }
    return at;
  }

  /// Marks every part that reaches the border. The two faces of a picture are no border.
  void open_border() {
    const std::array<int64_t, 3> stride = {size_[1] * size_[2], size_[2], 1};
    for (size_t axis = 0; axis < 3; ++axis) {
      if (size_[axis] == 1) continue;
      const size_t a = axis == 0 ? 1 : 0, b = axis == 2 ? 1 : 2;
      for (const int64_t face : {int64_t{0}, size_[axis] - 1}) {
        for (int64_t i = 0; i < size_[a]; ++i) {
          for (int64_t j = 0; j < size_[b]; ++j) {
            const int64_t at = face * stride[axis] + i * stride[a] + j * stride[b];
            if (cells_[at] != 0) cells_[root(at)] = kOpen;
          }
        }
      }
    }
  }

 private:
  void join(int64_t a, int64_t b) {
    a = root(a);
    b = root(b);
    if (a == b) return;
    const int64_t first = std::min(a, b), other = std::max(a, b);
    cells_[first] += cells_[other];
    cells_[other] = static_cast<Cell>(first + 1);
  }

  std::array<int64_t, 3> size_;
  torch::Tensor storage_;
  Cell* cells_;
};

template <class Cell>
torch::Tensor largest_of(const torch::Tensor& mask) {
  Parts<Cell> parts(mask, true);
  int64_t best = -1, count = 0;
  for (int64_t at = 0; at < mask.numel(); ++at) {
    if (parts[at] >= 0) continue;
    ++count;
    if (best < 0 || parts[at] < parts[best]) best = at;
  }
  if (count <= 1) return mask;
  auto kept = torch::zeros_like(mask);
  auto* out = kept.mutable_data_ptr<bool>();
  for (int64_t at = 0; at < mask.numel(); ++at) out[at] = parts[at] != 0 && parts.root(at) == best;
  return kept;
}

template <class Cell>
torch::Tensor filled(const torch::Tensor& mask) {
  Parts<Cell> outside(mask, false);
  outside.open_border();
  auto whole = mask.clone();
  auto* out = whole.mutable_data_ptr<bool>();
  for (int64_t at = 0; at < mask.numel(); ++at) {
    if (outside[at] != 0 && outside[outside.root(at)] != Parts<Cell>::kOpen) out[at] = true;
  }
  return whole;
}

}  // namespace

torch::Tensor distance_to(const torch::Tensor& given, const Spacing& spacing) {
  check_mask("distance_to", given);
  auto squares =
      torch::where(given, torch::zeros({}, torch::kFloat), torch::full({}, kFar)).contiguous();
  auto* data = squares.mutable_data_ptr<float>();
  const std::array<int64_t, 3> size = {given.size(0), given.size(1), given.size(2)};
  for (size_t axis = 3; axis-- > 0;) {
    const int64_t length = size[axis], stride = squares.stride(static_cast<int64_t>(axis));
    if (length <= 1 || squares.numel() == 0) continue;
    const int64_t lines = squares.numel() / length;
    at::parallel_for(0, lines, 256, [&](int64_t begin, int64_t end) {
      Envelope envelope(length);
      for (int64_t line = begin; line < end; ++line)
        envelope.run(data + line / stride * stride * length + line % stride, length, stride,
                     spacing[axis]);
    });
  }
  return squares.sqrt_();
}

torch::Tensor surface_of(const torch::Tensor& mask) {
  check_mask("surface_of", mask);
  auto inner = mask.clone();
  for (int64_t axis = 0; axis < 3; ++axis) {
    const int64_t length = mask.size(axis);
    if (length == 1) {
      // a single slice has no inside across it; pictures are judged within their plane
      continue;
    }
    inner.narrow(axis, 1, length - 1).logical_and_(mask.narrow(axis, 0, length - 1));
    inner.narrow(axis, 0, length - 1).logical_and_(mask.narrow(axis, 1, length - 1));
    inner.select(axis, 0).zero_();
    inner.select(axis, length - 1).zero_();
  }
  return mask.logical_and(inner.logical_not());
}

torch::Tensor components_of(const torch::Tensor& given, bool corners, int64_t* count) {
  check_mask("components_of", given);
  const auto mask = given.contiguous();
  auto labels = torch::zeros(mask.sizes(), torch::kInt);
  const int64_t D = mask.size(0), H = mask.size(1), W = mask.size(2);
  const auto* in = mask.const_data_ptr<bool>();
  auto* out = labels.mutable_data_ptr<int32_t>();

  // the neighbours that were seen before
  std::vector<std::array<int64_t, 3>> before;
  for (int64_t dz = -1; dz <= 0; ++dz) {
    for (int64_t dy = -1; dy <= 1; ++dy) {
      for (int64_t dx = -1; dx <= 1; ++dx) {
        const bool earlier = dz < 0 || dy < 0 || (dy == 0 && dx < 0);
        if (!earlier || (dz == 0 && dy > 0)) continue;
        if (!corners && std::abs(dz) + std::abs(dy) + std::abs(dx) != 1) continue;
        before.push_back({dz, dy, dx});
      }
    }
  }
  Union sets;
  for (int64_t z = 0; z < D; ++z) {
    for (int64_t y = 0; y < H; ++y) {
      for (int64_t x = 0; x < W; ++x) {
        const int64_t at = (z * H + y) * W + x;
        if (!in[at]) continue;
        int32_t own = 0;
        for (const auto& [dz, dy, dx] : before) {
          if (z + dz < 0 || y + dy < 0 || y + dy >= H || x + dx < 0 || x + dx >= W) continue;
          const int32_t other = out[at + (dz * H + dy) * W + dx];
          if (other == 0) continue;
          if (own == 0) {
            own = other;
          } else if (own != other) {
            sets.join(own, other);
          }
        }
        out[at] = own != 0 ? own : sets.fresh();
      }
    }
  }
  std::vector<int32_t> number(sets.size(), 0);
  int32_t next = 0;
  for (int64_t at = 0; at < labels.numel(); ++at) {
    if (out[at] == 0) continue;
    auto& own = number[static_cast<size_t>(sets.root(out[at]))];
    if (own == 0) own = ++next;
    out[at] = own;
  }
  if (count != nullptr) *count = next;
  return labels;
}

torch::Tensor largest_component(const torch::Tensor& mask) {
  check_mask("largest_component", mask);
  return narrow_enough(mask.numel()) ? largest_of<int32_t>(mask.contiguous())
                                     : largest_of<int64_t>(mask.contiguous());
}

torch::Tensor without_holes(const torch::Tensor& mask) {
  check_mask("without_holes", mask);
  return narrow_enough(mask.numel()) ? filled<int32_t>(mask.contiguous())
                                     : filled<int64_t>(mask.contiguous());
}

int64_t parts_memory(int64_t voxels) {
  return voxels * ((narrow_enough(voxels) ? 4 : 8) + 1);  // the cells, and the mask returned
}

}  // namespace serpentine
