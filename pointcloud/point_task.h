// Classes of the points of a scene: cross entropy, and how classes overlap.
#pragma once

#include "core/train/task.h"
#include "pointcloud/augment.h"

namespace serpentine {

struct PointTaskOptions {
  double label_smoothing = 0;
  std::vector<double> class_weights;
  AugmentOptions augment;
  void fields(Fields& f);
};

/// Targets of -1 are left out. Metrics: accuracy (of points), mean_accuracy and miou (means over
/// the classes that occur), loss; exact whatever the batch size.
class PointTask : public Task {
 public:
  explicit PointTask(PointTaskOptions options);

  Loss loss(Model& model, const Batch& batch) override;
  void evaluate(Model& model, const Batch& batch) override;
  std::map<std::string, double> metrics() override;
  torch::Tensor sums() const override { return sums_; }
  void set_sums(const torch::Tensor& sums) override { sums_ = sums; }
  std::string monitored() const override { return "+miou"; }

 private:
  torch::Tensor scores(Model& model, const Batch& batch) const;  // [B N, K]
  PointTaskOptions options_;
  torch::Tensor sums_;  // float64 [K K + 2]: confusion (row: truth), loss, points; [2] before any
};

}  // namespace serpentine
