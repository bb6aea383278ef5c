#include "vision/image_source.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/data/loader.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

const std::vector<double> kImageNetMean = {0.485, 0.456, 0.406};
const std::vector<double> kImageNetDeviation = {0.229, 0.224, 0.225};

int64_t rounded(double value) { return std::llround(value); }

}  // namespace

void ImageDataOptions::fields(Fields& f) {
  f("path", path, "where the pictures are", {.required = true});
  f("image_size", image_size,
    "what the model sees, [side] or [height, width]; empty: packed pictures as they are, files "
    "224",
    {.least = 1, .most = 16384});
  f("channels", channels, "1 (grey) or 3 (RGB); 0: packed pictures as they are, files 3",
    {.least = 0, .most = 3});
  f("normalize", normalize,
    "numbers to subtract and divide by: imagenet's, half (0.5), data (of the training part), none; "
    "auto: data where pictures are packed, else imagenet",
    {.choices = {"auto", "imagenet", "half", "data", "none"}});
  f("mean", mean, "those to subtract, of values in [0, 1], one a channel; empty: by `normalize`");
  f("std", deviation, "those to divide by", {.least = 1e-6});
  f("crop_ratio", crop_ratio,
    "side of the evaluation crop over the shorter side of the picture; 0: packed 1, files 0.875",
    {.least = 0, .most = 1});
  f("interpolation", interpolation, "how pictures are scaled",
    {.choices = {"bilinear", "bicubic"}});
  f("validation", validation, "share of the training pictures for validation, where no part is",
    {.least = 0, .most = 0.9});
  f("test", test, "share of all pictures for the test, where the data know no parts",
    {.least = 0, .most = 0.9});
  f("balance", balance,
    "weight of an example in the training loss by its class's size: its inverse, or the root of it",
    {.choices = {"none", "inverse", "sqrt"}});
  f("seed", seed, "of the division into parts");
  f("limit", limit, "training pictures at most, drawn by the seed; 0: all", {.least = 0});
  f.group("augment", augment, "what training varies");
}

std::vector<int64_t> take_stratified(std::vector<int64_t>& rows, const std::vector<int64_t>& labels,
                                     double share, int64_t seed) {
  std::map<int64_t, std::vector<int64_t>> of_class;
  for (const int64_t row : rows) of_class[labels[static_cast<size_t>(row)]].push_back(row);
  std::vector<int64_t> taken;
  for (auto& [label, members] : of_class) {
    const auto size = static_cast<int64_t>(members.size());
    const int64_t wanted = std::min(rounded(static_cast<double>(size) * share), size - 1);
    const auto order = permutation(size, seed, label + 1);
    for (int64_t i = 0; i < wanted; ++i)
      taken.push_back(members[static_cast<size_t>(order[static_cast<size_t>(i)])]);
  }
  std::sort(taken.begin(), taken.end());
  std::vector<int64_t> rest;
  std::sort(rows.begin(), rows.end());
  std::set_difference(rows.begin(), rows.end(), taken.begin(), taken.end(),
                      std::back_inserter(rest));
  rows = std::move(rest);
  return taken;
}

ImageSource::ImageSource(ImageDataOptions options, LabelledImages images)
    : options_(std::move(options)), images_(std::move(images)) {
  options_.augment.check();
  SERPENTINE_CHECK(images_.store->size() > 0, options_.path, "there are no pictures");
  SERPENTINE_CHECK(images_.classes.size() >= 2, options_.path,
                   "pictures of at least two classes are needed, found ",
                   images_.classes.empty() ? "none" : "only '" + images_.classes.front() + "'");
  choose_view();
  divide();
  choose_numbers();
}

