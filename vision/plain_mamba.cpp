#include "vision/plain_mamba.h"

#include <cmath>
#include <sstream>

#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/drop_path.h"
#include "core/ops/gate.h"
#include "core/ops/merge.h"
#include "core/ops/selective_scan.h"
#include "vision/image_model.h"
#include "vision/patch_sequence.h"
#include "vision/recompute_block.h"
#include "vision/vision.h"
#include "vision/vss_block.h"

namespace serpentine {
namespace {

constexpr const char* kPlainMambaWho = "plain_mamba";
constexpr int64_t kMoves = 5;
constexpr double kPlainMambaSpread = 0.02;  // of initial positions and directions
constexpr double kPlainMambaLeastStep = 1e-3, kMostStep = 0.1,
                 kStepFloor = 1e-4;  // initial step sizes

}  // namespace

at::Tensor moves_of(const ScanOrder& order, int64_t width) {
  const auto to = order.tokens.to(at::kLong), from = to.roll(1, -1);
  const auto row = [&](const at::Tensor& token) {
    return torch::div(token, width, /*rounding_mode=*/"floor");
  };
  const auto down = row(to) - row(from), right = to.remainder(width) - from.remainder(width);
  auto moves = torch::zeros_like(to);
  moves.masked_fill_((down == 0) & (right == 1), 1);
  moves.masked_fill_((down == 0) & (right == -1), 2);
  moves.masked_fill_((down == -1) & (right == 0), 3);
  moves.masked_fill_((down == 1) & (right == 0), 4);
  moves.masked_fill_((to < 0) | (from < 0), 0);
  return moves.index_fill(-1, order.offsets.slice(0, 0, order.num_sequences()).to(at::kLong), 0);
}

SnakeMixerImpl::SnakeMixerImpl(const PlainMambaOptions& options) : options_(options) {
  using torch::nn::LinearOptions;
  const int64_t inner = options.inner(), states = options.d_state, rank = options.rank();
  SERPENTINE_CHECK(options.conv_size % 2 == 1, kPlainMambaWho, "conv_size must be odd, got ",
                   options.conv_size);
  in_proj_ = register_module(
      "in_proj", torch::nn::Linear(LinearOptions(options.dim, 2 * inner).bias(options.bias)));
  conv2d_ = register_module(
      "conv2d", torch::nn::Conv2d(torch::nn::Conv2dOptions(inner, inner, options.conv_size)
                                      .groups(inner)
                                      .padding(options.conv_size / 2)
                                      .bias(options.conv_bias)));
  x_proj_ = register_module("x_proj",
                            torch::nn::Linear(LinearOptions(inner, rank + 2 * states).bias(false)));
  dt_proj_ = register_module("dt_proj", torch::nn::Linear(rank, inner));
  A_log_ = register_parameter("A_log",
                              torch::arange(1, states + 1, torch::kFloat).log().repeat({inner, 1}));
  D_ = register_parameter("D", torch::ones({inner}));
  direction_Bs_ = register_parameter("direction_Bs", torch::zeros({kMoves, states}));
  out_proj_ = register_module(
      "out_proj", torch::nn::Linear(LinearOptions(inner, options.dim).bias(options.bias)));
  const torch::NoGradGuard no_grad;
  direction_Bs_.normal_(0, kPlainMambaSpread);
  const double bound = 1 / std::sqrt(static_cast<double>(rank));
  dt_proj_->weight.uniform_(-bound, bound);
  const auto dt = torch::empty({inner})
                      .uniform_(std::log(kPlainMambaLeastStep), std::log(kMostStep))
                      .exp()
                      .clamp_min(kStepFloor);
  dt_proj_->bias.copy_(dt + torch::log(-torch::expm1(-dt)));
}

torch::Tensor SnakeMixerImpl::forward(const torch::Tensor& x, const ScanOrder& order) {
  const int64_t tokens = x.size(1) * x.size(2), sequences = order.num_sequences();
  const auto halves = in_proj_(x).chunk(2, -1);
  const auto map = torch::silu(convolve(conv2d_, halves[0]));
  const auto narrow = map.scalar_type();
  const auto wide = narrow == torch::kDouble ? torch::kDouble : torch::kFloat;
  const auto rows = map.flatten(1, 2);  // [B, T, D]
  const auto parts =
      x_proj_(rows).split_with_sizes({options_.rank(), options_.d_state, options_.d_state}, -1);
  const auto delta = dt_proj_(parts[0]);

  const auto by_position = [&](const torch::Tensor& of_token) {
    if (options_.routed_rows) return gather_rows(of_token.to(narrow), order);
    SERPENTINE_CHECK(order.num_positions() == sequences * tokens, kPlainMambaWho,
                     "as published, every sequence must have one position for each of the ", tokens,
                     " tokens; routed_rows: true takes any scan");
    return of_token.to(narrow).repeat({1, sequences, 1});
  };
  SelectiveScanArgs args;
  args.u = gather_rows(rows, order);
  args.delta = by_position(delta);
  args.A = -A_log_.to(wide).exp().unsqueeze(0);
  const auto directions = direction_Bs_.index_select(0, moves_of(order, x.size(2)).view({-1}));
  args.B = by_position(parts[1]) + directions.to(narrow);
  args.C = by_position(parts[2]);
  args.D = D_.to(wide).unsqueeze(0);
  args.delta_bias = dt_proj_->bias.to(wide).unsqueeze(0);
  const auto y = selective_scan(args, order, Rows::kPosition, Merge::kSum).y;
  return out_proj_(silu_gate(y.view(map.sizes()), halves[1]));
}

PlainMambaLayerImpl::PlainMambaLayerImpl(const PlainMambaOptions& options) : options_(options) {
  norm_ = register_module(
      "norm",
      Norm(options.dim, options.rms_norm ? NormKind::kRms : NormKind::kLayer, options.norm_eps));
  mamba_ = register_module("mamba", SnakeMixer(options));
  if (!options.with_dwconv) return;
  const auto dw = register_module("dw", std::make_shared<torch::nn::Module>("dw"));
  conv_ = dw->register_module(
      "0", torch::nn::Conv2d(torch::nn::Conv2dOptions(options.dim, options.dim, 3)
                                 .groups(options.dim)
                                 .padding(1)
                                 .bias(false)));
  conv_norm_ = MapNorm("bn", options.dim);
  dw->register_module("1", conv_norm_.module());
}

torch::Tensor PlainMambaLayerImpl::forward(const torch::Tensor& x, const ScanOrder& order) {
  const auto normed = norm_(x);
  const auto mixed = mamba_(normed, order);
  if (trace != nullptr) {
    (*trace)["mamba_in"] = normed.flatten(1, 2);
    (*trace)["mamba_out"] = mixed.flatten(1, 2);
  }
  const auto y = x + drop_path(mixed, options_.drop_path, is_training());
  return conv_ ? torch::gelu(conv_norm_.forward(convolve(conv_, y))) : y;
}

namespace {

struct PlainMambaModelOptions : ImageModelOptions {
  std::string size;
  PatchOptions patch;
  PlainMambaOptions layer;
  int64_t depth = 24, conv_layers = 1;
  Config scan;

