// Classes of whole clouds: cross entropy with augmentation in training, votes in evaluation.
#pragma once

#include "core/train/task.h"
#include "pointcloud/augment.h"

namespace serpentine {

struct CloudTaskOptions {
  int64_t classes = 0;
  double label_smoothing = 0;
  double mix = 0;     // probability that a batch's clouds are mixed in pairs
  int64_t votes = 1;  // evaluations of a cloud whose probabilities are averaged
  AugmentOptions augment;
  AugmentOptions vote;

  void fields(Fields& f);
};

/// Metrics: accuracy (overall), mean_accuracy (mean over the classes that occur), loss. The sums
/// are the confusion matrix [classes, classes] (row: truth), then the loss: exact whatever the
/// batch size.
class CloudTask : public Task {
 public:
  explicit CloudTask(CloudTaskOptions options);

  Loss loss(Model& model, const Batch& batch) override;
  void evaluate(Model& model, const Batch& batch) override {
    add(vote(model, batch), batch.target);
  }
  std::map<std::string, double> metrics() override;
  torch::Tensor sums() const override { return sums_; }
  void set_sums(const torch::Tensor& sums) override { sums_ = sums; }
  std::string monitored() const override { return "+accuracy"; }

  /// Probabilities, the mean over all votes: [B, classes], without a gradient.
  torch::Tensor vote(Model& model, const Batch& batch) const;
  /// Adds what was voted to the sums. chance: [B, classes]; target: int64 [B].
  void add(const torch::Tensor& chance, const torch::Tensor& target);

 private:
  torch::Tensor cross_entropy(const torch::Tensor& output, const torch::Tensor& target) const;

  CloudTaskOptions options_;
  torch::Tensor sums_;  // float64
};

}  // namespace serpentine