void ImageSource::choose_view() {
  const auto shape = images_.store->shape();
  const auto& size = options_.image_size;
  SERPENTINE_CHECK(size.size() <= 2, options_.path,
                   "image_size must be [side] or [height, width], got ", size.size(), " numbers");
  view_.height = !size.empty() ? size.front() : !shape.empty() ? shape[0] : 224;
  view_.width = !size.empty() ? size.back() : !shape.empty() ? shape[1] : 224;
  view_.channels = options_.channels > 0 ? options_.channels : !shape.empty() ? shape[2] : 3;
  SERPENTINE_CHECK(view_.channels != 2, options_.path, "channels must be 1 or 3, got 2");
  view_.crop_ratio = options_.crop_ratio > 0 ? options_.crop_ratio : shape.empty() ? 0.875 : 1;
  view_.bicubic = options_.interpolation == "bicubic";
}

void ImageSource::divide() {
  std::vector<int64_t> unsaid;
  for (int64_t row = 0; row < images_.store->size(); ++row) {
    const std::string& split = images_.splits[static_cast<size_t>(row)];
    (split == "train"        ? train_
     : split == "validation" ? validation_
     : split == "test"       ? test_
                             : unsaid)
        .push_back(row);
  }
  const bool says = !train_.empty();
  if (!says) {
    train_ = unsaid;
    if (test_.empty())
      test_ = take_stratified(train_, images_.labels, options_.test, options_.seed);
  } else if (!unsaid.empty()) {
    images_.notes.push_back(std::to_string(unsaid.size()) +
                            " pictures belong to no part and are left out");
  }
  if (validation_.empty()) {
    // of all pictures the share is wanted, the test part has gone already
    const double share = says || options_.test >= 1 ? options_.validation
                                                    : options_.validation / (1 - options_.test);
    validation_ = take_stratified(train_, images_.labels, std::min(share, 1.0), options_.seed + 1);
  }
  if (options_.limit > 0 && static_cast<int64_t>(train_.size()) > options_.limit) {
    const double share = static_cast<double>(options_.limit) / static_cast<double>(train_.size());
    train_ = take_stratified(train_, images_.labels, share, options_.seed + 2);
  }
  std::vector<double> counts(images_.classes.size(), 0);
  for (const int64_t row : train_) {
    const int64_t label = images_.labels[static_cast<size_t>(row)];
    if (label >= 0) counts[static_cast<size_t>(label)] += 1;
  }
  double sum = 0;  // of the weights of all examples: their mean becomes 1
  for (size_t k = 0; k < counts.size(); ++k) {
    if (counts[k] == 0)
      images_.notes.push_back("class '" + images_.classes[k] + "' has no training picture");
    const double weight = counts[k] == 0               ? 0
                          : options_.balance == "sqrt" ? 1 / std::sqrt(counts[k])
                                                       : 1 / counts[k];
    class_weights_.push_back(weight);
    sum += weight * counts[k];
  }
  for (double& weight : class_weights_)
    weight *= static_cast<double>(train_.size()) / std::max(sum, 1e-12);
  if (options_.balance == "none") class_weights_.clear();
}

void ImageSource::choose_numbers() {
  const auto channels = static_cast<size_t>(view_.channels);
  std::string how = options_.normalize;
  if (how == "auto") how = images_.store->shape().empty() ? "imagenet" : "data";
  if (how == "data") {
    // at most 2,000 pictures: the third digit does not matter
    const auto order = permutation(static_cast<int64_t>(train_.size()), options_.seed, 0);
    auto sum = torch::zeros({2, view_.channels}, torch::kFloat64);
    double count = 0;
    for (size_t i = 0; i < std::min<size_t>(order.size(), 2000); ++i) {
      try {
        const auto row = train_[static_cast<size_t>(order[i])];
        const auto unit = to_unit(centre_view(images_.store->picture(row, view_.height), view_));
        const auto wide = unit.to(torch::kFloat64);
        sum += torch::stack({wide.mean({1, 2}), wide.square().mean({1, 2})});
        count += 1;
      } catch (const std::runtime_error&) {
        continue;  // reported when a batch asks for it
      }
    }
    const auto mean = sum[0] / count;
    const auto deviation = (sum[1] / count - mean.square()).clamp_min(1e-6).sqrt();
    for (int64_t c = 0; c < view_.channels; ++c) {
      view_.mean.push_back(std::round(mean[c].item<double>() * 1e4) / 1e4);
      view_.deviation.push_back(
          std::max(1e-3, std::round(deviation[c].item<double>() * 1e4) / 1e4));
    }
  } else if (how == "imagenet") {
    view_.mean = channels == 3 ? kImageNetMean : std::vector<double>{0.449};
    view_.deviation = channels == 3 ? kImageNetDeviation : std::vector<double>{0.226};
  } else {
    view_.mean.assign(channels, how == "half" ? 0.5 : 0);
    view_.deviation.assign(channels, how == "half" ? 0.5 : 1);
  }
  if (!options_.mean.empty()) view_.mean = options_.mean;
  if (!options_.deviation.empty()) view_.deviation = options_.deviation;
  SERPENTINE_CHECK(view_.mean.size() == channels && view_.deviation.size() == channels,
                   options_.path, "mean and std must hold ", channels, " numbers, got ",
                   view_.mean.size(), " and ", view_.deviation.size());
}

