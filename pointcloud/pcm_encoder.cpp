#include "pointcloud/pcm_encoder.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/merge.h"
#include "pointcloud/point_order.h"
#include "pointcloud/sampling.h"

namespace serpentine {
namespace {

constexpr const char* kPcmEncoderWho = "Point Cloud Mamba";
constexpr int64_t kPromptWidth = 384;     // of the table of prompts
constexpr int64_t kPositionWidth = 2048;  // inner channels of the positions' MLP
constexpr double kLeastSide = 1e-6;       // of a window's coordinates

using Map = std::function<torch::Tensor(const torch::Tensor&)>;

// three linear layers with ReLU between; keys `layers.<i>`
class PositionMlpImpl : public torch::nn::Module {
 public:
  explicit PositionMlpImpl(int64_t out) {
    torch::nn::ModuleList layers;
    for (const auto& [from, to] : {std::pair{int64_t{3}, kPositionWidth},
                                   {kPositionWidth, kPositionWidth},
                                   {kPositionWidth, out}}) {
      layers_.emplace_back(from, to);
      layers->push_back(layers_.back());
    }
    register_module("layers", layers);
  }
  torch::Tensor forward(torch::Tensor x) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      x = layers_[i]->forward(i == 0 ? x : torch::relu(x));
    }
    return x;
  }

 private:
  std::vector<torch::nn::Linear> layers_;
};
TORCH_MODULE(PositionMlp);

}  // namespace

Block pcm_block(int64_t channels, const PcmEncoderOptions& options, double drop_path) {
  MambaOptions mamba = options.mamba;
  mamba.d_model = channels;
  BlockOptions block;
  block.d_model = channels;
  block.norm = options.rms_norm ? NormKind::kRms : NormKind::kLayer;
  block.residual_in_fp32 = options.residual_in_fp32;
  block.drop_path = drop_path;
  if (options.bidirectional) {
    return Block(block, TwoWayMamba(mamba, SecondWay::kTokens).ptr());
  }
  return Block(block, Mamba(mamba).ptr());
}

void init_pcm_mixers(torch::nn::Module& root, int64_t layers) {
  const torch::NoGradGuard no_grad;
  for (auto& entry : root.named_parameters()) {
    const auto& name = entry.key();
    if (name.ends_with("out_proj.weight")) {
      torch::nn::init::kaiming_uniform_(entry.value(), std::sqrt(5.0));
      entry.value().div_(std::sqrt(static_cast<double>(layers)));
    }
    const bool linear = name.ends_with("proj.bias") || name.ends_with("proj_b.bias");
    if (linear && !name.ends_with("dt_proj.bias")) entry.value().zero_();
  }
}

PcmEncoderImpl::PcmEncoderImpl(PcmEncoderOptions chosen)
    : options([&] {
        chosen.check();
        const auto layers =
            std::accumulate(chosen.mamba_blocks.begin(), chosen.mamba_blocks.end(), int64_t{0});
        if (chosen.orders.size() == 1) chosen.orders.resize(layers, chosen.orders.front());
        auto& rows = chosen.prompt_rows;
        for (const auto& order : chosen.orders) {
          if (std::find(rows.begin(), rows.end(), order) == rows.end()) rows.push_back(order);
        }
        return chosen;
      }()) {
  embedding_ = register_module("embedding", PointLayer(options.in_channels, options.embed_dim,
                                                       options.bias, options.activation));
  if (options.use_order_prompt) {
    const auto rows = static_cast<int64_t>(options.prompt_rows.size()) * options.prompts_per_order;
    order_prompt_ = register_module("order_prompt", torch::nn::Embedding(rows, kPromptWidth));
  }
  if (options.mamba_pos) add_positions();
  torch::nn::ModuleList groupers, before, after, blocks, residuals, prompts;
  for (int64_t stage = 0; stage < options.stages(); ++stage) {
    add_points(stage, groupers, before, after);
    add_layers(stage, blocks, residuals);
    if (!options.use_order_prompt) continue;
    prompt_proj_.push_back(torch::nn::Linear(
        torch::nn::LinearOptions(kPromptWidth, options.width(stage)).bias(false)));
    prompts->push_back(prompt_proj_.back());
  }
  register_module("local_grouper_list", groupers);
  register_module("pre_blocks_list", before);
  register_module("mamba_blocks_list", blocks);
  register_module("pos_blocks_list", after);
  register_module("residual_proj_blocks_list", residuals);
  if (options.use_order_prompt) register_module("order_prompt_proj", prompts);
  init_pcm_mixers(*blocks, static_cast<int64_t>(options.orders.size()));
}

