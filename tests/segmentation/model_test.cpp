// What every segmentation network promises, from its file in configs/test, and the data source.
#include <gtest/gtest.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/state_dict.h"
#include "segmentation/files.h"
#include "segmentation/network.h"
#include "segmentation/segmentation.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

struct Built {
  std::shared_ptr<DataSource> source;
  std::shared_ptr<Model> model;
  std::shared_ptr<Task> task;
};

Built build(const std::string& type, std::vector<std::string> overrides = {}) {
  const std::string root = SERPENTINE_SOURCE_DIR;
  overrides.push_back("data.path=" + kSamples);
  const Config config =
      Config::load(root + "/configs/test/segmentation_" + type + ".yaml", overrides);
  Registry<DataSource> sources("data");
  Registry<Model> models("model");
  Registry<Task> tasks("task");
  add_segmentation_sources(sources);
  add_segmentation_models(models);
  add_segmentation_tasks(tasks);
  Built built;
  built.source = sources.build(config.child("data"));
  Config model = config.child("model");
  built.source->fill_model(model, config.child("task"));
  torch::manual_seed(0);
  built.model = models.build(model);
  built.task = tasks.build(config.child("task"));
  return built;
}

class SegmentationModel : public ::testing::TestWithParam<const char*> {};

TEST_P(SegmentationModel, EvaluatesAlikeTwiceAndAfterSaving) {
  const Built one = build(GetParam()), other = build(GetParam());
  for (auto& parameter : other.model->parameters()) torch::nn::init::normal_(parameter.detach());
  one.model->eval();
  other.model->eval();
  const torch::NoGradGuard no_grad;
  const Batch batch = one.source->part(Part::kValidation)->get_batch({0, 1});
  const auto first = one.model->forward(batch);
  expect_equal(one.model->forward(batch), first);
  auto sizes = batch.input.sizes().vec();
  sizes[1] = 3;
  EXPECT_EQ(first.sizes().vec(), sizes);
  EXPECT_TRUE(load_state_dict(*other.model, state_dict(*one.model)).ok());
  expect_equal(other.model->forward(batch), first);
}

TEST_P(SegmentationModel, LearnsABatchWithEveryParameter) {
  const Built built = build(GetParam());
  built.model->train();
  const Batch batch = built.source->part(Part::kTrain)->draw({0, 1}, {});
  torch::optim::AdamW optimizer(built.model->parameters(), torch::optim::AdamWOptions(3e-3));
  double first = 0, last = 0;
  for (int step = 0; step < 6; ++step) {
    optimizer.zero_grad();
    const auto loss = built.task->loss(*built.model, batch).value;
    loss.backward();
    if (step == 0) {
      first = loss.item<double>();
      // the coarsest output of a network with several is not trained, as published, nor is the
      // classifier of a backbone
      for (const auto& parameter : built.model->named_parameters()) {
        const auto& gradient = parameter.value().grad();
        const bool coarsest = parameter.key().find("seg_layers.0") != std::string::npos;
        const bool classifier = parameter.key().find("backbone.classifier") != std::string::npos;
        if (coarsest || classifier) continue;
        ASSERT_TRUE(gradient.defined()) << parameter.key();
        EXPECT_TRUE(torch::isfinite(gradient).all().item<bool>()) << parameter.key();
      }
    }
    optimizer.step();
    last = loss.item<double>();
  }
  EXPECT_LT(last, first);
}

TEST_P(SegmentationModel, LoadsPublishedNamesOfEitherKind) {
  const Built one = build(GetParam()), other = build(GetParam());
  StateDict second;
  for (const auto& [name, tensor] : state_dict(*one.model))
    second.emplace_back(published_keys(*one.model, name).back(), tensor);
  for (auto& parameter : other.model->parameters()) torch::nn::init::zeros_(parameter.detach());
  const auto report = load_state_dict(*other.model, second);
  EXPECT_TRUE(report.ok()) << report.text();
  EXPECT_EQ(checksum(state_dict(*one.model)), checksum(state_dict(*other.model)));
}

INSTANTIATE_TEST_SUITE_P(All, SegmentationModel,
                         ::testing::Values("unet", "resunet", "umamba_bot", "umamba_enc",
                                           "segmamba", "vmunet", "upernet"));

TEST(SegmentationModels, TakeAnyOrderOfAVolume) {
  for (const char* scan : {"{type: raster, axes: zyx}", "{type: hilbert}", "{type: tri_orientated}",
                           "{type: bidirectional, inner: {type: raster}}",
                           "{type: stack, parts: [{type: raster}, {type: raster, axes: yzx}, "
                           "{type: raster, axes: zxy}]}"}) {
    const Built built = build("umamba_bot", {std::string("model.scan=") + scan});
    const Batch batch = built.source->part(Part::kValidation)->get_batch({0});
    EXPECT_TRUE(torch::isfinite(built.model->forward(batch)).all().item<bool>()) << scan;
  }
}

TEST(SegmentationSource, DrawsTheSamePatchesFromTheSameSeed) {
  const Built built = build("unet");
  const auto train = built.source->part(Part::kTrain);
  Draw how;
  how.seed = 3;
  how.epoch = 2;
  const Batch one = train->draw({0, 1, 2, 3}, how), again = train->draw({0, 1, 2, 3}, how);
  expect_equal(one.input, again.input);
  expect_equal(one.target, again.target);
  how.epoch = 3;
  EXPECT_FALSE(train->draw({0, 1, 2, 3}, how).input.equal(one.input));
  EXPECT_EQ(one.target.max().item<int64_t>(), 2);
}

TEST(SegmentationSource, TilesCountEveryVoxelOnce) {
  const Built built = build("unet");
  const auto validation = built.source->part(Part::kValidation);
  int64_t counted = 0;
  for (int64_t i = 0; i < validation->size(); ++i)
    counted += validation->get(i).target.ge(0).sum().item<int64_t>();
  const auto held = built.source->description()["held_out"].get<std::vector<std::string>>();
  int64_t voxels = 0;
  for (const auto& name : held)
    voxels += read_nifti(kSamples + "/labelsTr/" + name + ".nii.gz").numel();
  EXPECT_EQ(held.size(), 2U);
  EXPECT_EQ(counted, voxels);
}

}  // namespace
}  // namespace serpentine::testing
