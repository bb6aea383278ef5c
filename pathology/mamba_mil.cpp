// MambaMIL: tiles as one long sequence through a few Mamba layers, then attention pooling.
//
// Yang et al., arXiv 2403.06800: SRMamba reads the bag as it lies and with a stride, BiMamba as it
// lies and backwards. Differs: `tiles` lays the bag along a curve of its coordinates first, and
// `scan` takes any traversal, each with a branch of its own.
#include <torch/torch.h>

#include "pathology/bag_mamba.h"
#include "pathology/bag_model.h"
#include "pathology/memory_budget.h"
#include "pathology/pathology.h"
#include "scans/serialization.h"

namespace serpentine {
namespace {

constexpr int64_t kMambaMilMostParts = 64;

struct MambaMilOptions : BagModelOptions {
  MambaMilOptions() { dropout = 0; }
  int64_t attention = 128, layers = 2, rate = 5;
  std::string block = "srmamba", init = "published";
  Config tiles, scan;
  MambaOptions mamba;
  void fields(Fields& f) {
    BagModelOptions::fields(f);
    f("attention", attention, "channels of the attention network", {.least = 1});
    f("layers", layers, "Mamba layers", {.least = 1});
    f("block", block, "srmamba: as the tiles lie and with a stride; bimamba: and backwards; mamba",
      {.choices = {"srmamba", "bimamba", "mamba"}});
    f("rate", rate, "stride of srmamba", {.least = 1});
    f("init", init, "published: Xavier everywhere, biases 0, also of the step size; mamba: Mamba's",
      {.choices = {"published", "mamba"}});
    f.nested("tiles", tiles, "how the bag is laid out first: raster, hilbert, morton, random, ...",
             "serialization");
    f.nested("scan", scan, "a traversal instead of the block's: cross, lattice, bidirectional, ...",
             "serialization");
    f.group("mamba", mamba, "of every layer");
  }
};

const Registry<Serialization>& strategies() {
  static const auto* all = [] {
    auto* made = new Registry<Serialization>("serialization");
    add_serializations(*made);
    return made;
  }();
  return *all;
}

std::shared_ptr<Serialization> scan_of(const MambaMilOptions& options) {
  if (options.scan.has("type")) return strategies().build(options.scan);
  const std::string text = options.block == "srmamba"
                               ? "{type: reorder, rate: " + std::to_string(options.rate) + "}"
                           : options.block == "bimamba" ? "{type: bidirectional}"
                                                        : "{type: identity}";
  return strategies().build(Config::parse(text, options.block));
}

class MambaMil : public BagModel {
 public:
  explicit MambaMil(const MambaMilOptions& options)
      : options_(options), budget_("mamba_mil", options.memory_budget) {
    options_.check("mamba_mil");
    const int64_t hidden = options_.hidden;
    options_.mamba.d_model = hidden;
    scan_ = scan_of(options_);
    if (options_.tiles.has("type")) tiles_ = strategies().build(options_.tiles);
    TORCH_CHECK(!tiles_ || tiles_->num_branches() == 1,
                "mamba_mil: tiles must be a traversal of one branch, as raster or hilbert");
    embed_ = register_module("_fc1", std::make_shared<PartsImpl>())
                 ->linear("0", options_.in_dim, hidden);
    auto layers = register_module("layers", std::make_shared<PartsImpl>());
    const torch::nn::LayerNormOptions norm({hidden});
    for (int64_t i = 0; i < options_.layers; ++i) {
      auto layer = layers->group(std::to_string(i));
      norms_.push_back(layer->add("0", torch::nn::LayerNorm(norm)));
      mixers_.push_back(layer->add("1", BagMamba(options_.mamba, scan_->num_branches())));
    }
    norm_ = register_module("norm", torch::nn::LayerNorm(norm));
    auto attention = register_module("attention", std::make_shared<PartsImpl>());
    tanh_ = attention->linear("0", hidden, options_.attention);
    score_ = attention->linear("2", options_.attention, 1);
    classifier_ = register_module("classifier", torch::nn::Linear(hidden, options_.classes));
    xavier_everywhere(*this);
    if (options_.init == "mamba") start_as_mamba();
  }

  BagOutput read(const Batch& batch, bool) override {
    const auto bounds = bag_bounds("mamba_mil", batch, options_.in_dim);
    const int64_t parts = parts_of(batch.input.size(0));
    const int64_t rows = parts == 1 ? 0 : (batch.input.size(0) + parts - 1) / parts;
    auto x = embedded_rows(batch.input, embed_, options_.activation, options_.dropout,
                           is_training(), rows)
                 .unsqueeze(0);  // [1, T, H]
    leave_trace("after_fc1", x);
    TokenLayout layout = layout_of(batch);
    const torch::Tensor walk = first_walk(layout);
    for (size_t i = 0; i < mixers_.size(); ++i) {
      ScanContext context{static_cast<int64_t>(i), options_.layers, is_training()};
      ScanOrder order = scan_->order(layout, context);
      if (walk.defined()) order = relabeled(order, walk);
      const auto normed = norms_[i](x);
      const auto mixed = mixers_[i](normed, order, parts);
      leave_trace("layer" + std::to_string(i) + ".norm_out", normed);
      leave_trace("layer" + std::to_string(i) + ".mixer_out", mixed);
      x = x + mixed;
    }
    x = norm_(x);
    leave_trace("after_norm", x);
    return pooled(x.squeeze(0), bounds);
  }

