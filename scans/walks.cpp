#include "scans/walks.h"

#include <ATen/ATen.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr size_t kMostOrders = 64;  // images of many sizes must not fill the memory

at::Tensor arange(int64_t count, at::Device device) {
  return at::arange(count, at::TensorOptions().dtype(at::kLong).device(device));
}

}  // namespace

ScanOrder order_of(const std::vector<at::Tensor>& walks, int64_t num_branches,
                   const TokenLayout& layout, int64_t visits_a_walk) {
  std::vector<int64_t> offsets = {0}, branch;
  for (size_t w = 0; w < walks.size(); ++w) {
    const int64_t begin = offsets.back(), length = walks[w].size(-1);
    std::vector<int64_t> bounds = {0, length};
    if (layout.sample_offsets.defined() && length == layout.num_tokens)
      bounds = sample_bounds(layout);
    for (size_t s = 1; s < bounds.size(); ++s) {
      offsets.push_back(begin + bounds[s]);
      branch.push_back(num_branches == 1 ? 0 : static_cast<int64_t>(w));
    }
  }
  const int64_t visits =
      visits_a_walk < 0 ? -1 : visits_a_walk * static_cast<int64_t>(walks.size());
  ScanOrder order = make_order(at::cat(walks, -1), at::tensor(offsets, at::kLong),
                               at::tensor(branch, at::kLong), layout.num_tokens, visits);
  order.identity = order.tokens.is_cpu() && order.tokens.dim() == 1 &&
                   order.tokens.equal(at::arange(order.num_tokens, order.tokens.options()));
  return order;
}

at::Tensor sorted_walk(const at::Tensor& key, const TokenLayout& layout) {
  const at::Tensor walk = at::argsort(key, /*stable=*/true, /*dim=*/-1, /*descending=*/false);
  if (!layout.sample_offsets.defined()) return walk;
  SERPENTINE_CHECK(key.dim() == 1, "scans",
                   "a packed batch has one key a token, got keys of shape ", key.sizes());
  const at::Tensor sample = sample_of_token(layout).index_select(0, walk);
  return walk.index_select(0, at::argsort(sample, /*stable=*/true, 0, false));
}

at::Tensor random_walk(const TokenLayout& layout, const ScanContext& context) {
  const at::Device where =
      context.generator ? context.generator->device() : at::Device(layout.device);
  const auto options = at::TensorOptions().dtype(at::kDouble).device(where);
  const at::Tensor key = at::rand({layout.num_tokens}, context.generator, options);
  return sorted_walk(key.to(layout.device), layout);
}

at::Tensor sample_of_token(const TokenLayout& layout) {
  const at::Tensor ends = layout.sample_offsets.slice(0, 1).to(layout.device, at::kLong);
  return at::searchsorted(ends, arange(layout.num_tokens, layout.device), /*out_int32=*/false,
                          /*right=*/true);
}

std::vector<int64_t> sample_bounds(const TokenLayout& layout) {
  if (!layout.sample_offsets.defined()) return {0, layout.num_tokens};
  const at::Tensor host = layout.sample_offsets.to(at::kCPU, at::kLong).contiguous();
  SERPENTINE_CHECK(
      host.dim() == 1 && host.numel() >= 1 && host[-1].item<int64_t>() == layout.num_tokens,
      "scans", "sample_offsets must be [samples + 1] and end with T = ", layout.num_tokens,
      ", got ", layout.sample_offsets);
  return {host.data_ptr<int64_t>(), host.data_ptr<int64_t>() + host.numel()};
}

void check_image(const char* who, const TokenLayout& layout, bool volumes) {
  SERPENTINE_CHECK(layout.height > 0 && layout.width > 0 && layout.depth > 0, who,
                   "the tokens must lie on an image's grid, got height ", layout.height,
                   " and width ", layout.width);
  SERPENTINE_CHECK(volumes || layout.depth == 1, who, "volumes have no such order, got depth ",
                   layout.depth);
  SERPENTINE_CHECK(!layout.sample_offsets.defined(), who,
                   "the images of a batch share one order; they cannot be packed");
  SERPENTINE_CHECK(layout.num_tokens == layout.depth * layout.height * layout.width, who,
                   "T must be depth x height x width = ", layout.depth, " x ", layout.height, " x ",
                   layout.width, ", got ", layout.num_tokens);
}

ScanOrder OrderCache::get(const TokenLayout& layout, const std::function<ScanOrder()>& make) const {
  const Key key{layout.depth, layout.height, layout.width, layout.device.str()};
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = orders_.find(key);
  if (found != orders_.end()) return found->second;
  if (orders_.size() >= kMostOrders) orders_.clear();
  return orders_[key] = make().to(layout.device);
}

ScanOrder GridStrategy::order(const TokenLayout& layout, const ScanContext&) const {
  check_image("scans", layout);
  return cache_.get(layout, [&] {
    const at::Tensor grid = arange(layout.num_tokens, at::kCPU).view({layout.height, layout.width});
    return order_of(walks(grid), num_branches(), layout, /*visits_a_walk=*/-1);
  });
}

}  // namespace serpentine
