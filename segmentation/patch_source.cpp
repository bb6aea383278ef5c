// The data section of a segmentation run: cases, their plan and folds, patches.
#include <algorithm>
#include <array>
#include <map>
#include <stdexcept>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/data/loader.h"
#include "core/io/progress.h"
#include "segmentation/augment.h"
#include "segmentation/file_error.h"
#include "segmentation/folds.h"
#include "segmentation/patch_source.h"
#include "segmentation/prepare.h"
#include "segmentation/segmentation.h"

namespace serpentine {
namespace {

constexpr int64_t kPlacesAClass = 20000;  // of voxels kept to choose from

/// A prepared case with places of each class to choose from.
struct PatchCase {
  PreparedCase data;
  std::vector<torch::Tensor> places;  // of each class that occurs: int64 [n], flat
};

Batch as_batch(const SegmentationPlan& plan, const Patch& patch) {
  Batch batch;
  batch.input = plan.dims == 2 ? patch.image.squeeze(1) : patch.image;
  batch.target = (plan.dims == 2 ? patch.target.squeeze(0) : patch.target).to(torch::kLong);
  return batch;
}

class PatchDataset : public Dataset {
 public:
  PatchDataset(std::shared_ptr<const std::vector<PatchCase>> cases, SegmentationPlan plan,
               const PatchSourceOptions& options)
      : cases_(std::move(cases)), plan_(std::move(plan)), options_(options) {}

  int64_t size() const override { return cases_->empty() ? 0 : options_.patches; }
  Batch get(int64_t index) const override { return make(index, 0, 0, 0); }
  Batch draw(at::ArrayRef<int64_t> indices, const Draw& how) const override {
    std::vector<torch::Tensor> inputs, targets;
    for (size_t i = 0; i < indices.size(); ++i) {
      const Batch one =
          make(indices[i], how.seed, how.epoch, i < how.copies.size() ? how.copies[i] : 0);
      inputs.push_back(one.input);
      targets.push_back(one.target);
    }
    Batch batch;
    batch.input = torch::stack(inputs);
    batch.target = torch::stack(targets);
    return batch;
  }

 private:
  Batch make(int64_t index, int64_t seed, int64_t epoch, int64_t copy) const {
    if (index < 0 || index >= size()) throw std::out_of_range("PatchDataset");
    Chance chance(seed, epoch, {index, copy});
    const auto& one =
        (*cases_)[static_cast<size_t>(chance.below(static_cast<int64_t>(cases_->size())))];
    const std::array<int64_t, 3> size = {plan_.patch[0], plan_.patch[1], plan_.patch[2]};
    const auto centre = place(one, size, chance);
    auto patch = cut_patch(one.data.image, one.data.target, size, centre, options_.augment, chance);
    vary_patch(patch, options_.augment, chance);
    return as_batch(plan_, patch);
  }

  std::array<int64_t, 3> place(const PatchCase& one, const std::array<int64_t, 3>& size,
                               Chance& chance) const {
    const auto& shape = one.data.target.sizes();
    std::array<int64_t, 3> centre{};
    const bool around = !one.places.empty() && chance.happens(options_.foreground);
    if (around) {
      const auto& places =
          one.places[static_cast<size_t>(chance.below(static_cast<int64_t>(one.places.size())))];
      const auto flat = places[chance.below(places.numel())].item<int64_t>();
      centre = {flat / (shape[1] * shape[2]), flat / shape[2] % shape[1], flat % shape[2]};
    }
    for (size_t axis = 0; axis < 3; ++axis) {
      // patches stay inside; smaller cases are centred
      const int64_t least = size[axis] / 2, most = shape[axis] - (size[axis] - size[axis] / 2);
      if (most < least) {
        centre[axis] = shape[axis] / 2;
      } else {
        centre[axis] =
            around ? std::clamp(centre[axis], least, most) : least + chance.below(most - least + 1);
      }
    }
    return centre;
  }

