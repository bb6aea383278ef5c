#include "vision/image_scan.h"

#include <ATen/ATen.h>
#include <ATen/TracerMode.h>

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

std::vector<int64_t> branch_sizes(const ScanOrder& order) {
  const auto count = static_cast<size_t>(order.num_branches);
  if (count == 1) return {order.num_positions()};
  if (order.complete) return std::vector<int64_t>(count, order.num_tokens);
  const at::Tensor offsets = order.offsets.to(at::kCPU, at::kLong),
                   branch = order.branch.to(at::kCPU, at::kLong);
  const auto *at_offset = offsets.const_data_ptr<int64_t>(),
             *at_branch = branch.const_data_ptr<int64_t>();
  std::vector<int64_t> sizes(count, 0);
  for (int64_t s = 0; s < branch.size(0); ++s)
    sizes[static_cast<size_t>(at_branch[s])] += at_offset[s + 1] - at_offset[s];
  return sizes;
}

}  // namespace serpentine
