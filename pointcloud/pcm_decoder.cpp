#include "pointcloud/pcm_decoder.h"

#include <numeric>

#include <torch/torch.h>

#include "core/check.h"
#include "pointcloud/point_order.h"
#include "pointcloud/sampling.h"

namespace serpentine {
namespace {

constexpr const char* kPcmDecoderWho = "decoder";
const char* const kStay = "null";  // the published name of no order
constexpr double kCell = 0.02;     // of the decoder's orders, whatever the encoder's, as published

}  // namespace

void PcmDecoderOptions::fields(Fields& f) {
  auto choices = point_orders();
  choices.emplace_back(kStay);
  f("channels", channels, "channels after each propagation, the coarsest first", {.least = 1});
  f("blocks", blocks, "residual layers after each", {.least = 0});
  f("mamba_blocks", mamba_blocks,
    "Mamba layers after each; as published, they leave the next propagation with features in "
    "another sequence than its points",
    {.least = 0});
  f("orders", orders, "the order of each Mamba layer", {.choices = choices});
  f("activation", activation, "activation of the point layers", {.choices = point_activations()});
  f("gmp_dim", gmp_dim, "channels of the summary of all levels", {.least = 1});
  f("cls_dim", cls_dim, "channels of the shape's class", {.least = 1});
  f("shape_classes", shape_classes, "classes of whole shapes, when they are an input",
    {.least = 0});
}

void PcmDecoderOptions::check(int64_t levels) const {
  const auto steps = static_cast<size_t>(levels - 1);
  SERPENTINE_CHECK(
      channels.size() == steps && blocks.size() == steps && mamba_blocks.size() == steps,
      kPcmDecoderWho,
      "channels, blocks and mamba_blocks must have one value for each of the encoder's ", steps,
      " stages, got ", channels.size(), ", ", blocks.size(), " and ", mamba_blocks.size());
  const auto layers = std::accumulate(mamba_blocks.begin(), mamba_blocks.end(), int64_t{0});
  SERPENTINE_CHECK(layers == 0 || static_cast<int64_t>(orders.size()) == layers, kPcmDecoderWho,
                   "orders must have one value for each of the ", layers, " Mamba layers, got ",
                   orders.size());
  SERPENTINE_CHECK(mamba_blocks.back() == 0 || orders.back() == kStay, kPcmDecoderWho,
                   "the last order must be null, so that points keep their sequence");
}

PcmDecoderImpl::PcmDecoderImpl(PcmDecoderOptions options, const PcmEncoderOptions& encoder)
    : options_(std::move(options)) {
  const int64_t levels = encoder.stages() + 1;
  options_.check(levels);
  torch::nn::ModuleList decode, mamba, level_maps;
  int64_t from = encoder.width(levels - 2);
  for (int64_t i = 0; i + 1 < levels; ++i) {
    const int64_t to = options_.channels[i];
    const auto step = std::make_shared<torch::nn::Module>("step");
    Propagation made;
    made.fuse = step->register_module(
        "fuse", PointLayer(from + encoder.width(levels - 3 - i), to, /*bias=*/true));
    if (options_.blocks[i] > 0) {
      made.extraction = step->register_module(
          "extraction", PointResiduals(to, options_.blocks[i],
                                       PointResidualOptions{1, 1, true, options_.activation}));
    } else {
      step->register_module("extraction", torch::nn::Identity());
    }
    torch::nn::ModuleList blocks;
    for (int64_t block = 0; block < options_.mamba_blocks[i]; ++block) {
      made.mamba.push_back(pcm_block(to, encoder, /*drop_path=*/0));
      blocks->push_back(made.mamba.back());
    }
    steps_.push_back(std::move(made));
    decode->push_back(step);
    mamba->push_back(blocks);
    from = to;
  }
  register_module("decode_list", decode);
  register_module("mamba_list", mamba);
  if (options_.shape_classes > 0) {
    torch::nn::ModuleList maps;
    for (const int64_t in : {options_.shape_classes, options_.cls_dim}) {
      class_maps_.emplace_back(in, options_.cls_dim, encoder.bias, options_.activation);
      maps->push_back(class_maps_.back());
    }
    register_module("cls_map", maps);
  }
  for (int64_t i = levels - 2; i >= -1; --i) {
    level_maps_.emplace_back(encoder.width(i), options_.gmp_dim, encoder.bias, options_.activation);
    level_maps->push_back(level_maps_.back());
  }
  register_module("gmp_map_list", level_maps);
  summary_ = register_module("gmp_map_end", PointLayer(options_.gmp_dim * levels, options_.gmp_dim,
                                                       encoder.bias, options_.activation));
}

int64_t PcmDecoderImpl::out_channels() const {
  return options_.channels.back() + options_.gmp_dim +
         (options_.shape_classes > 0 ? options_.cls_dim : 0);
}

torch::Tensor PcmDecoderImpl::mix(Propagation& step, const torch::Tensor& points, torch::Tensor x,
                                  size_t& layer, std::string& order) {
  torch::Tensor walk = as_they_lie(points);
  Streams rows{x, {}};
  for (auto& block : step.mamba) {
    const std::string& own = options_.orders[layer++];
    if (own != kStay && own != order) {
      const PointOrderOptions how{kCell, /*published=*/true};
      walk = walk.gather(1, point_walk(take_rows(points, walk), own, how));
      order = own;
    }
    rows = block->forward(rows, walk_order(walk));
  }

  // the authors' program leaves features in the last order, beside points that keep theirs
  return take_rows(rows.hidden, walk);
}

torch::Tensor PcmDecoderImpl::forward(const std::vector<PointLevel>& levels,
                                      const torch::Tensor& shape_class) {
  const size_t last = levels.size() - 1;
  torch::Tensor x = levels[last].features;
  size_t layer = 0;
  std::string order = "original";
  for (size_t i = 0; i < steps_.size(); ++i) {
    const PointLevel &coarse = levels[last - i], &fine = levels[last - i - 1];
    const auto carried =
        interpolate_features(fine.points, coarse.points, x, 3, Distance::kPublished);
    x = steps_[i].fuse->forward(torch::cat({fine.features, carried}, 2));
    if (steps_[i].extraction) x = steps_[i].extraction->forward(x);
    if (!steps_[i].mamba.empty()) x = mix(steps_[i], fine.points, x, layer, order);
  }

  std::vector<torch::Tensor> parts;
  for (size_t i = 0; i <= last; ++i) {
    parts.push_back(std::get<0>(level_maps_[i]->forward(levels[last - i].features).max(1)));
  }
  const auto everywhere = [&](const torch::Tensor& of_cloud) {
    return of_cloud.unsqueeze(1).expand({-1, x.size(1), -1});
  };
  std::vector<torch::Tensor> joined = {x, everywhere(summary_(torch::cat(parts, 1)))};
  if (options_.shape_classes > 0) {
    check_shape(kPcmDecoderWho, shape_class, "shape_class", {x.size(0)}, "B");
    auto shape = torch::one_hot(shape_class, options_.shape_classes).to(x.scalar_type());
    for (auto& map : class_maps_) shape = map->forward(shape);
    joined.push_back(everywhere(shape));
  }
  return torch::cat(joined, 2);
}

}  // namespace serpentine
