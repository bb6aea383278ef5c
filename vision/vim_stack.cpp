#include "vision/vim_stack.h"

#include <cmath>
#include <sstream>

#include <torch/torch.h>

#include "core/check.h"
#include "core/nn/drop_path.h"
#include "vision/recompute_block.h"
#include "vision/vss_block.h"

namespace serpentine {
namespace {

constexpr size_t kMostOrders = 64;  // images of many sizes must not fill the memory

}  // namespace

std::string scan_with_classes(const ClassTokens& classes, const Config& scan) {
  if (classes.number() == 0) return scan.yaml();
  std::string text = "type: class_token\nposition: " + classes.position +
                     "\ncount: " + std::to_string(classes.count) + "\ninner:\n";
  std::istringstream lines(scan.yaml());
  for (std::string line; std::getline(lines, line);) text += "  " + line + "\n";
  return text;
}

ScanOrder in_sequence(const ScanOrder& order, const std::vector<int64_t>& places) {
  if (places.empty()) return order;
  const auto patches = order.num_tokens - static_cast<int64_t>(places.size());
  std::vector<int64_t> at(static_cast<size_t>(order.num_tokens));
  int64_t patch = 0;
  size_t found = 0;
  for (int64_t t = 0; t < order.num_tokens; ++t) {
    const bool is_class = found < places.size() && places[found] == t;
    at[static_cast<size_t>(is_class ? patches + static_cast<int64_t>(found++) : patch++)] = t;
  }
  return relabeled(order, torch::tensor(at, torch::kLong).to(order.tokens.device()));
}

std::vector<int64_t> ClassTokens::places(int64_t patches) const {
  if (position == "first") return {0};
  if (position == "middle") return {patches / 2};
  if (position == "both") return {0, patches + 1};
  if (position == "none") return {};
  std::vector<int64_t> spread;
  for (int64_t c = 1; c <= count; ++c) spread.push_back(c * (patches / (count + 1)) + c - 1);
  return spread;
}

int64_t ClassTokens::number() const {
  return position == "none" ? 0 : position == "both" ? 2 : position == "spread" ? count : 1;
}

VimStack::VimStack(torch::nn::Module& owner, const VimStackOptions& options)
    : options_(options), custom_(options.scan.has("type")) {
  const std::string text = custom_ ? scan_with_classes(options.classes, options.scan) : "";
  scan_ = ImageScan(custom_ ? Config::parse(text, "scan") : Config(),
                    options.both_ways ? "{type: bidirectional}" : "{type: identity}");
  varies_ = false;
  for (const char* name : {"shuffle", "random", "per_layer"})
    varies_ = varies_ || text.find(name) != std::string::npos;
  SERPENTINE_CHECK(!options.pairs || options.depth % 2 == 0, "vim",
                   "layers in pairs need an even depth, got ", options.depth);
  BlockOptions block;
  block.d_model = options.dim;
  block.norm = options.rms_norm ? NormKind::kRms : NormKind::kLayer;
  block.eps = options.norm_eps;
  block.residual_in_fp32 = options.residual_in_fp32;
  drop_ = drop_path_rates(options.drop_path, options.depth);
  torch::nn::ModuleList layers;
  for (int64_t i = 0; i < options.depth; ++i) {
    RoutedMambaOptions mixer = options.mixer;
    mixer.mamba.d_model = options.dim;
    // a layer that is made again as a whole has its inner part for a moment only
    if (options.recompute && mixer.mamba.keep == "auto") mixer.mamba.keep = "all";
    mixers_.emplace_back(mixer, scan_.num_branches());
    // the reference's first two layers drop nothing: a rate of 0 stands before its linspace
    block.drop_path = i == 0 ? 0 : drop_[static_cast<size_t>(i - 1)];
    blocks_.emplace_back(block, mixers_.back().ptr());
    layers->push_back(blocks_.back());
  }
  owner.register_module("layers", layers);
  norm_f_ = owner.register_module("norm_f", Norm(options.dim, block.norm, options.norm_eps));
  reset();
}

void VimStack::reset() {
  const torch::NoGradGuard no_grad;
  for (RoutedMamba& mixer : mixers_) {
    mixer->reset();
    mixer->out_proj->weight.div_(std::sqrt(static_cast<double>(options_.depth)));
  }
}

torch::Tensor VimStack::forward(const torch::Tensor& x, int64_t height, int64_t width,
                                bool training, RotaryGrid rope, bool rope_residual,
                                const OnLayer& on_layer) {
  const int64_t tokens = x.size(1);
  const auto turn = [&](Streams& streams) {
    if (!rope) return;
    streams.hidden = rope->forward(streams.hidden, height, width);
    if (rope_residual && streams.residual.defined())
      streams.residual = rope->forward(streams.residual, height, width);
  };
  const auto run = [&](int64_t layer, const Streams& in, const ScanOrder& along) {
    const auto i = static_cast<size_t>(layer);
    Trace inner;
    mixers_[i]->trace = on_layer ? &inner : nullptr;
    Streams out;
    if (options_.recompute && training && !on_layer) {
      const auto block = blocks_[i].ptr();
      const auto both = recompute_block(
          [block, along](const std::vector<torch::Tensor>& streams) {
            const Streams made = block->forward({streams[0], streams[1]}, along);
            return std::vector<torch::Tensor>{made.hidden, made.residual};
          },
          {in.hidden, in.residual});
      out = {both[0], both[1]};
    } else {
      out = blocks_[i]->forward(in, along);
    }
    mixers_[i]->trace = nullptr;
    if (on_layer) {
      inner["input"] = in.hidden;
      on_layer(layer, out, inner);
    }
    return out;
  };
  Streams streams{x, {}};
  for (int64_t layer = 0; layer < options_.depth; ++layer) {
    turn(streams);
    const ScanOrder along = order(height, width, tokens, x.device(), layer, training);
    const Streams ahead = run(layer, streams, along);
    if (!options_.pairs) {
      streams = ahead;
      continue;
    }
    const Streams back = run(++layer, streams, reversed(along));
    streams = {ahead.hidden + back.hidden, ahead.residual + back.residual};
  }
  const auto last = drop_path(streams.hidden, options_.drop_path, training);
  return norm_f_->add(last, streams.residual, options_.residual_in_fp32).y;
}

ScanOrder VimStack::order(int64_t height, int64_t width, int64_t tokens, at::Device device,
                          int64_t layer, bool training) {
  ScanContext context;
  context.layer = layer;
  context.num_layers = options_.depth;
  context.training = training;
  const ScanOrder plain = routed(height, width, tokens, device, context);
  if (!training || options_.shuffle_rate == 0 || layer == 0) return plain;
  const double here =
      options_.shuffle_rate * static_cast<double>(layer) / static_cast<double>(options_.depth - 1);
  if (torch::rand({1}, torch::kDouble).item<double>() >= here) return plain;
  return relabeled(plain,
                   torch::randperm(tokens, torch::TensorOptions(device).dtype(torch::kLong)));
}

ScanOrder VimStack::routed(int64_t height, int64_t width, int64_t tokens, at::Device device,
                           const ScanContext& context) {
  const std::tuple<int64_t, int64_t, std::string> key{height, width, device.str()};
  if (!varies_) {
    const auto found = kept_.find(key);
    if (found != kept_.end()) return found->second;
  }
  const at::Device where = varies_ ? device : at::Device(at::kCPU);
  ScanOrder order;
  if (!custom_) {
    order = scan_.order(0, 0, tokens, where, context).order;
  } else {
    order = scan_.order(height, width, tokens - height * width, where, context).order;
    order = in_sequence(order, options_.classes.places(height * width));
  }
  order = order.to(device);
  if (varies_) return order;
  if (kept_.size() >= kMostOrders) kept_.clear();
  return kept_[key] = order;
}

}  // namespace serpentine
