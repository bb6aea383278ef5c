// The task of labelling pixels and voxels: its loss over the network's scales, overlaps as metrics.
#include <algorithm>
#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "segmentation/loss.h"
#include "segmentation/network.h"
#include "segmentation/segmentation.h"

namespace serpentine {
namespace {

constexpr const char* kSegmentTaskWho = "segmentation";

// the ROC curve of two classes is counted by the difference of their logits, in steps of 1/64
constexpr int64_t kOddsBins = 4096;
constexpr double kBinsOfOne = 64;

/// [2, kOddsBins]: pixels of the background and of the other class by their log odds.
torch::Tensor odds_counts(const torch::Tensor& logits, const torch::Tensor& target) {
  const auto odds = (logits.select(1, 1) - logits.select(1, 0)).nan_to_num();
  const auto bin =
      (odds * kBinsOfOne + kOddsBins / 2.0).floor().clamp(0, kOddsBins - 1).to(torch::kLong);
  std::vector<torch::Tensor> both;
  for (const int64_t label : {0, 1})
    both.push_back(bin.masked_select(target.eq(label)).bincount({}, kOddsBins));
  return torch::stack(both).to(torch::kFloat64);
}

/// The share of pairs in the right order, those of one bin counting half; NaN without pairs.
double area_of(const torch::Tensor& counts) {
  const auto below = counts[0].cumsum(0) - 0.5 * counts[0];
  return ((below * counts[1]).sum() / (counts[0].sum() * counts[1].sum())).item<double>();
}

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
/// dice_CLASS, loss; of two classes the area under the ROC curve of the pixels too (auc). Sums:
/// true positives, false positives and false negatives of each class, the loss and its count, the
/// counts of that curve: exact whatever the batch size.
class SegmentTask : public Task {
 public:
  explicit SegmentTask(SegmentTaskOptions options) : options_(std::move(options)) {
    SERPENTINE_CHECK(options_.classes > 0, kSegmentTaskWho,
                     "classes must be given, or come from the data");
    sums_ = torch::zeros({3 * options_.classes + 2 + (has_curve() ? 2 * kOddsBins : 0)},
                         torch::kFloat64);
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
    std::vector<torch::Tensor> all = {counts.to(torch::kCPU), tail};
    if (has_curve()) all.push_back(odds_counts(logits, batch.target).flatten().to(torch::kCPU));
    sums_ = sums_ + torch::cat(all);
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
    if (has_curve()) {
      const double area =
          area_of(cpu.narrow(0, 3 * options_.classes + 2, 2 * kOddsBins).view({2, kOddsBins}));
      if (std::isfinite(area)) all["auc"] = area;
    }
    all["loss"] = sum[3 * options_.classes] / std::max(1.0, sum[3 * options_.classes + 1]);
    sums_ = torch::zeros_like(cpu);
    return all;
  }
  torch::Tensor sums() const override { return sums_; }
  void set_sums(const torch::Tensor& sums) override { sums_ = sums; }
  std::string monitored() const override { return "+dice"; }

 private:
  bool has_curve() const { return options_.classes == 2 && !options_.regions; }

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