 private:
  TokenLayout layout_of(const Batch& batch) const {
    TokenLayout layout;
    layout.num_tokens = batch.input.size(0);
    layout.device = batch.input.device();
    layout.sample_offsets = batch.offsets;
    if (!batch.offsets.defined()) {
      const auto end = static_cast<int32_t>(layout.num_tokens);
      layout.sample_offsets = torch::tensor({0, end}, torch::kInt);
    }
    if (batch.coords.defined()) layout.coords = batch.coords.unsqueeze(0);
    return layout;
  }

  /// The tiles along the curve `tiles`, int64 [T]; the layout's coordinates come along.
  torch::Tensor first_walk(TokenLayout& layout) const {
    if (!tiles_) return {};
    const torch::Tensor walk =
        tiles_->order(layout, {0, 1, is_training()}).tokens.flatten().to(torch::kLong);
    TORCH_CHECK(walk.size(0) == layout.num_tokens,
                "mamba_mil: tiles must visit every tile once, without pads");
    if (layout.coords.defined())
      layout.coords = layout.coords.index_select(1, walk.to(layout.coords.device()));
    return walk;
  }

  // x: [T, H]
  BagOutput pooled(const torch::Tensor& x, const std::vector<int64_t>& bounds) {
    BagOutput out;
    out.attention = score_(torch::tanh(tanh_(x)));
    const auto weights = bag_softmax(out.attention, bounds);
    out.logits = classifier_(bag_sum(weights, x, bounds).squeeze(1));
    if (!torch::GradMode::is_enabled()) out.instance_logits = classifier_(x);
    leave_trace("attn_logits", out.attention.unsqueeze(0));
    leave_trace("attn", weights.t().unsqueeze(0));
    return out;
  }

  int64_t parts_of(int64_t tiles) {
    const bool learns = torch::GradMode::is_enabled();
    const int64_t hidden = options_.hidden, layers = options_.layers;
    const int64_t layer = mixers_.front()->bytes_of_tile();
    const int64_t steps = 4 * mixers_.front()->steps_of_tile();
    // bytes of a tile that stay: features; the stream before, its norm and what is dropped; for
    // each layer norm, sum and the projections of its steps; the gradients of the last two
    const int64_t whole =
        learns ? 4 * (options_.in_dim + hidden * (6 + 2 * layers) + 2 * options_.attention) +
                     hidden + steps * (layers + 2)
               : 4 * (options_.in_dim + 4 * hidden + options_.attention) + 2 * steps;
    // in one piece every layer's tensors wait for the backward pass; in parts one group's do
    const int64_t apart = learns ? layer * layers + 12 * hidden : layer / 2;
    return budget_.parts(tiles, whole, apart, kMambaMilMostParts);
  }

  void start_as_mamba() {
    for (auto& mixer : mixers_) {
      for (const auto& entry : mixer->named_children()) {
        if (entry.key().rfind("dt_proj", 0) != 0) continue;
        const MambaOptions& mamba = mixer->options;
        auto* linear = entry.value()->as<torch::nn::Linear>();
        const torch::NoGradGuard no_grad;
        const double bound = mamba.dt_scale / std::sqrt(static_cast<double>(mamba.rank()));
        linear->weight.uniform_(-bound, bound);
        const auto dt = torch::empty_like(linear->bias)
                            .uniform_(std::log(mamba.dt_min), std::log(mamba.dt_max))
                            .exp()
                            .clamp_min(mamba.dt_init_floor);
        linear->bias.copy_(dt + torch::log(-torch::expm1(-dt)));
      }
    }
  }

  MambaMilOptions options_;
  MemoryBudget budget_;
  std::shared_ptr<Serialization> scan_, tiles_;
  torch::nn::Linear embed_{nullptr}, tanh_{nullptr}, score_{nullptr}, classifier_{nullptr};
  std::vector<torch::nn::LayerNorm> norms_;
  std::vector<BagMamba> mixers_;
  torch::nn::LayerNorm norm_{nullptr};
};

}  // namespace

void add_mamba_mil(Registry<Model>& all) {
  all.add<MambaMilOptions>("mamba_mil", [](const MambaMilOptions& options) {
    return std::make_shared<MambaMil>(options);
  });
}

}  // namespace serpentine