  std::shared_ptr<const std::vector<PatchCase>> cases_;
  SegmentationPlan plan_;
  PatchSourceOptions options_;
};

/// Patches that cover every case once: what an earlier patch showed is marked as ignored.
class TileDataset : public Dataset {
 public:
  TileDataset(std::vector<PreparedCase> cases, SegmentationPlan plan)
      : cases_(std::move(cases)), plan_(std::move(plan)) {
    for (size_t c = 0; c < cases_.size(); ++c) {
      const auto& shape = cases_[c].target.sizes();
      std::array<int64_t, 3> count{};
      for (size_t axis = 0; axis < 3; ++axis)
        count[axis] = (shape[axis] + plan_.patch[axis] - 1) / plan_.patch[axis];
      for (int64_t z = 0; z < count[0]; ++z) {
        for (int64_t y = 0; y < count[1]; ++y) {
          for (int64_t x = 0; x < count[2]; ++x) tiles_.push_back({c, {z, y, x}});
        }
      }
    }
  }
  int64_t size() const override { return static_cast<int64_t>(tiles_.size()); }
  Batch get(int64_t index) const override {
    if (index < 0 || index >= size()) throw std::out_of_range("TileDataset");
    const auto& tile = tiles_[static_cast<size_t>(index)];
    const auto& one = cases_[tile.at];
    std::array<int64_t, 3> extent{}, first{};
    for (size_t axis = 0; axis < 3; ++axis) {
      extent[axis] = plan_.patch[axis];
      const int64_t begin = tile.number[axis] * extent[axis];
      first[axis] = std::max<int64_t>(
          0, std::min(begin, one.target.size(static_cast<int64_t>(axis)) - extent[axis]));
    }
    auto patch = plain_patch(one.image, one.target, extent, first);
    for (int64_t axis = 0; axis < 3; ++axis) {
      const auto at = static_cast<size_t>(axis);
      const int64_t seen = tile.number[at] * extent[at] - first[at];
      if (seen > 0) patch.target.narrow(axis, 0, seen).fill_(-1);
      const int64_t inside = one.target.size(axis) - first[at];
      if (inside < extent[at]) patch.target.narrow(axis, inside, extent[at] - inside).fill_(-1);
    }
    return as_batch(plan_, patch);
  }

 private:
  struct Tile {
    size_t at;
    std::array<int64_t, 3> number;
  };
  std::vector<PreparedCase> cases_;
  SegmentationPlan plan_;
  std::vector<Tile> tiles_;
};

class PatchSource : public DataSource {
 public:
  explicit PatchSource(const PatchSourceOptions& options) : options_(options) {
    CaseList list = find_cases(options.path, {options.images, options.labels});
    notes_ = list.notes;
    if (options.plan.empty()) {
      const auto fingerprint = take_fingerprint(list);
      notes_.insert(notes_.end(), fingerprint.notes.begin(), fingerprint.notes.end());
      plan_ = make_plan(list, fingerprint, plan_options(options));
    } else {
      plan_ = read_plan_file(options.plan);
    }
    list.notes = notes_;
    const auto split =
        split_cases(list, options.folds, options.fold, options.validation, options.seed);
    auto training = split.train;
    if (options.limit > 0 && static_cast<int64_t>(training.size()) > options.limit)
      training.resize(static_cast<size_t>(options.limit));
    train_ = std::make_shared<std::vector<PatchCase>>();
    Progress progress("preparing", static_cast<int64_t>(training.size() + split.validation.size() +
                                                        split.test.size()));
    int64_t done = 0;
    const auto prepare_all = [&](const std::vector<CaseFiles>& cases, const auto& keep) {
      for (const auto& files : cases) {
        try {
          keep(prepare_case(plan_, files));
          names_.push_back(files.name);
        } catch (const std::exception& error) {
          notes_.push_back(files.name + ": left out; " + reason_of(error));
        }
        progress.update(++done);
      }
    };
    prepare_all(training,
                [&](PreparedCase made) { train_->push_back(with_places(std::move(made))); });
    prepare_all(split.validation, [&](PreparedCase made) {
      held_names_.push_back(made.name);
      validation_.push_back(std::move(made));
    });
    prepare_all(split.test, [&](PreparedCase made) { test_.push_back(std::move(made)); });
    progress.finish();
    TORCH_CHECK(!train_->empty(), options.path, ": no training case can be used",
                first_notes(notes_));
  }

