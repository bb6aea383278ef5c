// PointMamba's pre-training: most groups are hidden, and their points are predicted.
//
// Liang et al., "PointMamba", arXiv 2402.10739, section 3.4; Chamfer distance: Fan et al., arXiv
// 1612.00603, equation 1. Keys and init as LMD0311/PointMamba's Point_MAE_Mamba_serializationV2;
// the part `MAE_encoder` starts a point_mamba.
#include <array>

#include <torch/torch.h>

#include "core/check.h"
#include "pointcloud/mamba_stack.h"
#include "pointcloud/point_groups.h"
#include "pointcloud/point_order.h"
#include "pointcloud/pointcloud.h"
#include "pointcloud/sampling.h"

namespace serpentine {
namespace {

constexpr const char* kPointMambaMaskedWho = "point_mamba_masked";
constexpr double kPointMambaMaskedSpread = 0.02;  // of the initial mask token and order indicators
constexpr double kTiny = 1e-20;                   // whose root still has a gradient
constexpr std::array kCurves = {"hilbert", "hilbert-trans"};

struct MaskedOptions : GroupedModelOptions {
  int64_t decoder_depth = 4;
  double mask_ratio = 0.6;
  std::string mask_type = "rand", loss = "cdl2";
  bool rms_norm = false;
  PointOrderOptions order;
  MambaOptions mamba;

  void fields(Fields& f) {
    GroupedModelOptions::fields(f);
    f("decoder_depth", decoder_depth, "Mamba layers of the decoder", {.least = 1});
    f("mask_ratio", mask_ratio, "groups that are hidden, as a part of all",
      {.least = 0.01, .most = 0.99});
    f("mask_type", mask_type, "rand: anywhere; block: around a random group",
      {.choices = {"rand", "block"}});
    f("loss", loss, "cdl1: mean distances; cdl2: mean squared distances",
      {.choices = {"cdl1", "cdl2"}});
    f("rms_norm", rms_norm, "RMSNorm, else LayerNorm");
    f("grid_size", order.cell, "side of the cells that groups are sorted by", {.least = 1e-9});
    f("published_order", order.published,
      "the authors' keys, by which an order may depend on the batch; needed for their weights");
    f.group("mamba", mamba, "the mixers");
  }

  MambaStackOptions stack(int64_t layers) const {
    MambaStackOptions stack;
    stack.mamba = mamba;
    stack.mamba.d_model = trans_dim;
    stack.rms_norm = rms_norm;
    for (int64_t i = 0; i < layers; ++i) stack.drop_path.push_back(drop_path_of(i, layers));
    return stack;
  }
  int64_t hidden() const {
    return static_cast<int64_t>(mask_ratio * static_cast<double>(num_group));
  }
};

// x: [B, G, ...], chosen: int64 [B, n] -> [B, n, ...]
torch::Tensor pick(const torch::Tensor& x, const torch::Tensor& chosen) {
  auto shape = x.sizes().vec();
  shape[1] = chosen.size(1);
  return take_rows(x.flatten(2), chosen).view(shape);
}

// the mean over pairs of clouds: rows [M, S, 3] each -> []
torch::Tensor chamfer(const torch::Tensor& a, const torch::Tensor& b, bool squared) {
  const auto distance = squared_distances(a, b);
  const auto there = distance.amin(2), back = distance.amin(1);
  if (squared) return there.mean() + back.mean();
  return (there.clamp_min(kTiny).sqrt().mean() + back.clamp_min(kTiny).sqrt().mean()) / 2;
}

class MaskEncoderImpl : public torch::nn::Module {
 public:
  explicit MaskEncoderImpl(const MaskedOptions& options)
      : encoder_(options), blocks_(options.stack(options.depth)) {
    register_module("encoder", encoder_);
    pos_embed_ = register_module("pos_embed", position_embedding(options));
    register_module("blocks", blocks_);
    for (int64_t i = 0; i < 2; ++i) {
      const std::string number = std::to_string(i + 1);
      gamma_[i] =
          register_parameter("OrderScale_gamma_" + number, torch::empty({options.trans_dim}));
      beta_[i] = register_parameter("OrderScale_beta_" + number, torch::empty({options.trans_dim}));
    }
    init_grouped_model(*this);
    const torch::NoGradGuard no_grad;
    for (int64_t i = 0; i < 2; ++i) {
      gamma_[i].normal_(1, kPointMambaMaskedSpread);
      beta_[i].normal_(0, kPointMambaMaskedSpread);
    }
  }

  /// Tokens of all groups. members: [B, G, S, 3], curve: int64 [] or [1] -> [B, G, C].
  torch::Tensor tokens(const torch::Tensor& members, const torch::Tensor& curve) {
    const auto one = curve.reshape({1});
    return encoder_(members) * torch::stack({gamma_[0], gamma_[1]}).index_select(0, one) +
           torch::stack({beta_[0], beta_[1]}).index_select(0, one);
  }
  /// What the layers make of the visible ones: [B, V, C] and [B, V, 3] -> [B, V, C].
  torch::Tensor forward(const torch::Tensor& visible, const torch::Tensor& centres) {
    return blocks_->forward(visible + pos_embed_->forward(centres),
                            walk_order(as_they_lie(visible)));
  }