  void fields(Fields& f) {
    f("size", size, "a published configuration, which the keys below may change",
      {.choices = {"", "l1", "l2", "l3"}});
    if (!size.empty()) {
      layer.dim = size == "l1" ? 192 : size == "l2" ? 384 : 448;
      depth = size == "l3" ? 36 : 24;
    }
    ImageModelOptions::fields(f);
    patch.fields(f);
    f("dim", layer.dim, "channels", {.least = 1});
    f("depth", depth, "layers", {.least = 1});
    f("conv_layers", conv_layers, "the first layers that a convolution follows", {.least = 0});
    f("d_state", layer.d_state, "states a channel", {.least = 1});
    f("expand", layer.expand, "inner channels over dim", {.least = 0.01});
    f("conv_size", layer.conv_size, "side of the mixer's convolution, odd", {.least = 1});
    f("rms_norm", layer.rms_norm, "RMSNorm, else LayerNorm");
    f("drop_path", layer.drop_path, "of the last layer; it grows linearly from 0",
      {.least = 0, .most = 0.99});
    f("routed_rows", layer.routed_rows,
      "delta, B and C follow the route as well; published: step i has those of token i");
    f.nested("scan", scan, "the routes, which share their parameters; default {type: continuous}",
             "serialization");
  }
};

class PlainMamba : public ImageModel {
 public:
  explicit PlainMamba(const PlainMambaModelOptions& options) : options_(options) {
    std::string text = "type: shared\ninner:\n";
    std::istringstream lines(options.scan.has("type") ? options.scan.yaml() : "type: continuous\n");
    for (std::string line; std::getline(lines, line);) text += "  " + line + "\n";
    scan_ = ImageScan(Config::parse(text, "scan"), "");
    grid_h_ = options.patch.tokens(options.height());
    grid_w_ = options.patch.tokens(options.width());
    const int64_t dim = options.layer.dim;
    const auto stem =
        register_module("patch_embed", std::make_shared<torch::nn::Module>("patch_embed"));
    stem_ = stem->register_module(
        "projection",
        torch::nn::Conv2d(torch::nn::Conv2dOptions(options.channels, dim, options.patch.patch_size)
                              .stride(options.patch.stride)));
    pos_embed_ = register_parameter("pos_embed", torch::zeros({1, grid_h_ * grid_w_, dim}));
    const auto rates = drop_path_rates(options.layer.drop_path, options.depth);
    torch::nn::ModuleList layers;
    for (int64_t i = 0; i < options.depth; ++i) {
      PlainMambaOptions layer = options.layer;
      layer.drop_path = rates[static_cast<size_t>(i)];
      layer.with_dwconv = i < options.conv_layers;
      layers_.emplace_back(layer);
      layers->push_back(layers_.back());
    }
    register_module("layers", layers);
    norm_ = register_module("ln1", Norm(dim, NormKind::kLayer, 1e-6));
    head_ = register_module("head", torch::nn::Linear(dim, options.classes));
    const torch::NoGradGuard no_grad;
    pos_embed_.normal_(0, kPlainMambaSpread);
    head_->weight.normal_(0, kPlainMambaSpread);
    head_->bias.zero_();
  }

