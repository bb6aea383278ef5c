// PointMamba: groups of points as tokens, along a Hilbert curve and along its transposed one.
//
// Liang et al., "PointMamba", arXiv 2402.10739, Figure 2. Keys and init as LMD0311/PointMamba's
// PointMambaScan, trained from scratch.
#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/merge.h"
#include "pointcloud/mamba_stack.h"
#include "pointcloud/point_groups.h"
#include "pointcloud/point_order.h"
#include "pointcloud/pointcloud.h"

namespace serpentine {
namespace {

constexpr const char* kPointMambaWho = "point_mamba";
constexpr double kPointMambaSpread = 0.02;  // of the initial class token and order indicators

struct PointMambaOptions : GroupedModelOptions {
  int64_t classes = 40;
  double dropout = 0;
  bool rms_norm = false;
  bool use_cls_token = false, max_head = false, avg_head = true;
  PointOrderOptions order;
  MambaOptions mamba;

  void fields(Fields& f) {
    GroupedModelOptions::fields(f);
    f("classes", classes, "classes of clouds", {.least = 1});
    f("dropout", dropout, "after each layer", {.least = 0, .most = 0.99});
    f("rms_norm", rms_norm, "RMSNorm, else LayerNorm");
    f("use_cls_token", use_cls_token, "a learnt last token, whose result the head reads too");
    f("max_head", max_head, "the head reads the maximum over tokens");
    f("avg_head", avg_head, "the head reads the mean over tokens");
    f("grid_size", order.cell, "side of the cells that groups are sorted by", {.least = 1e-9});
    f("published_order", order.published,
      "the authors' keys, by which an order may depend on the batch; needed for their weights");
    f.group("mamba", mamba, "the mixers");
  }

  // parts of what the head reads
  int64_t parts() const {
    SERPENTINE_CHECK(use_cls_token || max_head || avg_head, kPointMambaWho,
                     "one of use_cls_token, max_head and avg_head must be true");
    SERPENTINE_CHECK(!(use_cls_token && max_head && avg_head), kPointMambaWho,
                     "with a class token the head reads it and the mean; max_head must be false");
    return use_cls_token || (max_head && avg_head) ? 2 : 1;
  }

  MambaStackOptions stack() const {
    MambaStackOptions stack;
    stack.mamba = mamba;
    stack.mamba.d_model = trans_dim;
    stack.dropout = dropout;
    stack.rms_norm = rms_norm;
    for (int64_t i = 0; i < depth; ++i) stack.drop_path.push_back(drop_path_of(i, depth));
    return stack;
  }
};

class PointMamba : public Model {
 public:
  explicit PointMamba(const PointMambaOptions& options)
      : options_(options), encoder_(options), blocks_(options.stack()) {
    register_module("encoder", encoder_);
    if (options.use_cls_token) {
      cls_token_ = register_parameter("cls_token", torch::zeros({1, 1, options.trans_dim}));
      cls_pos_ = register_parameter("cls_pos", torch::zeros({1, 1, options.trans_dim}));
    }
    pos_embed_ = register_module("pos_embed", position_embedding(options));
    register_module("blocks", blocks_);
    head_ = register_module("cls_head_finetune", cloud_head(options.parts() * options.trans_dim,
                                                            options.classes, options));
    for (int64_t i = 0; i < 2; ++i) {
      const std::string number = std::to_string(i + 1);
      gamma_[i] =
          register_parameter("OrderScale_gamma_" + number, torch::empty({options.trans_dim}));
      beta_[i] = register_parameter("OrderScale_beta_" + number, torch::empty({options.trans_dim}));
    }
    reset();
  }

  torch::Tensor forward(const Batch& batch) override {  // [B, classes]
    const auto groups = group_points(batch.input, options_.num_group, options_.group_size);
    const auto tokens = encoder_(groups.members), pos = pos_embed_->forward(groups.centres);
    leave_trace("center", groups.centres);
    leave_trace("neighborhood", groups.members);
    leave_trace("encoder_tokens", tokens);

    // two copies of each token, told apart by scales, one along each curve
    std::vector<torch::Tensor> rows = {tokens * gamma_[0] + beta_[0],
                                       tokens * gamma_[1] + beta_[1]};
    std::vector<torch::Tensor> positions = {pos, pos};
    std::vector<torch::Tensor> walk = {
        point_walk(groups.centres, "hilbert", options_.order),
        point_walk(groups.centres, "hilbert-trans", options_.order) + options_.num_group};
    if (options_.use_cls_token) {
      // as published: the token and its position change places
      const auto batched = [&](const torch::Tensor& x) {
        return x.expand({tokens.size(0), -1, -1});
      };
      rows.push_back(batched(cls_pos_));
      positions.push_back(batched(cls_token_));
      walk.push_back(torch::full({tokens.size(0), 1}, 2 * options_.num_group, walk[0].options()));
    }
    const ScanOrder order = walk_order(torch::cat(walk, 1));
    const auto x = torch::cat(rows, 1), p = torch::cat(positions, 1);
    const auto sequence = [&](const char* name, const torch::Tensor& of_rows) {
      if (trace) leave_trace(name, gather_rows(of_rows, order));
    };
    sequence("tokens_in", x);
    sequence("pos_in", p);
    blocks_->on_record = nullptr;
    if (trace)
      blocks_->on_record = [&](const std::string& name, const torch::Tensor& tensor) {
        leave_trace(name, gather_rows(tensor, order));
      };
    const auto mixed = blocks_->forward(x + p, order);
    blocks_->on_record = nullptr;
    sequence("after_blocks", mixed);
    return head_->forward(read(mixed));
  }

 private:
  void reset() {
    init_grouped_model(*this);
    const torch::NoGradGuard no_grad;
    for (int64_t i = 0; i < 2; ++i) {
      gamma_[i].normal_(1, kPointMambaSpread);
      beta_[i].normal_(0, kPointMambaSpread);
    }
    if (!options_.use_cls_token) return;
    cls_token_.normal_(0, kPointMambaSpread);
    cls_pos_.normal_(0, kPointMambaSpread);
  }

  // [B, T, C] -> [B, parts C]
  torch::Tensor read(const torch::Tensor& x) const {
    std::vector<torch::Tensor> parts;
    if (options_.use_cls_token) parts.push_back(x.select(1, x.size(1) - 1));
    if (options_.use_cls_token || options_.avg_head) parts.push_back(x.mean(1));
    if (!options_.use_cls_token && options_.max_head) parts.push_back(std::get<0>(x.max(1)));
    return torch::cat(parts, 1);
  }

  PointMambaOptions options_;
  GroupEncoder encoder_;
  MambaStack blocks_;
  torch::nn::Sequential pos_embed_{nullptr}, head_{nullptr};
  torch::Tensor cls_token_, cls_pos_, gamma_[2], beta_[2];
};

}  // namespace

void add_point_mamba(Registry<Model>& all) {
  all.add<PointMambaOptions>("point_mamba", [](const PointMambaOptions& options) {
    return std::make_shared<PointMamba>(options);
  });
}

}  // namespace serpentine
