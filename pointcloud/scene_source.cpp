// The data section of a run over scenes whose points have classes: squares cut out of large files.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/data/random.h"
#include "pointcloud/cloud.h"
#include "pointcloud/pointcloud.h"

namespace serpentine {
namespace {

constexpr int64_t kNoClass = -1;

struct SceneSourceOptions {
  std::vector<std::string> train, test;
  std::string label = "classification";
  std::vector<int64_t> values;
  std::vector<std::string> names;
  double block = 20, validation = 0.2;
  int64_t points = 4096, crops = 256, seed = 0;

  void fields(Fields& f) {
    f("train", train, "files of scenes to learn from", {.required = true});
    f("test", test, "files of scenes to be judged by");
    f("label", label, "the field that holds a point's class");
    f("values", values,
      "values of that field which are classes, in the model's sequence; other "
      "points are seen but not learnt; empty: all that the training scenes have");
    f("names", names, "of the classes; empty: their values");
    f("block", block, "side of the square that a model sees, in the unit of the points",
      {.least = 1e-9});
    f("validation", validation, "part of the training scenes' blocks held out for validation",
      {.least = 0, .most = 0.9});
    f("points", points, "points of each square", {.least = 1});
    f("crops", crops, "squares an epoch, around random points", {.least = 1});
    f("seed", seed, "of the held-out blocks and the choice of points in them");
  }
};

using SceneCell = std::pair<int64_t, int64_t>;

/// Points sorted by the block they lie in.
struct LabelledScene {
  std::vector<double> places;    // x y z of each
  std::vector<int64_t> classes;  // kNoClass: none
  struct Range {
    int64_t first = 0, count = 0;
    bool held = false;  // out for validation
  };
  std::map<SceneCell, Range> blocks;
  std::vector<int64_t> learnt;  // points with a class in blocks that are not held out
  double least_x = 0, least_y = 0;
};

/// A square's points, `count` of them: all again from the first where there are too few.
Batch chosen_points(const LabelledScene& scene, std::vector<int64_t> rows, int64_t count,
                    Random& random) {
  const auto found = static_cast<int64_t>(rows.size());
  for (int64_t i = 0; i < std::min(count, found); ++i)
    std::swap(rows[static_cast<size_t>(i)], rows[static_cast<size_t>(i + random.below(found - i))]);
  double least[3] = {INFINITY, INFINITY, INFINITY};
  for (int64_t i = 0; i < std::min(count, found); ++i)
    for (size_t axis = 0; axis < 3; ++axis)
      least[axis] = std::min(
          least[axis], scene.places[3 * static_cast<size_t>(rows[static_cast<size_t>(i)]) + axis]);
  Batch batch;
  batch.input = torch::empty({count, 3});
  batch.target = torch::empty({count}, torch::kLong);
  auto* place = batch.input.data_ptr<float>();
  auto* target = batch.target.data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) {
    const auto row = static_cast<size_t>(rows[static_cast<size_t>(i % found)]);
    for (size_t axis = 0; axis < 3; ++axis)
      place[3 * i + static_cast<int64_t>(axis)] =
          static_cast<float>(scene.places[3 * row + axis] - least[axis]);
    target[i] = scene.classes[row];
  }
  return batch;
}

/// Squares around random points of the training blocks: others in every epoch.
class SceneSquares : public Dataset {
 public:
  SceneSquares(const std::vector<LabelledScene>& scenes, const SceneSourceOptions& options)
      : scenes_(scenes), options_(options) {
    for (const auto& scene : scenes) all_ += static_cast<int64_t>(scene.learnt.size());
  }
  int64_t size() const override { return all_ > 0 ? options_.crops : 0; }
  Batch get(int64_t index) const override {
    return square(index, Random(options_.seed, 0, {index}));
  }
  Batch draw(at::ArrayRef<int64_t> indices, const Draw& how) const override {
    std::vector<torch::Tensor> input, target;
    for (size_t i = 0; i < indices.size(); ++i) {
      const int64_t copy = how.copies.empty() ? 0 : how.copies[i];
      const Batch one = square(indices[i], Random(how.seed, how.epoch, {indices[i], copy}));
      input.push_back(one.input);
      target.push_back(one.target);
    }
    Batch batch;
    batch.input = torch::stack(input);
    batch.target = torch::stack(target);
    return batch;
  }

