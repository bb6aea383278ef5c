// Checkers of S4D and S4: layers, gradients, steps, states; HiPPO initialisation.
#include "golden/golden.h"

#include <gtest/gtest.h>

#include "core/nn/hippo.h"
#include "core/nn/s4.h"
#include "core/nn/s4d.h"
#include "support/close.h"

namespace serpentine::golden {
namespace {

using torch::Tensor;

void load(const Fixture& fixture, torch::nn::Module& module) {
  const auto report = load_state_dict(module, fixture.weights);
  EXPECT_TRUE(report.ok()) << fixture.name << ": " << report.text();
  module.to(fixture.device);
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
  // cuFFT: worst measured 6.9e-5, of the gradient of A_imag
  fixture.gradient_tolerance = fixture.device.is_cuda() ? 1e-4 : 1e-5;
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

S4Options s4_options(const nlohmann::json& arguments) {
  S4Options options;
  const auto whole = [&](const char* key, int64_t& value) {
    if (arguments.contains(key) && arguments.at(key).is_number()) value = arguments.at(key);
  };
  whole("d_model", options.d_model);
  whole("d_state", options.d_state);
  whole("l_max", options.l_max);
  whole("channels", options.channels);
  whole("rank", options.rank);
  whole("n_ssm", options.n_ssm);
  const auto mode = arguments.value("mode", std::string("dplr"));
  options.mode = mode == "diag" || mode == "s4d" ? "diag" : "dplr";
  options.init = arguments.value("init", options.init);
  options.disc = arguments.value("disc", options.disc);
  if (options.disc == "dss") throw NotBuilt("the dss discretisation");
  options.bidirectional = arguments.value("bidirectional", options.bidirectional);
  options.real_transform = arguments.value("real_transform", options.real_transform);
  options.dt_transform = arguments.value("dt_transform", options.dt_transform);
  options.dt_tie = arguments.value("dt_tie", options.dt_tie);
  const auto text = [&](const char* key, std::string& value) {
    if (arguments.contains(key)) {
      value = arguments.at(key).is_string() ? arguments.at(key).get<std::string>() : "id";
    }
  };
  text("activation", options.activation);
  text("final_act", options.final_act);
  if (options.activation != "gelu" && options.activation != "id") {
    throw NotBuilt("the activation " + options.activation);
  }
  if (options.final_act != "glu" && options.final_act != "id") {
    throw NotBuilt("the final activation " + options.final_act);
  }
  return options;
}

S4 load_s4(const Fixture& fixture, const S4Options& options) {
  S4 block(options);
  load(fixture, *block);
  block->eval();
  return block;
}

/// The layer as recorded: channels first or last.
struct Turn {
  bool transposed;
  Tensor operator()(const Tensor& x) const { return transposed ? x.transpose(1, 2) : x; }
};

void check_s4_states(Fixture& fixture, const S4Options& options, const Turn& turn) {
  const torch::NoGradGuard no_grad;
  const auto input = turn(fixture.input("input"));
  for (const std::string way : {"", "dense.", "linear.", "diagonal."}) {
    if (!fixture.has("step." + way + "output")) continue;
    auto block = load_s4(fixture, options);
    Tensor state;
    std::vector<Tensor> outputs;
    const int64_t count = fixture.input("step." + way + "output").size(1);
    for (int64_t t = 0; t < count; ++t) outputs.push_back(block->step(input.select(1, t), state));
    const bool diagonal = way == "diagonal.";
    // the reference's eigenvectors are LAPACK's and lose digits
    fixture.check("step." + way + "output", torch::stack(outputs, 1), diagonal ? 1e-4 : 2e-5);
    if (diagonal) {
      fixture.ignore("step.diagonal.state");
    } else {
      const auto half = way == "linear." ? state.narrow(2, 0, state.size(2) / 2) : state;
      fixture.check("step." + way + "state", torch::view_as_real(half.contiguous()), 2e-5);
    }
  }
  if (fixture.has("state.input_state")) {
    auto block = load_s4(fixture, options);
    auto state = torch::view_as_complex(fixture.input("state.input_state"));
    const auto y = block->forward_from(input, state);
    fixture.check("state.output", turn(y), 3e-5);
    fixture.check("state.next_state", torch::view_as_real(state.contiguous()), 3e-5);
  }
}

void check_s4_lengths(Fixture& fixture, const S4Options& options, const Turn& turn) {
  const torch::NoGradGuard no_grad;
  const auto input = turn(fixture.input("input"));
  if (fixture.has("short.output")) {
    const int64_t length = fixture.input("short_len").item<int64_t>();
    const auto y = load_s4(fixture, options)->forward(input.narrow(1, 0, length));
    fixture.check("short.output", turn(y));
  }
  if (fixture.has("long.output")) {
    const auto y = load_s4(fixture, options)->forward(turn(fixture.input("long.input")));
    fixture.check("long.output", turn(y));
  }
  if (fixture.has("masked.output")) {
    const auto y = load_s4(fixture, options)->forward(input, fixture.input("masked.lengths"));
    fixture.check("masked.output", turn(y));
  }
  if (fixture.has("raw.C")) {  // the first call makes the recorded weights of them
    auto block = load_s4(fixture, options);
    const auto adapted = block->layer->kernel->C.clone(),
               length = block->layer->kernel->l_kernel.clone();
    block->layer->kernel->C.copy_(fixture.input("raw.C"));
    block->layer->kernel->l_kernel.zero_();
    fixture.check("output", turn(block->forward(input)));
    EXPECT_TRUE(testing::is_close_max(block->layer->kernel->C, adapted,
                                      fixture.device.is_cuda() ? 2e-5 : 1e-5))
        << fixture.name;
    EXPECT_TRUE(torch::equal(block->layer->kernel->l_kernel, length)) << fixture.name;
  }
  if (fixture.has("grow.output")) {
    auto block = load_s4(fixture, options);
    fixture.check("grow.output", turn(block->forward(turn(fixture.input("grow.input")))));
    fixture.check("grow.C", block->layer->kernel->C);
    fixture.check_equal("grow.l_kernel", block->layer->kernel->l_kernel);
  }
}

// worst measured in float32: forward 1e-6, states 9.8e-6, gradients 2.1e-6
void check_s4(Fixture& fixture) {
  fixture.forward_tolerance = 5e-6;
  fixture.gradient_tolerance = 2e-5;
  const auto& arguments = fixture.config.at("arguments");
  const auto options = s4_options(arguments);
  const Turn turn{arguments.value("transposed", true)};
  for (const auto type : {torch::kFloat, torch::kDouble}) {
    auto block = load_s4(fixture, options);
    block->to(type);
    if (options.mode == "dplr") {
      // a change of type must not touch the length
      block->layer->kernel->l_kernel.set_data(block->layer->kernel->l_kernel.to(torch::kLong));
    }
    Trace trace;
    block->layer->trace = &trace;
    auto input = fixture.input("input").to(type).requires_grad_(true);
    const auto output = turn(block->forward(turn(input)));
    check_run(fixture, *block, input, output, trace);
  }
  check_s4_states(fixture, options, turn);
  check_s4_lengths(fixture, options, turn);
}

/// Phases are LAPACK's: only what does not depend on them is compared.
void check_hippo(Fixture& fixture) {
  fixture.stay_on_cpu();
  const auto complex = [](const Tensor& x) { return torch::view_as_complex(x.contiguous()); };
  const auto pairs = [](const Tensor& x) {
    return torch::view_as_real(x.resolve_conj().contiguous());
  };
  for (const std::string measure : {"legs", "legt", "fourier"}) {
    const int64_t states = fixture.input(measure + ".A").size(0),
                  rank = fixture.input(measure + ".P").size(0);
    const auto dense = hippo_system(measure, states);
    fixture.check(measure + ".A", dense.A, 1e-14);
    fixture.check(measure + ".B", dense.B, 1e-14);
    fixture.check(measure + ".P", hippo_rank_correction(measure, states, rank), 1e-7);
    const auto made = hippo_nplr(measure, states, rank, 0);
    // the reference's P of fourier is float32, and so is what follows from it
    const bool single = measure == "fourier";
    const double digits = single ? 3e-7 : 1e-9;
    const std::string nplr = measure + ".nplr.";
    fixture.check(nplr + "w64", pairs(made.w), single ? 1e-8 : 1e-13);
    fixture.check(nplr + "absB64", made.B.abs(), digits);
    fixture.check(nplr + "absP64", made.P.abs(), digits);
    fixture.check(nplr + "P_conjB64", pairs(made.P * made.B.conj()), digits);

    // one mode's vectors agree up to their phase, which P and B share
    const auto V = complex(fixture.input(nplr + "V64"));
    const auto phase = (made.V.conj() * V).sum(0);
    EXPECT_TRUE(torch::allclose(phase.abs(), torch::ones_like(phase.abs()), 0, 10 * digits))
        << measure;
    fixture.check(nplr + "B64", pairs(made.B * phase.conj()), 10 * digits);
    fixture.check(nplr + "P64", pairs(made.P * phase.conj()), 10 * digits);
    for (const char* rounded : {"w", "V", "P", "B", "B_clip2_64"}) fixture.ignore(nplr + rounded);
  }
  const auto eigenvalues = torch::linalg_eigvals(hippo_system("legs", 8).A);
  EXPECT_TRUE(torch::allclose(std::get<0>(torch::real(eigenvalues).sort()),
                              torch::arange(-8, 0, torch::kDouble), 1e-9, 1e-9));
  fixture.ignore("legs.eigenvalues_A");  // -1 .. -N, badly conditioned at N = 64
  const int64_t states = fixture.config.at("N").get<int64_t>();
  for (const char* name : {"lin", "inv", "inv2", "quad", "real", "legs"}) {
    const std::string prefix = std::string("dplr.") + name;
    fixture.check(prefix + ".A", pairs(diagonal_system(name, states)), 1e-6);
    if (fixture.has(prefix + ".B")) {
      EXPECT_TRUE(torch::equal(complex(fixture.input(prefix + ".B")),
                               torch::ones({states / 2}, torch::kComplexFloat)));
    }
  }
}

}  // namespace

void add_s4_checkers(Checkers& all) {
  all["models/s4/s4d.py:S4D"] = check_s4d;
  all["example.py:S4Model"] = check_s4d_classifier;
  all["models/s4/s4.py:S4Block"] = check_s4;
  all["transition, rank_correction, nplr and dplr of models/s4/s4.py"] = check_hippo;
}

}  // namespace serpentine::golden
