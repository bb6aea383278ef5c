// Serializations: how an image, a bag, a series or a point cloud becomes one or more scan orders.
//
// A strategy is one .cpp file that ends with its add_<name>(registry).
#pragma once

#include <optional>

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include "core/registry.h"
#include "core/scan_order.h"

namespace serpentine {

/// What a strategy may look at. Image tokens lie row by row.
struct TokenLayout {
  int64_t num_tokens = 0;         // T
  int64_t height = 0, width = 0;  // of the image's token grid, in tokens; 0 when there is no image
  at::Tensor coords;              // [B, T, 2 or 3], may be undefined
  at::Tensor sample_offsets;      // int32 [samples + 1] of a packed batch, may be undefined
  at::Device device = at::kCPU;
};

struct ScanContext {
  int64_t layer = 0, num_layers = 1;
  bool training = false;
  std::optional<at::Generator> generator = std::nullopt;  // for strategies that draw
};

/// Thread-safe: an order depends on the arguments and the strategy's options only.
class Serialization {
 public:
  virtual ~Serialization() = default;

  /// Known before any data: layers size their parameters by it.
  virtual int64_t num_branches() const = 0;

  /// An order over layout.num_tokens tokens with num_branches() branches, on layout.device.
  virtual ScanOrder order(const TokenLayout& layout, const ScanContext& context) const = 0;
};

/// identity, reversed, bidirectional. `all` must outlive the strategies' building: some build
/// others.
void add_serializations(Registry<Serialization>& all);

// what the list above calls
void add_identity(Registry<Serialization>& all);
void add_reversed(Registry<Serialization>& all);
void add_bidirectional(Registry<Serialization>& all);

/// The strategy that `config` describes; an empty mapping is `identity`.
std::shared_ptr<Serialization> build_serialization(const Registry<Serialization>& all,
                                                   const Config& config);

}  // namespace serpentine
