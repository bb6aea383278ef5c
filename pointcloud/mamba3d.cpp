// Mamba3D: groups of points as tokens, each mixed with its near groups before a Mamba layer that
// reads channels both ways.
//
// Han et al., "Mamba3D", arXiv 2404.14966, Figure 3. Keys and init as xhanxu/Mamba3D's Mamba3D,
// trained from scratch.
#include <torch/torch.h>

#include "core/nn/drop_path.h"
#include "core/nn/norm.h"
#include "pointcloud/point_groups.h"
#include "pointcloud/point_order.h"
#include "pointcloud/pointcloud.h"
#include "pointcloud/sampling.h"
#include "pointcloud/two_way_mamba.h"

namespace serpentine {
namespace {

constexpr double kMamba3dLeastDeviation = 1e-5;
constexpr double kMamba3dSpread = 0.02;  // of the initial class token and its position

struct Mamba3DOptions : GroupedModelOptions {
  int64_t classes = 40;
  int64_t center_local_k = 4;
  std::string bimamba_type = "v4";
  bool published_batch = false;
  MambaOptions mamba;

  void fields(Fields& f) {
    GroupedModelOptions::fields(f);
    f("classes", classes, "classes of clouds", {.least = 1});
    f("center_local_k", center_local_k, "near groups that a group is mixed with, itself among them",
      {.least = 1});
    f("bimamba_type", bimamba_type, "v4: channels both ways; none: one way",
      {.choices = {"v4", "none"}});
    f("published_batch", published_batch,
      "as the authors' program: features are scaled over the whole batch, and the first cloud's "
      "mean is given to every cloud; else each cloud is on its own");
    f.group("mamba", mamba, "the mixers");
  }
};

/// Local norm pooling: each group's near groups, relative to it and scaled, pooled by weights that
/// are exponentials of the values themselves. Section 3.2; keys `lga.*`, `pre_norm_ft.*`, `mlp.*`.
class LocalNormPoolingImpl : public torch::nn::Module {
 public:
  explicit LocalNormPoolingImpl(const Mamba3DOptions& options)
      : of_batch_(options.published_batch) {
    const int64_t channels = options.trans_dim;
    const auto lga = std::make_shared<torch::nn::Module>("lga");
    alpha_ = lga->register_parameter("affine_alpha_feat", torch::ones({1, 1, 1, 2 * channels}));
    beta_ = lga->register_parameter("affine_beta_feat", torch::zeros({1, 1, 1, 2 * channels}));
    register_module("lga", lga);
    const auto mlp = std::make_shared<torch::nn::Module>("mlp");
    map_ = mlp->register_module(
        "share_mlp", torch::nn::Conv1d(torch::nn::Conv1dOptions(2 * channels, channels, 1)));
    register_module("mlp", mlp);
    norm_ = register_module("pre_norm_ft", Norm(2 * channels, NormKind::kLayer));
  }

  /// near: int64 [B, G, k]; x: [B, G + 1, C], the class token first, which passes by.
  torch::Tensor forward(const torch::Tensor& near, const torch::Tensor& x) {
    const auto groups = x.narrow(1, 1, x.size(1) - 1), own = groups.unsqueeze(2);
    const auto apart = take_rows(groups, near) - own;  // [B, G, k, C]
    const auto deviation = of_batch_ ? apart.std() : apart.flatten(1).std(1).view({-1, 1, 1, 1});
    const auto wide =
        alpha_ *
            torch::cat({apart / (deviation + kMamba3dLeastDeviation), own.expand_as(apart)}, -1) +
        beta_;

    // subtracting the largest value changes no weight and keeps the exponentials finite
    const auto weight = (wide - wide.detach().amax(2, /*keepdim=*/true)).exp();
    const auto pooled = (wide * weight).sum(2) / weight.sum(2);
    record("lga", wide.permute({0, 3, 1, 2}));
    record("kpool", pooled.transpose(1, 2));
    const auto mixed = torch::silu(pointwise(map_, norm_(pooled)));
    return torch::cat({x.narrow(1, 0, 1), mixed}, 1);
  }

  std::function<void(const std::string& name, const torch::Tensor& tensor)> on_record;