 private:
  Batch square(int64_t index, Random random) const {
    if (index < 0 || index >= size()) throw std::out_of_range("SceneSquares");
    int64_t which = random.below(all_);
    size_t at = 0;
    for (; which >= static_cast<int64_t>(scenes_[at].learnt.size()); ++at)
      which -= static_cast<int64_t>(scenes_[at].learnt.size());
    const auto& scene = scenes_[at];
    const auto middle = static_cast<size_t>(scene.learnt[static_cast<size_t>(which)]);
    const double x = scene.places[3 * middle], y = scene.places[3 * middle + 1];
    return chosen_points(scene, rows_around(scene, x, y), options_.points, random);
  }

  std::vector<int64_t> rows_around(const LabelledScene& scene, double x, double y) const {
    const double half = options_.block / 2;
    const auto cell = [&](double value, double least) {
      return static_cast<int64_t>(std::floor((value - least) / options_.block));
    };
    std::vector<int64_t> rows;
    for (int64_t i = cell(x - half, scene.least_x); i <= cell(x + half, scene.least_x); ++i) {
      for (int64_t j = cell(y - half, scene.least_y); j <= cell(y + half, scene.least_y); ++j) {
        const auto block = scene.blocks.find({i, j});
        if (block == scene.blocks.end() || block->second.held) continue;
        const int64_t first = block->second.first;
        for (int64_t row = first; row < first + block->second.count; ++row) {
          const double* place = scene.places.data() + 3 * row;
          if (std::abs(place[0] - x) <= half && std::abs(place[1] - y) <= half) rows.push_back(row);
        }
      }
    }
    return rows;
  }

  const std::vector<LabelledScene>& scenes_;
  SceneSourceOptions options_;
  int64_t all_ = 0;
};

/// The blocks themselves, each always with the same points.
class SceneBlockSet : public Dataset {
 public:
  SceneBlockSet(const std::vector<LabelledScene>& scenes, bool held,
                const SceneSourceOptions& options)
      : options_(options) {
    for (const auto& scene : scenes)
      for (const auto& [cell, block] : scene.blocks)
        if (block.held == held) blocks_.push_back({&scene, block.first, block.count});
  }
  int64_t size() const override { return static_cast<int64_t>(blocks_.size()); }
  Batch get(int64_t index) const override {
    if (index < 0 || index >= size()) throw std::out_of_range("SceneBlockSet");
    const auto& block = blocks_[static_cast<size_t>(index)];
    std::vector<int64_t> rows(static_cast<size_t>(block.count));
    for (int64_t i = 0; i < block.count; ++i) rows[static_cast<size_t>(i)] = block.first + i;
    Random random(options_.seed, 0, {index});
    return chosen_points(*block.scene, std::move(rows), options_.points, random);
  }

 private:
  struct Block {
    const LabelledScene* scene;
    int64_t first, count;
  };
  SceneSourceOptions options_;
  std::vector<Block> blocks_;
};

class SceneSource : public DataSource {
 public:
  explicit SceneSource(const SceneSourceOptions& options) : options_(options) {
    std::vector<Read> train, test;
    for (const auto& path : options.train) train.push_back(read(path));
    for (const auto& path : options.test) test.push_back(read(path));
    SERPENTINE_CHECK(!train.empty(), "data.train", "there must be a file");
    choose_classes(train);
    for (const auto& one : train) train_.push_back(sorted(one, options.validation));
    for (const auto& one : test) test_.push_back(sorted(one, 0));
    count_classes();
  }

  std::shared_ptr<const Dataset> part(Part which) const override {
    if (which == Part::kTrain) return std::make_shared<SceneSquares>(train_, options_);
    if (which == Part::kValidation) return std::make_shared<SceneBlockSet>(train_, true, options_);
    return std::make_shared<SceneBlockSet>(test_, false, options_);
  }
  void fill_model(Config& model, const Config&) override {
    model.set_default("classes", static_cast<int64_t>(options_.values.size()));
  }
  nlohmann::json description() const override {
    return {{"kind", "scenes"},          {"classes", options_.names}, {"label", options_.label},
            {"values", options_.values}, {"block", options_.block},   {"points", options_.points}};
  }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  struct Read {
    std::string path;
    torch::Tensor places, labels;  // float64 [N, 3], int64 [N]
  };