std::shared_ptr<const Dataset> ImageSource::part(Part which) const {
  ImageDataset::Parts parts;
  parts.store = images_.store;
  parts.faults = faults_;
  parts.rows = which == Part::kTrain ? train_ : which == Part::kTest ? test_ : validation_;
  for (const int64_t row : parts.rows)
    parts.labels.push_back(images_.labels[static_cast<size_t>(row)]);
  parts.classes = static_cast<int64_t>(images_.classes.size());
  parts.view = view_;
  if (which == Part::kTrain) {
    parts.class_weights = class_weights_;
    parts.augment = options_.augment;
  }
  return std::make_shared<ImageDataset>(std::move(parts));
}

void ImageSource::fill_model(Config& model, const Config& task) {
  if (task.has("type")) check_teacher(task, nlohmann::json::parse(description().dump()));
  Registry<Model> known{"model"};
  add_vision_models(known);
  const std::string type = model.type();
  const auto names = known.names();
  const bool ours = std::find(names.begin(), names.end(), type) != names.end();
  const auto keys = ours ? schema_of(known.fields(type))["properties"] : nlohmann::json::object();
  const auto give = [&](const char* key, const nlohmann::json& value) {
    if (keys.contains(key)) model.set_default(key, value);
  };
  model.set_default("classes", images_.classes.size());
  give("channels", view_.channels);
  give("image_size", std::vector<int64_t>{view_.height, view_.width});
}

nlohmann::json ImageSource::description() const {
  return ImageSchema{images_.classes, view_}.to_json();
}

std::vector<std::string> ImageSource::notes() const {
  std::vector<std::string> all = images_.notes;
  if (const std::string faults = faults_->note(); !faults.empty()) all.push_back(faults);
  return all;
}

nlohmann::json ImageSchema::to_json() const {
  return {{"kind", "images"},
          {"classes", classes},
          {"image_size", {view.height, view.width}},
          {"channels", view.channels},
          {"mean", view.mean},
          {"std", view.deviation},
          {"crop_ratio", view.crop_ratio},
          {"interpolation", view.bicubic ? "bicubic" : "bilinear"}};
}

ImageSchema ImageSchema::from_json(const nlohmann::json& json) {
  ImageSchema schema;
  TORCH_CHECK(json.value("kind", "") == "images",
              "data.json: the run was not trained on images (kind is '", json.value("kind", ""),
              "')");
  json.at("classes").get_to(schema.classes);
  schema.view.height = json.at("image_size").at(0);
  schema.view.width = json.at("image_size").at(1);
  json.at("channels").get_to(schema.view.channels);
  json.at("mean").get_to(schema.view.mean);
  json.at("std").get_to(schema.view.deviation);
  json.at("crop_ratio").get_to(schema.view.crop_ratio);
  schema.view.bicubic = json.at("interpolation") == "bicubic";
  return schema;
}

}  // namespace serpentine
