// Checks of the recordings of vision models: what they share, and the list.
#include "golden/vision_golden.h"

#include <gtest/gtest.h>

#include "core/config.h"
#include "vision/vision.h"

namespace serpentine::golden {

using torch::Tensor;

void copy_options(nlohmann::json& to, const nlohmann::json& from, const OptionNames& names) {
  for (const auto& [ours, theirs] : names) {
    if (from.contains(theirs) && !from.at(theirs).is_null()) to[ours] = from.at(theirs);
  }
}

void load_exactly(Fixture& fixture, torch::nn::Module& module) {
  const LoadReport report = load_state_dict(module, fixture.weights);
  EXPECT_TRUE(report.ok()) << report.text();
  std::map<std::string, Tensor> saved;
  for (const auto& [name, tensor] : state_dict(module)) saved[name] = tensor;
  EXPECT_EQ(saved.size(), fixture.weights.size());
  for (const auto& [name, tensor] : fixture.weights) {
    EXPECT_TRUE(saved.count(name) && saved[name].equal(tensor)) << name;
  }
  module.to(fixture.device);
  module.eval();
}

std::shared_ptr<ImageModel> build_image_model(Fixture& fixture, const nlohmann::json& options) {
  Registry<Model> models("model");
  add_vision_models(models);
  auto model = std::dynamic_pointer_cast<ImageModel>(models.build(Config::parse(options.dump())));
  if (!model) throw std::logic_error("not an ImageModel: " + options.dump());
  load_exactly(fixture, *model);
  return model;
}

void check_trace(Fixture& fixture, const std::map<std::string, Tensor>& trace) {
  for (const auto& [name, tensor] : trace) fixture.check(name, tensor);
}

void check_gradients(Fixture& fixture, const torch::nn::Module& module, const Tensor& input) {
  for (const auto& parameter : module.named_parameters()) {
    fixture.check("grad." + parameter.key(), parameter.value().grad());
  }
  if (fixture.has("grad.input")) fixture.check("grad.input", input.grad());
}

void check_image_model(Fixture& fixture, ImageModel& model) {
  Batch batch;
  batch.input = fixture.input("input").requires_grad_();
  std::map<std::string, Tensor> trace;
  model.trace = &trace;
  const Tensor output = model.forward(batch);
  model.trace = nullptr;
  check_trace(fixture, trace);
  fixture.check("output", output);
  (output * fixture.input("cotangent")).sum().backward();
  check_gradients(fixture, model, batch.input);
}

void add_vision_checkers(Checkers& all) {
  add_vmamba_checkers(all);
  add_vim_checkers(all);
  add_visual_family_checkers(all);
  add_vision_layer_checkers(all);
}

}  // namespace serpentine::golden