  Read read(const std::string& path) {
    const PointCloud whole = read_cloud(path), cloud = finite_points(whole);
    if (cloud.size() < whole.size())
      notes_.push_back(path + ": " + std::to_string(whole.size() - cloud.size()) +
                       " points that are not finite were left out");
    SERPENTINE_CHECK(cloud.size() > 0, path, "there is no point");
    const CloudField* field = cloud.find(options_.label);
    std::string known;
    for (const auto& one : cloud.fields) known += (known.empty() ? "" : ", ") + one.name;
    SERPENTINE_CHECK(field != nullptr && field->values.dim() == 1, path, "there is no field '",
                     options_.label, "' (data.label); the file has ",
                     known.empty() ? "none" : known);
    return {path, cloud.points.contiguous(), field->values.to(torch::kLong).contiguous()};
  }

  void choose_classes(const std::vector<Read>& train) {
    if (options_.values.empty()) {
      std::set<int64_t> found;
      for (const auto& one : train) {
        const auto values = std::get<0>(at::_unique(one.labels)).contiguous();
        const auto* first = values.const_data_ptr<int64_t>();
        found.insert(first, first + values.numel());
      }
      options_.values.assign(found.begin(), found.end());
    }
    if (options_.names.empty())
      for (const int64_t value : options_.values) options_.names.push_back(std::to_string(value));
    SERPENTINE_CHECK(options_.names.size() == options_.values.size(), "data.names",
                     "there must be a name for each of the ", options_.values.size(),
                     " values, got ", options_.names.size());
    SERPENTINE_CHECK(options_.values.size() >= 2, options_.train.front(),
                     "there must be two classes at least, got ", options_.values.size());
  }

  LabelledScene sorted(const Read& from, double validation) const {
    LabelledScene scene;
    const int64_t count = from.places.size(0);
    const auto* place = from.places.const_data_ptr<double>();
    const auto* label = from.labels.const_data_ptr<int64_t>();
    std::map<int64_t, int64_t> numbers;
    for (size_t i = 0; i < options_.values.size(); ++i)
      numbers[options_.values[i]] = static_cast<int64_t>(i);
    const torch::Tensor least = std::get<0>(from.places.min(0));
    scene.least_x = least[0].item<double>();
    scene.least_y = least[1].item<double>();
    std::map<SceneCell, std::vector<int64_t>> members;
    for (int64_t i = 0; i < count; ++i) {
      const double x = (place[3 * i] - scene.least_x) / options_.block,
                   y = (place[3 * i + 1] - scene.least_y) / options_.block;
      SERPENTINE_CHECK(x < 1e6 && y < 1e6, from.path, "blocks of side ", options_.block,
                       " (data.block) are too small for this scene");
      members[{static_cast<int64_t>(x), static_cast<int64_t>(y)}].push_back(i);
    }
    Random random(options_.seed, 0);
    for (const auto& [cell, rows] : members) {
      auto& block = scene.blocks[cell];
      block.first = static_cast<int64_t>(scene.classes.size());
      block.count = static_cast<int64_t>(rows.size());
      block.held = random.chance(validation);
      for (const int64_t row : rows) {
        const auto number = numbers.find(label[row]);
        const int64_t mine = number == numbers.end() ? kNoClass : number->second;
        if (!block.held && mine != kNoClass)
          scene.learnt.push_back(static_cast<int64_t>(scene.classes.size()));
        scene.places.insert(scene.places.end(), place + 3 * row, place + 3 * row + 3);
        scene.classes.push_back(mine);
      }
    }
    return scene;
  }

  void count_classes() {
    std::vector<int64_t> counts(options_.values.size());
    for (const auto& scene : train_)
      for (const int64_t row : scene.learnt)
        ++counts[static_cast<size_t>(scene.classes[static_cast<size_t>(row)])];
    std::string text = "training points:";
    for (size_t i = 0; i < counts.size(); ++i)
      text += " " + options_.names[i] + " " + std::to_string(counts[i]);
    notes_.push_back(text);
  }

  SceneSourceOptions options_;
  std::vector<LabelledScene> train_, test_;
  std::vector<std::string> notes_;
};

}  // namespace

void add_scene_source(Registry<DataSource>& all) {
  all.add<SceneSourceOptions>("scenes", [](const SceneSourceOptions& options) {
    return std::make_shared<SceneSource>(options);
  });
}

}  // namespace serpentine
