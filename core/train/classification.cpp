#include "core/train/classification.h"

#include <cmath>
#include <utility>

#include <torch/torch.h>

#include "core/check.h"
#include "core/train/class_metrics.h"

namespace serpentine {
namespace {

constexpr const char* kWho = "classification";
constexpr int64_t kBins = 15, kBeyond = kBins * 3 + 2;  // sums beside the confusion matrix

}  // namespace

void ClassificationTaskOptions::fields(Fields& f) {
  f("classes", classes, "number of classes; 0: as many as the model's output has", {.least = 0});
  f("label_smoothing", label_smoothing, "part of the target spread over all classes",
    {.least = 0, .most = 0.99});
  f("class_weights", class_weights,
    "weight of each class in the training loss, which is then the mean over examples of weight "
    "times loss; empty: all alike",
    {.least = 0});
  f("monitor", monitor, "the metric that picks the best weights",
    {.choices = {"accuracy", "balanced_accuracy", "auc", "loss"}});
  f("auc", auc, "whether to keep the scores of an evaluation for the area under the ROC curve");
}

ClassificationTask::ClassificationTask(ClassificationTaskOptions options)
    : options_(std::move(options)) {
  const auto weights = static_cast<int64_t>(options_.class_weights.size());
  SERPENTINE_CHECK(weights == 0 || options_.classes == 0 || weights == options_.classes, kWho,
                   "class_weights must hold one number a class, ", options_.classes, ", got ",
                   weights);
  SERPENTINE_CHECK(options_.auc || options_.monitor != "auc", kWho, "monitor: auc needs auc: true");
  reset(options_.classes);
}

void ClassificationTask::reset(int64_t classes) {
  classes_ = classes;
  sums_ = torch::zeros({classes > 0 ? classes * classes + kBeyond : 0}, torch::kFloat64);
  scores_.clear();
}

Loss ClassificationTask::loss(Model& model, const Batch& batch) {
  return loss_of(model.forward(batch), batch);
}

Loss ClassificationTask::loss_of(const torch::Tensor& logits, const Batch& batch) const {
  SERPENTINE_CHECK(
      logits.dim() == 2 && (options_.classes == 0 || logits.size(1) == options_.classes), kWho,
      "the model's output must be [B, ",
      options_.classes > 0 ? std::to_string(options_.classes) : "classes", "], got ",
      logits.sizes());
  const int64_t classes = logits.size(1);
  const auto log_chance = torch::log_softmax(logits.to(torch::kFloat32), 1);
  torch::Tensor share, known;
  if (batch.target.dim() == 1) {
    known = batch.target.ge(0);
    share =
        torch::one_hot(batch.target.clamp_min(0), classes).to(torch::kFloat32) * known.unsqueeze(1);
  } else {
    SERPENTINE_CHECK(batch.target.size(1) == classes, kWho, "shares of ", classes,
                     " classes are needed as targets, got ", batch.target.sizes());
    share = batch.target.to(torch::kFloat32);
    known = share.sum(1).gt(0);
  }
  const double smooth = options_.label_smoothing;
  if (smooth > 0) {
    share = share * (1 - smooth) +
            share.sum(1, /*keepdim=*/true) * (smooth / static_cast<double>(classes));
  }
  if (!options_.class_weights.empty()) {
    SERPENTINE_CHECK(static_cast<int64_t>(options_.class_weights.size()) == classes, kWho,
                     "class_weights must hold one number a class, ", classes, ", got ",
                     options_.class_weights.size());
    share = share * torch::tensor(options_.class_weights, share.options());
  }
  auto each = -(share * log_chance).sum(1);
  if (const auto weight = batch.get("weight"); weight.defined()) each = each * weight;
  // counted on the device: the number of known ones would make a GPU wait in every step
  return {each.sum() / known.sum().clamp_min(1), batch.target.size(0)};
}

void ClassificationTask::evaluate(Model& model, const Batch& batch) {
  const torch::NoGradGuard no_grad;
  const auto chance = torch::softmax(model.forward(batch).to(torch::kFloat32), 1);
  add(chance, batch.target.dim() == 1 ? batch.target : batch.target.argmax(1));
}

void ClassificationTask::add(const torch::Tensor& probabilities, const torch::Tensor& targets) {
  const auto known = targets.ge(0).nonzero().squeeze(1);
  const auto chance = probabilities.index_select(0, known);
  const auto target = targets.index_select(0, known);
  const int64_t classes = chance.size(1);
  if (classes_ == 0) reset(classes);
  SERPENTINE_CHECK(classes_ == classes, kWho, "the model's output must be [B, ", classes_,
                   "], got ", probabilities.sizes());
  if (target.size(0) == 0) return;
  SERPENTINE_CHECK(target.max().item<int64_t>() < classes, kWho, "a target is class ",
                   target.max().item<int64_t>(), ", but the model knows ", classes,
                   " classes (they count from 0)");
  const auto own = chance.gather(1, target.unsqueeze(1));
  const auto top5 = chance.gt(own).sum(1).lt(5).sum().to(torch::kFloat64).reshape({1});
  const auto loss = -own.clamp_min(1e-30).to(torch::kFloat64).log().sum().reshape({1});
  sums_ = sums_.to(chance.device()) +
          torch::cat({confusion_matrix(chance, target).flatten(),
                      calibration_bins(chance, target, kBins).flatten(), top5, loss});
  if (options_.auc) {
    scores_.push_back(
        torch::cat({chance, target.unsqueeze(1).to(chance.scalar_type())}, 1).to(torch::kCPU));
  }
}

torch::Tensor ClassificationTask::confusion() const {
  return sums_.to(torch::kCPU).narrow(0, 0, classes_ * classes_).view({classes_, classes_});
}

std::map<std::string, double> ClassificationTask::metrics() {
  const auto all = sums_.to(torch::kCPU);
  const auto table = confusion();
  const double total = table.sum().item<double>();
  const auto bins = all.narrow(0, classes_ * classes_, kBins * 3).view({kBins, 3});
  std::map<std::string, double> out = {{"accuracy", table.diagonal().sum().item<double>() / total},
                                       {"balanced_accuracy", balanced_accuracy(table)},
                                       {"ece", calibration_error(bins)},
                                       {"loss", all[-1].item<double>() / total}};
  if (classes_ > 5) out["top5"] = all[-2].item<double>() / total;
  if (options_.auc) {
    const auto scores = rows();
    out["auc"] = scores.defined()
                     ? torch::nanmean(roc_auc_of_classes(scores.slice(1, 0, -1),
                                                         scores.select(1, -1).to(torch::kLong)))
                           .item<double>()
                     : std::nan("");
  }
  reset(options_.classes > 0 ? options_.classes : classes_);
  return out;
}

torch::Tensor ClassificationTask::sums() const { return sums_; }

void ClassificationTask::set_sums(const torch::Tensor& sums) {
  sums_ = sums;
  classes_ = static_cast<int64_t>(
      std::llround(std::sqrt(static_cast<double>(std::max<int64_t>(sums.numel() - kBeyond, 0)))));
}

torch::Tensor ClassificationTask::rows() const {
  return scores_.empty() ? torch::Tensor() : torch::cat(scores_).to(torch::kFloat64);
}

void ClassificationTask::set_rows(const torch::Tensor& rows) {
  scores_.clear();
  if (rows.defined()) scores_.push_back(rows);
}

std::string ClassificationTask::monitored() const {
  return (options_.monitor == "loss" ? "" : "+") + options_.monitor;
}

void add_classification_task(Registry<Task>& all) {
  all.add<ClassificationTaskOptions>("classification",
                                     [](const ClassificationTaskOptions& options) {
                                       return std::make_shared<ClassificationTask>(options);
                                     });
}

}  // namespace serpentine
