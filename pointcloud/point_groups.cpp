#include "pointcloud/point_groups.h"

#include <torch/torch.h>

#include "core/check.h"
#include "pointcloud/sampling.h"

namespace serpentine {
namespace {

constexpr const char* kPointGroupsWho = "point groups";
constexpr double kPointGroupsSpread = 0.02;  // of the initial weights
constexpr double kCut = 2;                   // where timm's trunc_normal_ cuts, not in deviations
constexpr double kHeadDropout = 0.5;

}  // namespace

PointGroups group_points(const torch::Tensor& points, int64_t groups, int64_t size) {
  check_shape(kPointGroupsWho, points, "points", {-1, -1, 3}, "B, N, 3");
  SERPENTINE_CHECK(points.size(1) >= groups && points.size(1) >= size, kPointGroupsWho,
                   "clouds must have at ", "least ", std::max(groups, size), " points for ", groups,
                   " groups of ", size, ", got ", points.size(1));
  const auto centres =
      take_rows(points, farthest_points(points, groups, FarthestRule::kAwayFromZero));
  const auto near = nearest_points(centres.detach(), points.detach(), size);
  return {centres, take_rows(points, near.index) - centres.unsqueeze(2)};
}

void GroupedModelOptions::fields(Fields& f) {
  f("num_group", num_group, "groups a cloud is cut into, each a token", {.least = 1});
  f("group_size", group_size, "points a group", {.least = 1});
  f("trans_dim", trans_dim, "channels of a token", {.least = 1});
  f("depth", depth, "Mamba layers", {.least = 1});
  f("drop_path", drop_path, "of the last layer; grows linearly", {.least = 0, .most = 0.99});
  f("widths", widths, "channels of the group encoder's layers, of the positions' and of the head's",
    {.least = 1});
}

void GroupedModelOptions::check() const {
  SERPENTINE_CHECK(widths.size() == 3, kPointGroupsWho, "widths must have 3 values, got ",
                   widths.size());
}

double GroupedModelOptions::drop_path_of(int64_t layer, int64_t layers) const {
  return layers == 1 ? 0 : drop_path * static_cast<double>(layer) / static_cast<double>(layers - 1);
}

GroupEncoderImpl::GroupEncoderImpl(const GroupedModelOptions& options) {
  options.check();
  first_ = make_pair("first_conv", 3, options.widths[0], options.widths[1]);
  second_ = make_pair("second_conv", 2 * options.widths[1], options.widths[2], options.trans_dim);
}

GroupEncoderImpl::Pair GroupEncoderImpl::make_pair(const char* name, int64_t in, int64_t inner,
                                                   int64_t out) {
  Pair pair;
  pair.in = torch::nn::Conv1d(torch::nn::Conv1dOptions(in, inner, 1));
  pair.norm = torch::nn::BatchNorm1d(inner);
  pair.out = torch::nn::Conv1d(torch::nn::Conv1dOptions(inner, out, 1));
  register_module(name, torch::nn::Sequential(pair.in, pair.norm, torch::nn::ReLU(), pair.out));
  return pair;
}

torch::Tensor GroupEncoderImpl::run(Pair& pair, const torch::Tensor& x) {
  return pair.out->forward(torch::relu(pair.norm->forward(pair.in->forward(x))));
}

torch::Tensor GroupEncoderImpl::forward(const torch::Tensor& members) {
  // Channels first, as published: young features of a group differ by roundings only, and which
  // member has the largest, and the gradient, follows from the convolution's.
  const auto each = run(first_, members.flatten(0, 1).transpose(1, 2));
  const auto all = std::get<0>(each.max(2, /*keepdim=*/true)).expand_as(each);
  const auto groups = std::get<0>(run(second_, torch::cat({all, each}, 1)).max(2));
  return groups.view({members.size(0), members.size(1), -1});
}

torch::nn::Sequential position_embedding(const GroupedModelOptions& options, bool silu) {
  torch::nn::Sequential made(torch::nn::Linear(3, options.widths.at(0)));
  if (silu) {
    made->push_back(torch::nn::SiLU());
  } else {
    made->push_back(torch::nn::GELU());
  }
  made->push_back(torch::nn::Linear(options.widths.at(0), options.trans_dim));
  return made;
}

torch::nn::Sequential cloud_head(int64_t in, int64_t classes, const GroupedModelOptions& options) {
  const int64_t inner = options.widths.at(1);
  torch::nn::Sequential head;
  for (const int64_t from : {in, inner}) {
    head->push_back(torch::nn::Linear(from, inner));
    head->push_back(torch::nn::BatchNorm1d(inner));
    head->push_back(torch::nn::ReLU());
    head->push_back(torch::nn::Dropout(kHeadDropout));
  }
  head->push_back(torch::nn::Linear(inner, classes));
  return head;
}

void init_grouped_model(torch::nn::Module& root) {
  const torch::NoGradGuard no_grad;
  const auto init = [](torch::Tensor& weight, torch::Tensor& bias) {
    weight.normal_(0, kPointGroupsSpread).clamp_(-kCut, kCut);
    if (bias.defined()) bias.zero_();
  };
  for (const auto& module : root.modules(/*include_self=*/false)) {
    if (auto* linear = module->as<torch::nn::Linear>()) init(linear->weight, linear->bias);
    if (auto* conv = module->as<torch::nn::Conv1d>()) init(conv->weight, conv->bias);
  }
}

}  // namespace serpentine
