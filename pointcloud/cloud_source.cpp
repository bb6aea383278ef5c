#include "pointcloud/cloud_source.h"

#include <algorithm>
#include <map>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/data/loader.h"
#include "pointcloud/cloud_dataset.h"
#include "pointcloud/pointcloud.h"
#include "pointcloud/sampling.h"

namespace serpentine {
namespace {

class CloudSource : public DataSource {
 public:
  explicit CloudSource(const CloudSourceOptions& options) : options_(options) {
    SERPENTINE_CHECK(options.fold < options.folds, options.path,
                     "fold must be below folds = ", options.folds, ", got ", options.fold);
    each_labelled_cloud(options.path, options.points, options.seed,
                        [&](const LabelledCloud& found) { add(found); });
    SERPENTINE_CHECK(!clouds_.empty(), options.path, "there are no clouds");
    number_classes();
    split();
    if (repeated_ > 0)
      notes_.push_back(std::to_string(repeated_) + " clouds have fewer than " +
                       std::to_string(options.points) + " points; theirs are repeated");
    if (dropped_ > 0)
      notes_.push_back(std::to_string(dropped_) + " points that are not finite were left out");
  }

  std::shared_ptr<const Dataset> part(Part which) const override {
    const auto& rows = which == Part::kTrain ? train_ : which == Part::kTest ? test_ : validation_;
    std::vector<torch::Tensor> points, features;
    std::vector<int64_t> targets;
    std::vector<std::string> names;
    for (const int64_t row : rows) {
      names.push_back(clouds_[row].name);
      points.push_back(clouds_[row].points);
      if (clouds_[row].features.defined()) features.push_back(clouds_[row].features);
      targets.push_back(clouds_[row].target);
    }
    return std::make_shared<CloudDataset>(
        points.empty() ? torch::empty({0, options_.points, 3}) : torch::stack(points),
        features.empty() ? torch::Tensor() : torch::stack(features),
        torch::tensor(targets, torch::kLong), std::move(names));
  }

  void fill_model(Config& model, const Config&) override {
    const std::string type = model.type();
    const auto channels = static_cast<int64_t>(options_.features.size());
    if (type != "point_mamba_masked")
      model.set_default("classes", static_cast<int64_t>(names_.size()));
    if (type == "pointnet2") model.set_default("in_channels", channels);
    if (type == "pcm_cls") model.set_default("in_channels", channels > 0 ? channels : 3);
  }

  nlohmann::json description() const override {
    return {{"kind", "clouds"},
            {"classes", names_},
            {"points", options_.points},
            {"normalize", options_.normalize},
            {"features", options_.features}};
  }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  struct Kept {
    torch::Tensor points, features;  // float32 [N, 3], [N, C]
    std::string name, category, split;
    int64_t target = 0;
  };

  void add(const LabelledCloud& found) {
    const PointCloud cloud = finite_points(found.cloud);
    SERPENTINE_CHECK(cloud.size() > 0, found.name,
                     "the cloud has no point with finite coordinates");
    dropped_ += found.cloud.size() - cloud.size();
    if (cloud.size() < options_.points) ++repeated_;
    const auto seed = options_.seed + static_cast<int64_t>(clouds_.size());
    const auto unit = options_.normalize == "sphere"
                          ? in_unit_sphere(cloud.points)
                          : (cloud.points - cloud.points.mean(0)).to(torch::kFloat);
    const bool farthest = options_.sampling == "farthest" && cloud.size() > options_.points;
    const auto rows = farthest ? farthest_points(unit.unsqueeze(0), options_.points)[0]
                               : choose_rows(cloud.size(), options_.points, seed);
    Kept kept{unit.index_select(0, rows), {}, found.name, found.category, found.split};
    std::vector<torch::Tensor> features;
    for (const auto& name : options_.features) {
      const CloudField* field = cloud.find(name);
      SERPENTINE_CHECK(field && field->values.dim() == 1, found.name, "there is no field '", name,
                       "'");
      features.push_back(field->values.to(torch::kFloat).index_select(0, rows));
    }
    if (!features.empty()) kept.features = torch::stack(features, 1);
    clouds_.push_back(std::move(kept));
  }

  void number_classes() {
    std::map<std::string, int64_t> numbers;
    for (const auto& cloud : clouds_) numbers[cloud.category] = 0;
    for (auto& [name, number] : numbers) {
      number = static_cast<int64_t>(names_.size());
      names_.push_back(name);
    }
    for (auto& cloud : clouds_) cloud.target = numbers[cloud.category];
  }