 private:
  void record(const char* name, const torch::Tensor& tensor) const {
    if (on_record) on_record(name, tensor);
  }
  bool of_batch_;
  torch::Tensor alpha_, beta_;  // [1, 1, 1, 2 C], under the reference's names
  torch::nn::Conv1d map_{nullptr};
  Norm norm_{nullptr};
};
TORCH_MODULE(LocalNormPooling);

class Mamba3D : public Model {
 public:
  explicit Mamba3D(const Mamba3DOptions& options) : options_(options), encoder_(options) {
    const int64_t channels = options.trans_dim;
    register_module("encoder", encoder_);
    cls_token_ = register_parameter("cls_token", torch::zeros({1, 1, channels}));
    cls_pos_ = register_parameter("cls_pos", torch::zeros({1, 1, channels}));
    pos_embed_ = register_module("pos_embed", position_embedding(options, /*silu=*/true));
    torch::nn::ModuleList list;
    for (int64_t i = 0; i < options.depth; ++i) list->push_back(add_layer());
    const auto blocks = std::make_shared<torch::nn::Module>("blocks");
    blocks->register_module("blocks", list);
    register_module("blocks", blocks);
    norm_ = register_module("norm", Norm(channels, NormKind::kLayer));
    head_ =
        register_module("cls_head_finetune", cloud_head(2 * channels, options.classes, options));
    init_grouped_model(*this);
    const torch::NoGradGuard no_grad;
    cls_token_.normal_(0, kMamba3dSpread);
    cls_pos_.normal_(0, kMamba3dSpread);
  }

  torch::Tensor forward(const Batch& batch) override {  // [B, classes]
    const auto groups = group_points(batch.input, options_.num_group, options_.group_size);
    const auto tokens = encoder_(groups.members);
    leave_trace("center", groups.centres);
    leave_trace("encoder_tokens", tokens);
    const auto with_class = [&](const torch::Tensor& first, const torch::Tensor& rest) {
      return torch::cat({first.expand({rest.size(0), -1, -1}), rest}, 1);
    };
    torch::Tensor x = with_class(cls_token_, tokens);
    const auto pos = with_class(cls_pos_, pos_embed_->forward(groups.centres));
    const auto centres = groups.centres.detach();
    const auto near = nearest_points(centres, centres, options_.center_local_k).index;
    const ScanOrder order = walk_order(as_they_lie(x));
    for (size_t i = 0; i < layers_.size(); ++i) x = run(i, near, x + pos, order);
    x = norm_(x);
    leave_trace("after_norm", x);
    return head_->forward(read(x));
  }

 private:
  struct Layer {
    Norm norm1{nullptr}, norm2{nullptr};
    LocalNormPooling lfa{nullptr};
    TwoWayMamba mixer{nullptr};
  };

  std::shared_ptr<torch::nn::Module> add_layer() {
    MambaOptions mamba = options_.mamba;
    mamba.d_model = options_.trans_dim;
    const SecondWay way = options_.bimamba_type == "v4" ? SecondWay::kChannels : SecondWay::kUnused;
    const auto made = std::make_shared<torch::nn::Module>("block");
    Layer layer;
    layer.norm1 = made->register_module("norm1", Norm(options_.trans_dim, NormKind::kLayer));
    layer.norm2 = made->register_module("norm2", Norm(options_.trans_dim, NormKind::kLayer));
    layer.lfa = made->register_module("lfa", LocalNormPooling(options_));
    layer.mixer = made->register_module("mixer", TwoWayMamba(mamba, way));
    layers_.push_back(layer);
    return made;
  }

  torch::Tensor run(size_t number, const torch::Tensor& near, torch::Tensor x,
                    const ScanOrder& order) {
    Layer& layer = layers_[number];
    const double drop = options_.drop_path_of(static_cast<int64_t>(number), options_.depth);
    const std::string prefix = "block" + std::to_string(number) + ".";
    layer.lfa->on_record = nullptr;
    if (trace)
      layer.lfa->on_record = [&](const std::string& name, const torch::Tensor& tensor) {
        leave_trace(prefix + name, tensor);
      };
    const auto local = layer.lfa(near, layer.norm1(x));
    layer.lfa->on_record = nullptr;
    leave_trace(prefix + "lfa", local);
    x = x + drop_path(local, drop, is_training());
    const auto normed = layer.norm2(x);
    const auto mixed = layer.mixer->forward(normed, order);
    leave_trace(prefix + "mixer_in", normed);
    leave_trace(prefix + "mixer", mixed);
    x = x + drop_path(mixed, drop, is_training());
    leave_trace("after_block" + std::to_string(number), x);
    return x;
  }

  // the class token, and maximum and mean of the others: [B, G + 1, C] -> [B, 2 C]
  torch::Tensor read(const torch::Tensor& x) const {
    const auto groups = x.narrow(1, 1, x.size(1) - 1);
    auto mean = groups.mean(1);
    if (options_.published_batch) mean = mean.narrow(0, 0, 1);
    return torch::cat({x.select(1, 0), std::get<0>(groups.max(1)) + mean}, 1);
  }

  Mamba3DOptions options_;
  GroupEncoder encoder_;
  std::vector<Layer> layers_;
  Norm norm_{nullptr};
  torch::nn::Sequential pos_embed_{nullptr}, head_{nullptr};
  torch::Tensor cls_token_, cls_pos_;
};

}  // namespace

void add_mamba3d(Registry<Model>& all) {
  all.add<Mamba3DOptions>(
      "mamba3d", [](const Mamba3DOptions& options) { return std::make_shared<Mamba3D>(options); });
}

}  // namespace serpentine
