// The task of labelling pixels and voxels: its loss over the network's scales, overlaps as metrics.
#include <algorithm>

#include <torch/torch.h>

#include "core/check.h"
#include "segmentation/loss.h"
#include "segmentation/network.h"
#include "segmentation/segmentation.h"

namespace serpentine {
namespace {

constexpr const char* kSegmentTaskWho = "segmentation";

struct SegmentTaskOptions {
  int64_t classes = 0;
  bool regions = false;
  std::vector<std::string> names;
  SegmentationLossOptions loss;
  void fields(Fields& f) {
    f("classes", classes, "channels of the model's output; known from the plan", {.least = 0});
    f("regions", regions, "classes may overlap; known from the plan");
    f("names", names, "of the classes; known from the plan");
    f.group("loss", loss, "terms of the loss");
  }
};

/// Metrics: dice and iou (means over the classes but the background that occur or were predicted),
/// dice_CLASS, loss. Sums: true positives, false positives and false negatives of each class, then
/// the loss and its count: exact whatever the batch size.
class SegmentTask : public Task {
 public:
  explicit SegmentTask(SegmentTaskOptions options) : options_(std::move(options)) {
    SERPENTINE_CHECK(options_.classes > 0, kSegmentTaskWho,
                     "classes must be given, or come from the data");
    sums_ = torch::zeros({3 * options_.classes + 2}, torch::kFloat64);
  }

  Loss loss(Model& model, const Batch& batch) override {
    auto* scaled = dynamic_cast<ScaledModel*>(&model);
    if (scaled == nullptr) {
      const auto logits = model.forward(batch).to(torch::kFloat32);
      return {segmentation_loss(logits, batch.target, options_.regions, options_.loss),
              batch.size()};
    }
    const auto outputs = scaled->scales(batch);
    const auto weights = scaled->scale_weights(outputs.size());
    double sum = 0;
    torch::Tensor total;
    for (size_t s = 0; s < outputs.size(); ++s) {
      if (weights[s] == 0) continue;
      const auto logits = outputs[s].to(torch::kFloat32);
      const auto part = weights[s] * segmentation_loss(logits, shrunk(batch.target, logits),
                                                       options_.regions, options_.loss);
      total = total.defined() ? total + part : part;
      sum += weights[s];
    }
    return {total / sum, batch.size()};
  }

  void evaluate(Model& model, const Batch& batch) override {
    const torch::NoGradGuard no_grad;
    const auto logits = model.forward(batch).to(torch::kFloat32);
    SERPENTINE_CHECK(logits.size(1) == options_.classes, kSegmentTaskWho, "the model has ",
                     logits.size(1), " output channels, the data ", options_.classes, " classes");
    const auto seen = batch.target.ge(0).unsqueeze(1);
    const auto truth =
        one_hot_target(batch.target, options_.classes, options_.regions).to(torch::kBool) & seen;
    const auto guess =
        (options_.regions
             ? logits.gt(0)
             : one_hot_target(logits.argmax(1), options_.classes, false).to(torch::kBool)) &
        seen;
    const auto count = [](const torch::Tensor& mask) {
      return mask.transpose(0, 1).flatten(1).sum(1, false, torch::kFloat64);
    };
    const auto loss = segmentation_loss(logits, batch.target, options_.regions, options_.loss);
    const auto tail = torch::tensor({loss.item<double>() * static_cast<double>(batch.size()),
                                     static_cast<double>(batch.size())},
                                    torch::kFloat64);
    const auto counts =
        torch::cat({count(truth & guess), count(guess & ~truth), count(truth & ~guess)});
    sums_ = sums_ + torch::cat({counts.to(torch::kCPU), tail});
  }

  std::map<std::string, double> metrics() override {
    const auto cpu = sums_.to(torch::kCPU).contiguous();
    const auto* sum = cpu.const_data_ptr<double>();
    std::map<std::string, double> all;
    double dice = 0, iou = 0, present = 0;
    for (int64_t k = options_.regions ? 0 : 1; k < options_.classes; ++k) {
      const double tp = sum[k], fp = sum[options_.classes + k], fn = sum[2 * options_.classes + k];
      if (tp + fp + fn == 0) continue;
      const double own = 2 * tp / (2 * tp + fp + fn);
      dice += own;
      iou += tp / (tp + fp + fn);
      present += 1;
      if (options_.classes > 2 || options_.regions) all["dice_" + name_of(k)] = own;
    }
    all["dice"] = present > 0 ? dice / present : 0;
    all["iou"] = present > 0 ? iou / present : 0;
    all["loss"] = sum[3 * options_.classes] / std::max(1.0, sum[3 * options_.classes + 1]);
    sums_ = torch::zeros_like(cpu);
    return all;
  }
  torch::Tensor sums() const override { return sums_; }
  void set_sums(const torch::Tensor& sums) override { sums_ = sums; }
  std::string monitored() const override { return "+dice"; }

 private:
  std::string name_of(int64_t k) const {
    const auto at = static_cast<size_t>(k);
    std::string name = at < options_.names.size() ? options_.names[at] : std::to_string(k);
    for (char& c : name)
      if (c == ' ' || c == '/' || c == ',') c = '_';
    return name;
  }

  /// The nearest label of each coarser pixel.
  static torch::Tensor shrunk(const torch::Tensor& target, const torch::Tensor& like) {
    auto small = target;
    for (int64_t axis = 1; axis < target.dim(); ++axis) {
      const int64_t from = small.size(axis), to = like.size(axis + 1);
      if (from == to) continue;
      const auto rows =
          torch::arange(to, target.options()).mul(2).add(1).mul(from).div(2 * to, "floor");
      small = small.index_select(axis, rows);
    }
    return small;
  }

  SegmentTaskOptions options_;
  torch::Tensor sums_;
};

}  // namespace

void add_segment_task(Registry<Task>& all) {
  all.add<SegmentTaskOptions>("segmentation", [](const SegmentTaskOptions& options) {
    return std::make_shared<SegmentTask>(options);
  });
}

}  // namespace serpentine
