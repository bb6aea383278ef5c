// A model's serialization, asked for the order of an image's token grid.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "scans/serialization.h"

namespace serpentine {

/// An order and where its branches lie.
struct RoutedOrder {
  ScanOrder order;
  std::vector<int64_t> branch_sizes;  // positions of each branch, [K]
};

/// Copies share the strategy. Thread-safe.
class ImageScan {
 public:
  ImageScan() = default;
  /// The strategy that `config` describes. An empty mapping: the one of `fallback`, a YAML text
  /// such as "{type: cross}". Stochastic strategies draw from torch's seeded generator.
  ImageScan(const Config& config, const std::string& fallback);

  int64_t num_branches() const { return strategy_->num_branches(); }

  /// Of a grid of height x width tokens and `extra` class tokens behind them.
  RoutedOrder order(int64_t height, int64_t width, int64_t extra, at::Device device,
                    const ScanContext& context) const;

 private:
  std::shared_ptr<const Registry<Serialization>> registry_;  // strategies may keep a reference
  std::shared_ptr<Serialization> strategy_;
};

}  // namespace serpentine