void PcmEncoderImpl::add_positions() {
  torch::nn::ModuleList list;
  const auto add = [&](int64_t width, bool alone) {
    const auto keep = [&](auto map) {
      positions_.emplace_back([map](const torch::Tensor& p) mutable { return map->forward(p); });
      if (alone) {
        register_module("pos_proj", map);
      } else {
        list->push_back(map);
      }
    };
    if (options.pos_proj == "mlp") {
      keep(PositionMlp(width));
    } else {
      keep(torch::nn::Linear(torch::nn::LinearOptions(3, width).bias(false)));
    }
  };
  const auto& expansion = options.dim_expansion;
  const bool share = options.pos_type == "share";
  if (share && std::accumulate(expansion.begin(), expansion.end(), int64_t{0}) ==
                   static_cast<int64_t>(expansion.size())) {
    add(options.width(0), true);
    return;
  }
  for (int64_t stage = 0; stage < options.stages(); ++stage) {
    const int64_t count = share ? 1 : options.mamba_blocks[stage];
    for (int64_t i = 0; i < count; ++i) add(options.width(stage), false);
  }
  register_module("pos_proj", list);
}

void PcmEncoderImpl::add_points(int64_t stage, torch::nn::ModuleList& groupers,
                                torch::nn::ModuleList& before, torch::nn::ModuleList& after) {
  const PointResidualOptions layers{options.groups, options.res_expansion, options.bias,
                                    options.activation};
  groupers_.emplace_back(
      options.width(stage - 1),
      GrouperOptions{options.reducers[stage], options.k_neighbors[stage], options.k_strides[stage],
                     options.use_xyz,
                     options.published_order ? Distance::kPublished : Distance::kExact,
                     options.normalize});
  pre_blocks_.emplace_back(groupers_.back()->out_channels(), options.width(stage),
                           options.pre_blocks[stage], layers);
  groupers->push_back(groupers_.back());
  before->push_back(pre_blocks_.back());
  if (options.pos_blocks[stage] == 0) {
    pos_blocks_.emplace_back(nullptr);
    after->push_back(torch::nn::Identity());
  } else {
    pos_blocks_.emplace_back(options.width(stage), options.pos_blocks[stage], layers);
    after->push_back(pos_blocks_.back());
  }
}

void PcmEncoderImpl::add_layers(int64_t stage, torch::nn::ModuleList& blocks,
                                torch::nn::ModuleList& residuals) {
  const int64_t from = options.width(stage - 1), to = options.width(stage);
  residual_proj_.emplace_back(nullptr);
  if (from == to || stage == 0 || !options.block_residual) {
    residuals->push_back(torch::nn::Identity());
  } else {
    residual_proj_.back() = torch::nn::Linear(torch::nn::LinearOptions(from, to).bias(false));
    residuals->push_back(residual_proj_.back());
  }

  // the published schedule begins one layer late
  const auto total = static_cast<int64_t>(options.orders.size());
  torch::nn::ModuleList list;
  mamba_.emplace_back();
  for (int64_t i = 0; i < options.mamba_blocks[stage]; ++i) {
    const int64_t number =
        std::accumulate(options.mamba_blocks.begin(), options.mamba_blocks.begin() + stage, i);
    const double drop_path = number <= 1 ? 0
                                         : options.drop_path * static_cast<double>(number - 1) /
                                               static_cast<double>(total - 1);
    mamba_.back().push_back(pcm_block(to, options, drop_path));
    list->push_back(mamba_.back().back());
  }
  blocks->push_back(list);
}

void PcmEncoderImpl::serialize(Cloud& cloud, const std::string& order) const {
  if (order == cloud.order) return;
  const PointOrderOptions how{options.grid_size, options.published_order};

  // points of one cell stay as the order before had them
  const auto sequence = cloud.walk.defined() ? take_rows(cloud.points, cloud.walk) : cloud.points;
  const auto walk = point_walk(sequence, order, how);
  cloud.walk = cloud.walk.defined() ? cloud.walk.gather(1, walk) : walk;
  cloud.order = order;
}

torch::Tensor PcmEncoderImpl::position_term(const torch::Tensor& points, int64_t stage,
                                            int64_t number) {
  if (positions_.size() == 1) return positions_[0](points);
  return positions_[options.pos_type == "share" ? stage : number](points);
}

torch::Tensor PcmEncoderImpl::prompts(int64_t stage, const std::string& order) {
  const auto& rows = options.prompt_rows;
  const int64_t count = options.prompts_per_order;
  const auto first = (std::find(rows.begin(), rows.end(), order) - rows.begin()) * count;
  return prompt_proj_[stage](order_prompt_->weight.narrow(0, first, count));
}

void PcmEncoderImpl::put_in_sequence(Cloud& cloud) const {
  if (cloud.walk.defined()) {
    for (torch::Tensor* rows : {&cloud.points, &cloud.features, &cloud.residual}) {
      if (rows->defined()) *rows = take_rows(*rows, cloud.walk);
    }
  }
  cloud.walk = torch::Tensor();
}

