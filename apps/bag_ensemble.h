// The models over bags of a run, or of all folds of a cross-validation, applied to one slide.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <torch/types.h>
#include <nlohmann/json.hpp>

#include "pathology/bag_model.h"
#include "pathology/slide_prediction.h"

namespace serpentine {

class BagEnsemble {
 public:
  /// `run`: a run folder, or one with fold_0, fold_1, …, of which those that are finished count.
  /// Throws with what is missing. `heat`: "attention"; "tile", what the model says of each tile
  /// alone; "auto", attention where there is some, but "tile" for survival.
  BagEnsemble(const std::string& run, const std::string& device, std::string heat = "auto");

  /// Which folds are not finished, as a sentence; "" when all are.
  const std::string& note() const { return note_; }
  /// Run, model, and the weights of every member by the checksum of their tensors.
  const nlohmann::json& identity() const { return identity_; }
  /// The features that it was trained on, "" when the run does not say.
  const std::string& features_folder() const { return features_; }
  /// Throws unless the models read features of this width.
  void check_width(int64_t width, const std::string& encoder) const;
  /// Probabilities and scores of tiles, averaged over the models. [T, F] and int64 [T, 2].
  SlidePrediction predict(const torch::Tensor& features, const torch::Tensor& coords);

 private:
  struct Member {
    std::shared_ptr<BagModel> model;
    double temperature = 1;
    torch::Tensor mean, scale;  // [F] of a standardisation, or undefined
  };
  std::vector<std::string> finished_folds();
  void add(const std::string& folder);
  /// Scores of tiles and what they mean.
  void draw_heat(const std::vector<BagOutput>& said, SlidePrediction& prediction) const;

  std::string run_, heat_, type_, features_, note_;
  nlohmann::json identity_;
  std::vector<std::string> classes_;
  bool survival_ = false, calibrated_ = true;
  int64_t width_ = 0;
  torch::Device device_;
  std::vector<Member> members_;
};

}  // namespace serpentine
