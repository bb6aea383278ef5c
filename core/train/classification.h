// The task of classification: of images, bags, series or clouds, whatever the model reads.
//
// A batch's target is int64 [B] (the class; negative: unknown, left out) or float32 [B, K] (shares
// of each class, as mixing and distillation make them). Its named tensor `weight` [B], if there,
// weighs examples in the training loss.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/registry.h"
#include "core/train/task.h"

namespace serpentine {

struct ClassificationTaskOptions {
  int64_t classes = 0;
  double label_smoothing = 0;
  std::vector<double> class_weights;
  std::string monitor = "accuracy";
  bool auc = true;
  void fields(Fields& f);
};

/// Metrics: accuracy, top5 (beyond five classes), balanced_accuracy (mean recall over the classes
/// that occur), auc (mean over the classes of one against the rest), ece (calibration error of 15
/// bins), loss (without smoothing or weights). All exact for any batch size and number of ranks.
class ClassificationTask : public Task {
 public:
  explicit ClassificationTask(ClassificationTaskOptions options);

  Loss loss(Model& model, const Batch& batch) override;
  void evaluate(Model& model, const Batch& batch) override;
  std::map<std::string, double> metrics() override;
  torch::Tensor sums() const override;
  void set_sums(const torch::Tensor& sums) override;
  torch::Tensor rows() const override;
  void set_rows(const torch::Tensor& rows) override;
  std::string monitored() const override;

  /// The loss of logits [B, K] that were computed elsewhere: its mean over the examples.
  Loss loss_of(const torch::Tensor& logits, const Batch& batch) const;
  /// Adds probabilities [B, K] of examples to the sums.
  void add(const torch::Tensor& probabilities, const torch::Tensor& targets);
  /// The confusion matrix so far, float64 [K, K] (row: the true class).
  torch::Tensor confusion() const;

 private:
  void reset(int64_t classes);

  ClassificationTaskOptions options_;
  int64_t classes_ = 0;                // of the sums; 0: not known before the first batch
  torch::Tensor sums_;                 // float64 [K K + 15 3 + 2]: confusion, bins, top-5, loss
  std::vector<torch::Tensor> scores_;  // float32 [B, K + 1]: probabilities, then the target
};

void add_classification_task(Registry<Task>& all);

}  // namespace serpentine