  std::shared_ptr<const Dataset> part(Part which) const override {
    if (which == Part::kTrain) return std::make_shared<PatchDataset>(train_, plan_, options_);
    return std::make_shared<TileDataset>(which == Part::kTest ? test_ : validation_, plan_);
  }

  void fill_model(Config& model, const Config& task) override {
    const std::string type = model.type();
    model.set_default("in_channels", plan_.in_channels);
    model.set_default("classes", plan_.classes);
    if (type == "unet" || type == "umamba_bot" || type == "umamba_enc") {
      model.set_default("dims", plan_.dims);
      model.set_default("features", plan_.features);
      model.set_default("kernels", plan_.kernels);
      model.set_default("strides", plan_.strides);
    }
    if (type == "umamba_enc") model.set_default("input_size", plan_.network_patch());
    Config shared = task;  // the same document
    shared.set_default("classes", plan_.classes);
    shared.set_default("regions", plan_.regions);
    shared.set_default("names", plan_.class_names);
  }

  nlohmann::json description() const override {
    return {{"kind", "segmentation"},
            {"plan", plan_yaml(plan_)},
            {"batch", plan_.batch},
            {"held_out", held_names_}};
  }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  PatchCase with_places(PreparedCase made) const {
    PatchCase one{std::move(made), {}};
    const auto flat = one.data.target.flatten();
    for (int64_t k = plan_.regions ? 0 : 1; k < plan_.classes; ++k) {
      const auto has =
          plan_.regions ? flat.gt(0) & flat.bitwise_and(int64_t{1} << k).ne(0) : flat.eq(k);
      auto places = has.nonzero().flatten();
      if (places.numel() == 0) continue;
      const int64_t step = (places.numel() + kPlacesAClass - 1) / kPlacesAClass;
      one.places.push_back(places.slice(0, 0, places.numel(), step).contiguous());
    }
    return one;
  }

  PatchSourceOptions options_;
  SegmentationPlan plan_;
  std::shared_ptr<std::vector<PatchCase>> train_;
  std::vector<PreparedCase> validation_, test_;
  std::vector<std::string> notes_, names_, held_names_;
};

}  // namespace

PlanOptions plan_options(const PatchSourceOptions& options) {
  PlanOptions wanted;
  wanted.dims = options.dims;
  wanted.memory = options.memory;
  wanted.patch = options.patch;
  wanted.batch = options.batch;
  wanted.first_features = options.first_features;
  return wanted;
}

void PatchSourceOptions::fields(Fields& f) {
  f("path", path, "a folder (dataset.json, or images and labels) or a CSV", {.required = true});
  f("images", images, "folder of the images, when it has no usual name");
  f("labels", labels, "folder of the labels");
  f("plan", plan, "YAML of `serpentine segment plan`; empty: planned now");
  f("dims", dims, "2 or 3 for the plan made now; 0: 3 where cases have several slices",
    {.least = 0, .most = 3});
  f("memory", memory, "GB for the patch and batch of the plan made now", {.least = 0.1});
  f("patch", patch, "patch of the plan made now, instead of the rule", {.least = 1});
  f("batch", batch, "batch of the plan made now; 0: by the rule", {.least = 0});
  f("first_features", first_features, "channels of the first stage of the plan made now",
    {.least = 1});
  f("folds", folds, "parts that cases are cut into", {.least = 2});
  f("fold", fold, "the part that validates; -1: train on all", {.least = -1});
  f("validation", validation, "with test cases: share of the training cases that validates",
    {.least = 0, .most = 0.9});
  f("seed", seed, "of the folds");
  f("limit", limit, "training cases at most; 0: all", {.least = 0});
  f("patches", patches, "patches of an epoch", {.least = 1});
  f("foreground", foreground, "share of patches around a voxel of some class",
    {.least = 0, .most = 1});
  f.group("augment", augment, "what training patches vary");
}

void add_patch_source(Registry<DataSource>& all) {
  all.add<PatchSourceOptions>("segmentation", [](const PatchSourceOptions& options) {
    return std::make_shared<PatchSource>(options);
  });
}

}  // namespace serpentine
