#include "vision/image_scan.h"

#include <ATen/ATen.h>
#include <ATen/TracerMode.h>

#include "core/ops/branch_product.h"

namespace serpentine {

ImageScan::ImageScan(const Config& config, const std::string& fallback) {
  auto registry = std::make_shared<Registry<Serialization>>("serialization");
  add_serializations(*registry);
  registry_ = registry;
  strategy_ = build_serialization(
      *registry_, config.has("type") ? config : Config::parse(fallback, "the default scan"));
}

RoutedOrder ImageScan::order(int64_t height, int64_t width, int64_t extra, at::Device device,
                             const ScanContext& context) const {
  // the order depends on the size alone: for a traced model it is a constant. Its parts are filled
  // through pointers, of which a trace would keep only the empty tensor
  const at::tracer::impl::NoTracerDispatchMode untraced;
  TokenLayout layout;
  layout.num_tokens = height * width + extra;
  layout.height = height;
  layout.width = width;
  layout.device = device;
  RoutedOrder routed;
  routed.order = strategy_->order(layout, context);
  routed.branch_sizes = branch_sizes(routed.order);
  return routed;
}

}  // namespace serpentine
