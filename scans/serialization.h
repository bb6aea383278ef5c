// Serializations: how an image, a bag, a series or a point cloud becomes one or more scan orders.
//
// A strategy is one .cpp file that ends with its add_<name>(registry).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include "core/registry.h"
#include "core/scan_order.h"

namespace serpentine {

/// What a strategy may look at. Image tokens lie row by row, those of a volume slice by slice.
struct TokenLayout {
  int64_t num_tokens = 0;         // T
  int64_t height = 0, width = 0;  // of the image's token grid, in tokens; 0 when there is no image
  int64_t depth = 1;              // slices of a volume
  at::Tensor coords;              // [B, T, 2 or 3]: x, y (, z) of tiles or points, may be undefined
  at::Tensor keys;                // [B, T]: a model's score of each token, may be undefined
  at::Tensor sample_offsets;      // int32 [samples + 1] of a packed batch (B = 1), may be undefined
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

  /// The tokens of a layout with so many cells: more where class tokens or further maps join them.
  virtual int64_t num_tokens(int64_t cells) const { return cells; }

  /// An order over layout.num_tokens tokens with num_branches() branches, on layout.device.
  virtual ScanOrder order(const TokenLayout& layout, const ScanContext& context) const = 0;
};

/// Every strategy below. `all` must outlive the strategies' building: some build others.
void add_serializations(Registry<Serialization>& all);

// orders of images, volumes, tiles and points
void add_raster(Registry<Serialization>& all);
void add_cross(Registry<Serialization>& all);
void add_zigzag(Registry<Serialization>& all);
void add_continuous(Registry<Serialization>& all);
void add_hilbert(Registry<Serialization>& all);
void add_morton(Registry<Serialization>& all);

// of volumes
void add_inter_slice(Registry<Serialization>& all);
void add_tri_orientated(Registry<Serialization>& all);

// of images only; of tiles only; of points only
void add_atrous(Registry<Serialization>& all);
void add_window(Registry<Serialization>& all);
void add_lattice(Registry<Serialization>& all);
void add_traverse(Registry<Serialization>& all);

// of any tokens
void add_identity(Registry<Serialization>& all);
void add_reorder(Registry<Serialization>& all);
void add_random(Registry<Serialization>& all);
void add_learned(Registry<Serialization>& all);
void add_variate(Registry<Serialization>& all);

// made from other strategies
void add_reversed(Registry<Serialization>& all);
void add_bidirectional(Registry<Serialization>& all);
void add_shuffle(Registry<Serialization>& all);
void add_class_token(Registry<Serialization>& all);
void add_pieces(Registry<Serialization>& all);
void add_shared(Registry<Serialization>& all);
void add_one_by_one(Registry<Serialization>& all);
void add_stack(Registry<Serialization>& all);
void add_per_layer(Registry<Serialization>& all);

/// The strategy that `config` describes; an empty mapping is `identity`.
std::shared_ptr<Serialization> build_serialization(const Registry<Serialization>& all,
                                                   const Config& config);

/// The same for a list; an empty one is a single `identity`.
std::vector<std::shared_ptr<Serialization>> build_serializations(
    const Registry<Serialization>& all, const std::vector<Config>& configs);

/// Registers a strategy that is built from its options alone.
template <class Strategy, class Options>
void add_strategy(Registry<Serialization>& all, const std::string& name) {
  all.add<Options>(name, [](const Options& chosen) { return std::make_shared<Strategy>(chosen); });
}

}  // namespace serpentine
