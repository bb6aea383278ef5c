// Walks: the tokens in the order of their visit, from which strategies make their scan orders.
//
// A walk is an int64 tensor [P], or [B, P] when each sample of the batch has its own; kPad reads
// zeros. B batch, T tokens, P positions, K branches.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "scans/serialization.h"

namespace serpentine {

/// An order of the walks, in this sequence. With one branch they share its parameters, otherwise
/// each is a branch. `visits_a_walk`: how often a walk visits a token; -1 counts, which waits for
/// a GPU. In a packed batch a walk of T positions must hold sample after sample.
ScanOrder order_of(const std::vector<at::Tensor>& walks, int64_t num_branches,
                   const TokenLayout& layout, int64_t visits_a_walk = 1);

/// Tokens by ascending key, ties as they lie; packed samples stay apart. key: [T] or [B, T].
at::Tensor sorted_walk(const at::Tensor& key, const TokenLayout& layout);

/// A permutation drawn from the context's generator, one for the whole batch; packed samples stay
/// apart. int64 [T] on the layout's device.
at::Tensor random_walk(const TokenLayout& layout, const ScanContext& context);

/// The packed sample that each token belongs to: int64 [T].
at::Tensor sample_of_token(const TokenLayout& layout);

/// Where the packed samples begin and end, on the host; {0, T} without sample_offsets.
std::vector<int64_t> sample_bounds(const TokenLayout& layout);

/// Throws unless the layout is one image (a volume, if `volumes`) of T tokens.
void check_image(const char* who, const TokenLayout& layout, bool volumes = false);

/// Keeps the orders of image sizes, so that a layer asks for nothing twice. Thread-safe.
class OrderCache {
 public:
  /// The order of this image size on the layout's device; `make` builds it on the CPU.
  ScanOrder get(const TokenLayout& layout, const std::function<ScanOrder()>& make) const;

 private:
  using Key = std::tuple<int64_t, int64_t, int64_t, std::string>;
  mutable std::mutex mutex_;
  mutable std::map<Key, ScanOrder> orders_;
};

/// Walks over an image, each a branch, written as slices of its grid of token numbers. Two walks
/// may share a token, or leave it to the others.
class GridStrategy : public Serialization {
 public:
  ScanOrder order(const TokenLayout& layout, const ScanContext& context) const final;

 protected:
  /// grid: int64 [H, W].
  virtual std::vector<at::Tensor> walks(const at::Tensor& grid) const = 0;

 private:
  OrderCache cache_;
};

}  // namespace serpentine