  torch::Tensor forward_features(const torch::Tensor& images) override {
    return norm_(run(images)).mean({1, 2});
  }
  torch::Tensor forward_head(const torch::Tensor& features) override { return head_(features); }
  int64_t num_features() const override { return options_.layer.dim; }
  std::vector<torch::Tensor> forward_maps(const torch::Tensor& images) override {
    return {channels_first(norm_(run(images)))};
  }
  std::vector<int64_t> map_channels() const override { return {options_.layer.dim}; }

 private:
  torch::Tensor run(const torch::Tensor& images) {  // [B, h, w, C] before the last norm
    check_shape(kPlainMambaWho, images, "the images", {-1, options_.channels, -1, -1},
                "B, C, H, W");
    auto x = convolve(stem_, channels_last(images));
    const int64_t height = x.size(1), width = x.size(2);
    const auto positions =
        resized_positions(pos_embed_, grid_h_, grid_w_, height, width, ExtraRows::kNone);
    x = x + positions.view({1, height, width, -1});
    ScanContext context;
    context.num_layers = options_.depth;
    context.training = is_training();
    for (auto& layer : layers_) {
      const ScanOrder order = scan_.order(height, width, 0, x.device(), context).order;
      const auto made = layer.ptr();
      x = recompute_block(
          options_.recompute && is_training(),
          [made, order](const torch::Tensor& map) { return made->forward(map, order); }, x);
      ++context.layer;
    }
    return x;
  }

  PlainMambaModelOptions options_;
  ImageScan scan_;
  int64_t grid_h_ = 0, grid_w_ = 0;
  torch::nn::Conv2d stem_{nullptr};
  torch::Tensor pos_embed_;
  std::vector<PlainMambaLayer> layers_;
  Norm norm_{nullptr};
  torch::nn::Linear head_{nullptr};
};

}  // namespace

void add_plain_mamba(Registry<Model>& all) {
  all.add<PlainMambaModelOptions>("plain_mamba", [](const PlainMambaModelOptions& options) {
    return std::make_shared<PlainMamba>(options);
  });
}

}  // namespace serpentine