  // every class is cut alike, in an order that depends on the seed only
  void split() {
    for (int64_t target = 0; target < static_cast<int64_t>(names_.size()); ++target) {
      std::vector<int64_t> open, training;
      for (const int64_t row :
           permutation(static_cast<int64_t>(clouds_.size()), options_.seed, 0)) {
        if (clouds_[row].target != target) continue;
        if (clouds_[row].split == "test") {
          test_.push_back(row);
        } else if (clouds_[row].split == "train") {
          training.push_back(row);
        } else {
          open.push_back(row);
        }
      }
      for (size_t i = 0; i < open.size(); ++i) {
        const bool held = static_cast<int64_t>(i) % options_.folds == options_.fold;
        (held ? test_ : training).push_back(open[i]);
      }
      const auto count = static_cast<double>(training.size());
      const auto held = static_cast<size_t>(options_.validation * count);
      validation_.insert(validation_.end(), training.begin(), training.begin() + held);
      auto end = training.end();
      if (options_.limit > 0)
        end = training.begin() +
              std::min<int64_t>(static_cast<int64_t>(held) + options_.limit, training.size());
      train_.insert(train_.end(), training.begin() + held, end);
    }
    for (auto* rows : {&train_, &validation_, &test_}) std::sort(rows->begin(), rows->end());
  }

  CloudSourceOptions options_;
  std::vector<Kept> clouds_;
  std::vector<std::string> names_, notes_;
  std::vector<int64_t> train_, validation_, test_;
  int64_t repeated_ = 0, dropped_ = 0;
};

}  // namespace

CloudDataset::CloudDataset(torch::Tensor points, torch::Tensor features, torch::Tensor targets,
                           std::vector<std::string> names)
    : points_(std::move(points)),
      features_(std::move(features)),
      targets_(std::move(targets)),
      names_(std::move(names)) {}

Batch CloudDataset::get(int64_t index) const {
  if (index < 0 || index >= size()) throw std::out_of_range("CloudDataset");
  Batch batch;
  batch.input = points_[index];
  batch.target = targets_[index];
  if (features_.defined()) batch.named["features"] = features_[index];
  return batch;
}

Batch CloudDataset::get_batch(at::ArrayRef<int64_t> indices) const {
  const auto rows = torch::tensor(indices, torch::kLong);
  Batch batch;
  batch.input = points_.index_select(0, rows);
  batch.target = targets_.index_select(0, rows);
  if (features_.defined()) batch.named["features"] = features_.index_select(0, rows);
  return batch;
}

void CloudSourceOptions::fields(Fields& f) {
  f("path", path, "a folder of class folders, NAME.index.csv, .h5, or a .txt that lists .h5 files",
    {.required = true});
  f("points", points, "points of every cloud", {.least = 1});
  f("sampling", sampling, "which points, where a cloud has more",
    {.choices = {"random", "farthest"}});
  f("normalize", normalize, "sphere: centre and size as one; centre: only the centre",
    {.choices = {"sphere", "centre"}});
  f("features", features, "fields of the files that models read beside the places");
  f("validation", validation, "part of each class's training clouds held out for validation",
    {.least = 0, .most = 0.9});
  f("folds", folds, "parts that a set without test clouds is cut into", {.least = 2});
  f("fold", fold, "the part that is the test set then", {.least = 0});
  f("seed", seed, "of the choice of points and parts");
  f("limit", limit, "training clouds a class at most; 0: all", {.least = 0});
}

at::Tensor in_unit_sphere(const at::Tensor& points) {
  const at::Tensor wide = points.to(at::kDouble), centred = wide - wide.mean(0);
  const auto radius = centred.square().sum(1).max().sqrt().item<double>();
  return (radius > 0 ? centred / radius : centred).to(at::kFloat);
}

at::Tensor choose_rows(int64_t size, int64_t count, int64_t seed) {
  if (size <= count) return at::arange(count, at::kLong).remainder(size);
  auto order = permutation(size, seed, 0);
  order.resize(count);
  return at::tensor(order, at::kLong);
}

void add_cloud_source(Registry<DataSource>& all) {
  all.add<CloudSourceOptions>("clouds", [](const CloudSourceOptions& options) {
    return std::make_shared<CloudSource>(options);
  });
}

}  // namespace serpentine