 private:
  GroupEncoder encoder_;
  MambaStack blocks_;
  torch::nn::Sequential pos_embed_{nullptr};
  torch::Tensor gamma_[2], beta_[2];
};
TORCH_MODULE(MaskEncoder);

class PointMambaMasked : public Model {
 public:
  explicit PointMambaMasked(const MaskedOptions& options)
      : options_(options), encoder_(options), blocks_(options.stack(options.decoder_depth)) {
    SERPENTINE_CHECK(options.hidden() >= 1 && options.hidden() < options.num_group,
                     kPointMambaMaskedWho, "mask_ratio must hide at least one of the ",
                     options.num_group, " groups and leave one, got ", options.mask_ratio);
    mask_token_ = register_parameter("mask_token", torch::empty({1, 1, options.trans_dim}));
    register_module("MAE_encoder", encoder_);
    pos_embed_ = register_module("decoder_pos_embed", position_embedding(options));
    const auto decoder =
        register_module("MAE_decoder", std::make_shared<torch::nn::Module>("decoder"));
    decoder->register_module("blocks", blocks_);
    to_points_ =
        torch::nn::Conv1d(torch::nn::Conv1dOptions(options.trans_dim, 3 * options.group_size, 1));
    register_module("increase_dim", torch::nn::Sequential(to_points_));
    const torch::NoGradGuard no_grad;
    mask_token_.normal_(0, kPointMambaMaskedSpread);
    for (const auto& module : blocks_->modules(/*include_self=*/false)) {
      auto* linear = module->as<torch::nn::Linear>();
      if (!linear) continue;
      torch::nn::init::xavier_uniform_(linear->weight);
      if (linear->bias.defined()) linear->bias.zero_();
    }
  }

  torch::Tensor forward(const Batch& batch) override {  // [1], the loss
    const auto groups = group_points(batch.input, options_.num_group, options_.group_size);
    const torch::Tensor curve = one_curve(batch);
    const auto walk = curve_walk(groups.centres, curve);
    const auto centres = pick(groups.centres, walk), members = pick(groups.members, walk);
    const torch::Tensor given = batch.get("mask"), mask = given.defined() ? given : draw(centres);
    leave_trace("center", centres);
    leave_trace("neighborhood", members);

    // a stable sort of 0 and 1: the visible groups, then the hidden, both in sequence
    const auto sorted = std::get<1>(
        mask.to(torch::kUInt8).sort(std::optional<bool>(true), /*dim=*/1, /*descending=*/false));
    const int64_t all = options_.num_group, count = options_.hidden();
    const auto visible = sorted.narrow(1, 0, all - count),
               hidden = sorted.narrow(1, all - count, count);
    const auto tokens = encoder_->tokens(members, curve);
    const auto seen = encoder_(pick(tokens, visible), pick(centres, visible));
    leave_trace("tokens", tokens);
    leave_trace("x_vis", seen);

    // back to the sequence, the mask token where a group is hidden
    const auto blank = mask_token_.to(seen.scalar_type()).expand({seen.size(0), count, -1});
    const auto x = pick(torch::cat({seen, blank}, 1),
                        sorted.argsort(/*dim=*/int64_t{1}, /*descending=*/false));
    const auto pos = pos_embed_->forward(centres);
    leave_trace("decoder_in", x);
    leave_trace("decoder_pos", pos);
    const auto decoded = pick(blocks_->forward(x + pos, walk_order(as_they_lie(x))), hidden);
    leave_trace("decoder_out", decoded);
    const auto points = pointwise(to_points_, decoded).view({-1, options_.group_size, 3});
    leave_trace("rebuild", points);
    return chamfer(points, pick(members, hidden).view_as(points), options_.loss == "cdl2")
        .reshape({1});
  }

 private:
  // 0: Hilbert, 1: transposed; one for the whole batch, as published
  static torch::Tensor one_curve(const Batch& batch) {
    const torch::Tensor given = batch.get("curve");
    if (given.defined()) return given.reshape({-1}).narrow(0, 0, 1);
    return torch::randint(2, {1}, batch.input.options().dtype(torch::kLong));
  }

  // both walks are made and one is taken, so that a GPU need not be waited for
  torch::Tensor curve_walk(const torch::Tensor& centres, const torch::Tensor& curve) const {
    return torch::where(curve.view({1, 1}) == 0, point_walk(centres, kCurves[0], options_.order),
                        point_walk(centres, kCurves[1], options_.order));
  }

  // centres: [B, G, 3] -> bool [B, G], hidden() of each row
  torch::Tensor draw(const torch::Tensor& centres) const {
    torch::Tensor rank = torch::rand(centres.sizes().slice(0, 2), centres.options());
    if (options_.mask_type == "block") {
      const auto middle = take_rows(centres, rank.argmax(1, /*keepdim=*/true));
      rank = (centres - middle).square().sum(-1);
    }
    const auto first = std::get<1>(rank.topk(options_.hidden(), 1, /*largest=*/false));
    return torch::zeros_like(rank, torch::kBool).scatter(1, first, true);
  }

  MaskedOptions options_;
  MaskEncoder encoder_;
  MambaStack blocks_;
  torch::nn::Sequential pos_embed_{nullptr};
  torch::nn::Conv1d to_points_{nullptr};
  torch::Tensor mask_token_;
};

}  // namespace

void add_point_mamba_masked(Registry<Model>& all) {
  all.add<MaskedOptions>("point_mamba_masked", [](const MaskedOptions& options) {
    return std::make_shared<PointMambaMasked>(options);
  });
}

}  // namespace serpentine
