// The data section of a run over images: what every kind of source has in common.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/data/source.h"
#include "vision/augment.h"
#include "vision/image_dataset.h"
#include "vision/image_store.h"

namespace serpentine {

struct ImageDataOptions {
  std::string path;
  std::vector<int64_t> image_size;
  int64_t channels = 0;
  std::string normalize = "auto";
  std::vector<double> mean, deviation;
  double crop_ratio = 0;
  std::string interpolation = "bilinear";
  double validation = 0.1, test = 0.1;
  std::string balance = "none";
  int64_t seed = 0, limit = 0;
  ImageAugmentOptions augment;
  void fields(Fields& f);
};

/// Divides labelled images into parts, shows them, and tells the model its sizes.
class ImageSource : public DataSource {
 public:
  ImageSource(ImageDataOptions options, LabelledImages images);

  std::shared_ptr<const Dataset> part(Part which) const override;
  void fill_model(Config& model, const Config& task) override;
  nlohmann::json description() const override;
  std::vector<std::string> notes() const override;

  const std::vector<std::string>& classes() const { return images_.classes; }

 private:
  void choose_view();
  void choose_numbers();
  void divide();

  ImageDataOptions options_;
  LabelledImages images_;
  std::shared_ptr<ImageFaults> faults_ = std::make_shared<ImageFaults>();
  ImageView view_;
  std::vector<int64_t> train_, validation_, test_;  // rows of the store
  std::vector<double> class_weights_;
};

/// Numbers of examples into parts, the classes in equal shares: `share` of each class, rounded, is
/// taken from `rows` and returned; the choice is a function of the seed.
std::vector<int64_t> take_stratified(std::vector<int64_t>& rows, const std::vector<int64_t>& labels,
                                     double share, int64_t seed);

/// How a run's data.json describes its pictures, read back for prediction.
struct ImageSchema {
  std::vector<std::string> classes;
  ImageView view;
  nlohmann::json to_json() const;
  static ImageSchema from_json(const nlohmann::json& json);
};

}  // namespace serpentine
