// Checkers of S4D and S4: layers, gradients, steps, states; HiPPO initialisation.
#include "golden/golden.h"

#include <gtest/gtest.h>

#include "core/nn/s4d.h"

namespace serpentine::golden {
namespace {

using torch::Tensor;

void load(const Fixture& fixture, torch::nn::Module& module) {
  const auto report = load_state_dict(module, fixture.weights);
  EXPECT_TRUE(report.ok()) << fixture.name << ": " << report.text();
}

/// Output, intermediate tensors and gradients of one run in float32 or float64.
void check_run(Fixture& fixture, const torch::nn::Module& module, const Tensor& input,
               const Tensor& output, const Trace& trace) {
  const auto type = output.scalar_type();
  const bool twice = type == torch::kDouble;
  torch::autograd::backward({output}, {fixture.input("cotangent").to(type)});
  const auto check = [&](const std::string& name, const Tensor& actual) {
    if (twice) {
      fixture.check(name, actual, 1e-14);  // worst measured: 3.2e-15
    } else {
      fixture.check(name, actual);
    }
  };
  check(twice ? "output64" : "output", output);
  for (const auto& [name, tensor] : trace) check(twice ? name + "64" : name, tensor);
  const std::string prefix = twice ? "grad64." : "grad.";
  check(prefix + "input", input.grad());
  for (const auto& item : module.named_parameters())
    check(prefix + item.key(), item.value().grad());
}

// worst measured in float32: forward 8.2e-7, gradients 4.8e-6
void set_tolerances(Fixture& fixture) {
  fixture.forward_tolerance = 2e-6;
  fixture.gradient_tolerance = 1e-5;
}

void check_s4d(Fixture& fixture) {
  set_tolerances(fixture);
  const auto& arguments = fixture.config.at("arguments");
  S4dOptions options;
  options.d_model = arguments.at("d_model").get<int64_t>();
  options.d_state = arguments.value("d_state", options.d_state);
  const bool transposed = arguments.value("transposed", true);
  const auto turn = [&](const Tensor& x) { return transposed ? x.transpose(1, 2) : x; };
  for (const auto type : {torch::kFloat, torch::kDouble}) {
    S4d layer(options);
    load(fixture, *layer);
    layer->to(type);
    layer->eval();
    Trace trace;
    layer->trace = &trace;
    auto input = fixture.input("input").to(type).requires_grad_(true);
    const auto output = turn(layer(turn(input)));
    check_run(fixture, *layer, input, output, trace);
  }
}

void check_s4d_classifier(Fixture& fixture) {
  set_tolerances(fixture);
  const auto& arguments = fixture.config.at("arguments");
  S4dClassifierOptions options;
  options.d_input = arguments.at("d_input").get<int64_t>();
  options.d_output = arguments.at("d_output").get<int64_t>();
  options.s4d.d_model = arguments.at("d_model").get<int64_t>();
  options.n_layers = arguments.at("n_layers").get<int64_t>();
  options.s4d.dropout = arguments.at("dropout").get<double>();
  options.prenorm = arguments.at("prenorm").get<bool>();
  for (const auto type : {torch::kFloat, torch::kDouble}) {
    S4dClassifier model(options);
    load(fixture, *model);
    model->to(type);
    model->eval();
    Trace trace;
    model->trace = &trace;
    auto input = fixture.input("input").to(type).requires_grad_(true);
    const auto output = model(input);
    check_run(fixture, *model, input, output, trace);
  }
}

}  // namespace

void add_s4_checkers(Checkers& all) {
  all["models/s4/s4d.py:S4D"] = check_s4d;
  all["example.py:S4Model"] = check_s4d_classifier;
}

}  // namespace serpentine::golden