void PcmEncoderImpl::run_layer(Cloud& cloud, int64_t stage, int64_t layer) {
  const int64_t number =
      std::accumulate(options.mamba_blocks.begin(), options.mamba_blocks.begin() + stage, layer);
  const std::string& order = options.orders[number];
  serialize(cloud, order);
  int64_t windows = 1;
  torch::Tensor local = cloud.points;
  if (!options.windows.empty() && cloud.points.size(1) > options.windows[stage]) {
    windows = cloud.points.size(1) / options.windows[stage];
    drop_points(cloud, windows * options.windows[stage]);

    // as published: by each point's own least and largest coordinate, and back again
    const auto least = std::get<0>(cloud.points.min(2, /*keepdim=*/true));
    const auto side = std::get<0>(cloud.points.max(2, /*keepdim=*/true)) - least + kLeastSide;
    local = (cloud.points - least) / side;
    cloud.points = local * side + least;
  }
  if (!cloud.walk.defined()) cloud.walk = as_they_lie(cloud.points);
  const int64_t points = cloud.points.size(1), batch = cloud.points.size(0);
  Streams rows{cloud.features, cloud.residual};
  if (options.mamba_pos) rows.hidden = rows.hidden + position_term(local, stage, number);
  const int64_t prompt_count = options.use_order_prompt ? options.prompts_per_order : 0;
  if (prompt_count > 0) {
    const auto own =
        prompts(stage, order).repeat({2 * windows, 1}).unsqueeze(0).expand({batch, -1, -1});
    rows.hidden = torch::cat({rows.hidden, own}, 1);
    if (rows.residual.defined()) rows.residual = torch::cat({rows.residual, own}, 1);
  }
  const ScanOrder scan = walk_order(cloud.walk, windows, prompt_count);
  const Streams out = mamba_[stage][layer]->forward(rows, scan);
  if (trace) {
    const std::string name = "stage" + std::to_string(stage) + ".block" + std::to_string(layer);
    const auto sequences = [&](const torch::Tensor& x) {
      return gather_rows(x, scan).view({batch * windows, -1, x.size(2)});
    };
    record(name + ".in", sequences(rows.hidden));
    record(name + ".hidden", sequences(out.hidden));
    record(name + ".residual", sequences(out.residual));
  }
  cloud.features = out.hidden.narrow(1, 0, points);
  cloud.residual = out.residual.narrow(1, 0, points);
}

void PcmEncoderImpl::drop_points(Cloud& cloud, int64_t kept) const {
  if (kept == cloud.points.size(1)) return;
  put_in_sequence(cloud);
  const auto index = std::get<0>(farthest_points(cloud.points, kept).sort(1));
  for (torch::Tensor* rows : {&cloud.points, &cloud.features, &cloud.residual}) {
    if (rows->defined()) *rows = take_rows(*rows, index);
  }
}

void PcmEncoderImpl::run_stage(Cloud& cloud, int64_t stage) {
  const std::string name = "stage" + std::to_string(stage) + ".";
  put_in_sequence(cloud);
  auto& neighbourhood = pre_blocks_[stage];
  GroupedPoints grouped;
  if (!trace && neighbourhood->can_shorten(*groupers_[stage], cloud.features)) {
    grouped =
        neighbourhood->shortened(*groupers_[stage], cloud.points, cloud.features, cloud.residual);
    cloud.features = grouped.grouped;
  } else {
    grouped = groupers_[stage]->forward(cloud.points, cloud.features, cloud.residual);
    cloud.features = neighbourhood->forward(grouped.grouped);
    record(name + "grouped", grouped.grouped);
  }
  cloud.points = grouped.points;
  cloud.residual = options.block_residual ? grouped.residual : torch::Tensor();
  record(name + "p", cloud.points);
  record(name + "pre_out", cloud.features.transpose(1, 2));
  if (cloud.residual.defined() && residual_proj_[stage])
    cloud.residual = residual_proj_[stage](cloud.residual);
  for (int64_t layer = 0; layer < options.mamba_blocks[stage]; ++layer) {
    run_layer(cloud, stage, layer);
  }
  if (pos_blocks_[stage]) cloud.features = pos_blocks_[stage]->forward(cloud.features);
}

std::vector<PointLevel> PcmEncoderImpl::forward(const torch::Tensor& points,
                                                const torch::Tensor& features) {
  check_shape(kPcmEncoderWho, points, "points", {-1, -1, 3}, "B, N, 3");
  torch::Tensor input = features.defined() ? features : points;
  if (features.defined() && options.combine_pos) input = torch::cat({features, points}, 2);
  check_shape(kPcmEncoderWho, input, "features",
              {points.size(0), points.size(1), options.in_channels}, "B, N, C");
  Cloud cloud;
  cloud.points = points;
  cloud.features = embedding_(input);
  record("after_embedding", cloud.features.transpose(1, 2));
  std::vector<PointLevel> levels = {{cloud.points, cloud.features}};
  for (int64_t stage = 0; stage < options.stages(); ++stage) {
    run_stage(cloud, stage);
    put_in_sequence(cloud);
    levels.push_back({cloud.points, cloud.features});
  }
  return levels;
}

torch::Tensor PcmEncoderImpl::pooled(const torch::Tensor& points, const torch::Tensor& features) {
  const auto last = forward(points, features).back().features;
  if (options.pooling == "mean") return last.mean(1);
  const auto largest = std::get<0>(last.max(1));
  return options.pooling == "max" ? largest : largest + last.mean(1);
}

}  // namespace serpentine
