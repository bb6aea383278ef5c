// The models over bags of a run, or of all folds of a cross-validation, applied to one slide.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <torch/types.h>

#include "pathology/bag_model.h"
#include "pathology/slide_prediction.h"

namespace serpentine {

class BagEnsemble {
 public:
  /// `run`: a run folder, or one with fold_0, fold_1, … Throws with what is missing.
  BagEnsemble(const std::string& run, const std::string& device);

  /// The features that it was trained on, "" when the run does not say.
  const std::string& features_folder() const { return features_; }
  /// Throws unless the models read features of this width.
  void check_width(int64_t width, const std::string& encoder) const;
  /// Probabilities and attention, averaged over the models. [T, F] and int64 [T, 2].
  SlidePrediction predict(const torch::Tensor& features, const torch::Tensor& coords);

 private:
  struct Member {
    std::shared_ptr<BagModel> model;
    double temperature = 1;
    torch::Tensor mean, scale;  // [F] of a standardisation, or undefined
  };
  void add(const std::string& folder);

  std::string run_, type_, features_;
  std::vector<std::string> classes_;
  bool survival_ = false, calibrated_ = true;
  int64_t width_ = 0;
  torch::Device device_;
  std::vector<Member> members_;
};

}  // namespace serpentine
