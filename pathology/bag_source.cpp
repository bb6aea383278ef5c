#include "pathology/bag_source.h"

#include <algorithm>

#include <ATen/CPUGeneratorImpl.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/config_node.h"
#include "core/data/random.h"
#include "pathology/bag_task.h"
#include "pathology/pathology.h"
#include "pathology/survival.h"

namespace serpentine {

void BagSourceOptions::fields(Fields& f) {
  BagSetOptions::fields(f);
  f.group("splits", splits, "which bags train, validate and test");
  f("bins", bins, "time bins of survival: quantiles of the training events", {.least = 2});
  f("standardize", standardize, "features to mean 0 and deviation 1 of the training tiles");
}

BagDataset::BagDataset(std::shared_ptr<const BagSet> set, std::vector<int64_t> rows,
                       std::vector<int64_t> targets, torch::Tensor mean, torch::Tensor scale)
    : set_(std::move(set)),
      rows_(std::move(rows)),
      targets_(std::move(targets)),
      mean_(std::move(mean)),
      scale_(std::move(scale)) {}

const Bag& BagDataset::bag(int64_t index) const {
  if (index < 0 || index >= size()) throw std::out_of_range("BagDataset");
  return set_->bags[static_cast<size_t>(rows_[static_cast<size_t>(index)])];
}

int64_t BagDataset::target(int64_t index) const {
  return targets_[static_cast<size_t>(rows_[static_cast<size_t>(index)])];
}

Batch BagDataset::get(int64_t index) const { return example(index, set_->read(bag(index))); }

Batch BagDataset::example(int64_t index, TileFeatures tiles) const {
  const Bag& from = bag(index);
  if (mean_.defined()) tiles.features = (tiles.features - mean_).div_(scale_);
  Batch batch;
  batch.input = tiles.features;
  batch.coords = tiles.coords;
  batch.target = torch::tensor(target(index), torch::kLong);
  batch.named["index"] = torch::tensor(index, torch::kLong);
  batch.named["of"] = torch::tensor(size(), torch::kLong);
  if (set_->survival) {
    batch.named["time"] = torch::tensor(from.time, torch::kFloat);
    batch.named["event"] = torch::tensor(from.event ? 1.F : 0.F);
  }
  return batch;
}

Batch BagDataset::get_batch(at::ArrayRef<int64_t> indices) const {
  std::vector<Batch> examples;
  for (const int64_t index : indices) examples.push_back(get(index));
  return packed(std::move(examples));
}

Batch BagDataset::draw(at::ArrayRef<int64_t> indices, const Draw& how) const {
  std::vector<Batch> examples;
  for (size_t i = 0; i < indices.size(); ++i) {
    TileFeatures tiles = set_->read(bag(indices[i]), set_->augmented);
    if (tiles.copies.defined()) {
      const int64_t copy = how.copies.empty() ? 0 : how.copies[i];
      auto generator = at::make_generator<at::CPUGeneratorImpl>(
          Random(how.seed, how.epoch, {indices[i], copy}).next());
      const int64_t count = tiles.features.size(0), copies = tiles.copies.size(0);
      const auto chosen = torch::randint(copies + 1, {count}, generator, torch::kLong);
      const auto rows = torch::arange(count);
      const auto drawn = tiles.copies.index({(chosen - 1).clamp_min(0), rows});
      tiles.features = torch::where(chosen.eq(0).unsqueeze(1), tiles.features, drawn);
    }
    examples.push_back(example(indices[i], std::move(tiles)));
  }
  return packed(std::move(examples));
}

Batch BagDataset::packed(std::vector<Batch> examples) const {
  Batch batch;
  std::vector<torch::Tensor> input, coords, target;
  std::map<std::string, std::vector<torch::Tensor>> named;
  std::vector<int32_t> offsets = {0};
  for (Batch& one : examples) {
    offsets.push_back(offsets.back() + static_cast<int32_t>(one.input.size(0)));
    input.push_back(one.input);
    if (one.coords.defined()) coords.push_back(one.coords);
    target.push_back(one.target);
    for (auto& [name, tensor] : one.named) named[name].push_back(tensor);
  }
  batch.offsets = torch::tensor(offsets, torch::kInt);
  if (input.empty()) {
    batch.input = torch::empty({0, set_->width});
    batch.target = torch::empty({0}, torch::kLong);
    return batch;
  }
  const auto joined_rows = [](const std::vector<torch::Tensor>& parts) {
    return parts.size() == 1 ? parts[0] : torch::cat(parts);  // a bag alone is not copied
  };
  batch.input = joined_rows(input);
  if (coords.size() == input.size()) batch.coords = joined_rows(coords);
  batch.target = torch::stack(target);
  for (auto& [name, tensors] : named) batch.named[name] = torch::stack(tensors);
  return batch;
}

BagSource::BagSource(const BagSourceOptions& options)
    : options_(options), set_(std::make_shared<BagSet>(read_bag_set(options))) {
  notes_ = set_->notes;
  targets_.assign(set_->bags.size(), 0);
  for (size_t i = 0; i < set_->bags.size() && !set_->survival; ++i) {
    targets_[i] = std::find(set_->classes.begin(), set_->classes.end(), set_->bags[i].label) -
                  set_->classes.begin();
  }
  split_ = make_split(infos(), options_.splits, options_.path, &notes_);
  if (set_->survival) {
    std::vector<double> times;
    std::vector<bool> events;
    for (const int64_t row : split_.train) {
      times.push_back(set_->bags[static_cast<size_t>(row)].time);
      events.push_back(set_->bags[static_cast<size_t>(row)].event);
    }
    edges_ = time_bin_edges(times, events, options_.bins);
    for (size_t i = 0; i < targets_.size(); ++i) targets_[i] = time_bin(edges_, set_->bags[i].time);
  }
  if (options_.standardize) standardize();
}

std::vector<BagInfo> BagSource::infos() const {
  std::vector<BagInfo> infos;
  for (size_t i = 0; i < set_->bags.size(); ++i) {
    const Bag& bag = set_->bags[i];
    const int64_t stratum = set_->survival ? (bag.event ? 1 : 0) : targets_[i];
    infos.push_back({bag.name, bag.patient, bag.site, stratum, bag.parts});
  }
  return infos;
}

void BagSource::standardize() {
  auto sum = torch::zeros({set_->width}, torch::kDouble), squares = sum.clone();
  double count = 0;
  for (const int64_t row : split_.train) {
    const auto tiles = set_->read(set_->bags[static_cast<size_t>(row)]).features.to(torch::kDouble);
    sum += tiles.sum(0);
    squares += tiles.square().sum(0);
    count += static_cast<double>(tiles.size(0));
  }
  const auto mean = sum / count;
  const auto deviation = (squares / count - mean.square()).clamp_min(0).sqrt();
  mean_ = mean.to(torch::kFloat);
  scale_ = torch::where(deviation > 1e-8, deviation, torch::ones_like(deviation)).to(torch::kFloat);
}

std::shared_ptr<const BagDataset> BagSource::bags(Part which) const {
  return std::make_shared<BagDataset>(set_, split_.of(which), targets_, mean_, scale_);
}

std::shared_ptr<const Dataset> BagSource::part(Part which) const { return bags(which); }

void BagSource::fill_model(Config& model, const Config& task) {
  if (model.has("in_dim")) {
    int64_t given = 0;
    std::vector<Problem> later;  // of the other keys, which the model's own reading finds
    model.check_fields([&](Fields& f) { f("in_dim", given, "features of a tile"); }, true, {},
                       later);
    TORCH_CHECK(given <= 0 || given == set_->width, options_.path, ": model.in_dim is ", given,
                ", but the bags have ", set_->width, " features; data.width: ", given,
                " takes those of that width");
  }
  model.set_default("in_dim", set_->width);
  auto outputs = static_cast<int64_t>(set_->classes.size());
  if (set_->survival) {
    const bool risk = task.type() == "survival" &&
                      task.read_typed<SurvivalOptions>(SurvivalOptions{}).loss == "cox";
    outputs = risk ? 1 : options_.bins;
  }
  TORCH_CHECK(set_->survival == (task.type() == "survival"), options_.path, ": the task ",
              task.type(), " does not fit data ", set_->survival ? "with" : "without",
              " times (data.columns.time)");
  model.set_default("classes", outputs);
}

nlohmann::json BagSource::description() const {
  nlohmann::json json = {{"kind", "bags"}, {"features", set_->width}, {"classes", set_->classes}};
  if (set_->survival) json["time_bins"] = edges_;
  if (mean_.defined()) {
    const auto numbers = [](const torch::Tensor& of) {
      return std::vector<float>(of.const_data_ptr<float>(),
                                of.const_data_ptr<float>() + of.numel());
    };
    json["mean"] = numbers(mean_);
    json["scale"] = numbers(scale_);
  }
  return json;
}

void add_bag_source(Registry<DataSource>& all) {
  all.add<BagSourceOptions>(
      "bags", [](const BagSourceOptions& options) { return std::make_shared<BagSource>(options); });
}

}  // namespace serpentine
