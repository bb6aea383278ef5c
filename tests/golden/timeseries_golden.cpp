// Checkers of the forecasting models and of their data: windows, splits, scaling, calendar
// features.
#include <gtest/gtest.h>

#include "core/config.h"
#include "golden/golden.h"
#include "timeseries/series_source.h"
#include "timeseries/timeseries.h"

namespace serpentine::golden {
namespace {

constexpr double kRounding = 1.2e-7;  // of windows to float32; worst measured: 5.9e-8
constexpr double kDouble = 1e-14;     // worst measured: 6.9e-16

std::shared_ptr<Model> build(const Fixture& fixture, const std::string& type, bool use_norm) {
  const auto& config = fixture.config;
  nlohmann::json model = {{"type", type}, {"use_norm", use_norm}};
  for (const char* key :
       {"seq_len", "pred_len", "d_model", "d_ff", "e_layers", "dropout", "activation"}) {
    model[key] = config.at(key);
  }
  if (type == "s_mamba") {
    model["d_state"] = config.at("d_state");
    for (const auto& [name, tensor] : fixture.weights) {
      if (name.ends_with(".man.D")) model["unused_width"] = tensor.size(0);
    }
  } else {
    model["n_heads"] = config.at("n_heads");
  }
  Registry<Model> models("model");
  add_forecast_models(models);
  auto built = models.build(Config::parse(model.dump()));
  const LoadReport report = load_state_dict(*built, fixture.weights);
  EXPECT_TRUE(report.ok() && report.tolerated.empty()) << report.text();
  built->to(fixture.device);
  built->eval();
  return built;
}

// every weight of the reference comes back bit for bit, those that its forward never uses too
void check_round_trip(const Fixture& fixture, const Model& model) {
  std::map<std::string, torch::Tensor> saved;
  for (const auto& [name, tensor] : state_dict(model)) saved[name] = tensor;
  EXPECT_EQ(saved.size(), fixture.weights.size());
  for (const auto& [name, tensor] : fixture.weights) {
    EXPECT_TRUE(saved.count(name) && saved[name].cpu().equal(tensor)) << name;
  }
}

// without `unused_width` the same weights load, and what is left over is tolerated
void check_tolerated(const Fixture& fixture, Model& model) {
  std::vector<std::string> keys = model.tolerated_keys();
  StateDict more = fixture.weights;
  more.emplace_back("encoder.attn_layers.0.attention.unknown", torch::zeros({1}));
  EXPECT_FALSE(load_state_dict(model, more, keys).ok());
}

// worst measured: forward 9.0e-7, gradients 3.6e-6
void check_model(Fixture& fixture, const std::string& type) {
  fixture.forward_tolerance = 2e-6;
  fixture.gradient_tolerance = 8e-6;
  const torch::Tensor input = fixture.input("input"), marks = fixture.input("x_mark");
  const torch::Tensor cotangent = fixture.input("cotangent");
  const auto run = [&](Model& model, const torch::Tensor& x, const torch::Tensor& m) {
    Batch batch;
    batch.input = x;
    if (m.defined()) batch.named["marks"] = m;
    return model.forward(batch);
  };
  const auto model = build(fixture, type, true);
  check_round_trip(fixture, *model);
  std::map<std::string, torch::Tensor> trace;
  model->trace = &trace;
  const torch::Tensor output = run(*model, input, marks);
  model->trace = nullptr;
  fixture.check("output", output);
  for (const auto& [name, tensor] : trace) fixture.check(name, tensor);

  // without the trace the last layer computes fewer tokens: the result must not differ
  const torch::Tensor again = run(*model, input, marks);
  fixture.check("output", again);
  (again * cotangent).sum().backward();
  for (const auto& parameter : model->named_parameters()) {
    fixture.check("grad." + parameter.key(), parameter.value().grad());
  }
  fixture.check("output.nomark", run(*model, input, {}));

  const auto plain = build(fixture, type, false);
  const torch::Tensor x = input.clone().requires_grad_(), m = marks.clone().requires_grad_();
  const torch::Tensor nonorm = run(*plain, x, m);
  fixture.check("output.nonorm", nonorm);
  (nonorm * cotangent).sum().backward();
  fixture.check("grad_nonorm.input", x.grad());
  fixture.check("grad_nonorm.x_mark", m.grad());
  fixture.check("output.nonorm_nomark", run(*plain, input, {}));
  check_tolerated(fixture, *plain);
}

std::vector<std::string> column_names(int64_t count) {
  std::vector<std::string> names;
  for (int64_t c = 0; c < count; ++c) names.push_back(std::to_string(c));
  return names;
}

// the first and the last window of each part; the recorded y holds label_len known rows before the
// target
void check_parts(Fixture& fixture, const std::string& set, const SeriesSource& source) {
  const auto& size = fixture.config.at("size");
  const int64_t label = size.at(1).get<int64_t>();
  const auto& lengths = fixture.config.at("datasets").at(set);
  const std::vector<std::pair<Part, std::string>> parts = {
      {Part::kTrain, "train"}, {Part::kValidation, "val"}, {Part::kTest, "test"}};
  for (const auto& [part, name] : parts) {
    const auto windows = source.part(part);
    EXPECT_EQ(windows->size(), lengths.at("len_" + name).get<int64_t>()) << set << " " << name;
    for (const auto& [end, index] :
         {std::pair{"first", int64_t{0}}, std::pair{"last", windows->size() - 1}}) {
      const Batch window = windows->get(index);
      const std::string key = set + "." + name + "." + end;
      const auto known = [&](const torch::Tensor& rows) {
        return rows.slice(0, rows.size(0) - label);
      };
      fixture.check(key + ".x", window.input.to(torch::kFloat64), kRounding);
      fixture.check(key + ".y",
                    torch::cat({known(window.input), window.target}).to(torch::kFloat64),
                    kRounding);
      if (!window.get("marks").defined()) continue;
      fixture.check(key + ".xm", window.get("marks").to(torch::kFloat64), kRounding);
      fixture.check(
          key + ".ym",
          torch::cat({known(window.get("marks")), window.get("future_marks")}).to(torch::kFloat64),
          kRounding);
    }
  }
  fixture.check(set + ".scaler_mean", torch::tensor(source.schema().mean, torch::kFloat64),
                kDouble);
  fixture.check(set + ".scaler_scale", torch::tensor(source.schema().std, torch::kFloat64),
                kDouble);
}

SeriesOptions options_of(const Fixture& fixture, const std::string& split) {
  SeriesOptions options;
  options.split = split;
  options.seq_len = fixture.config.at("size").at(0).get<int64_t>();
  options.pred_len = fixture.config.at("size").at(2).get<int64_t>();
  if (split == "pems") options.ratios = {0.6, 0.2, 0.2};
  return options;
}

void check_custom(Fixture& fixture) {
  const auto& config = fixture.config.at("datasets").at("custom");
  const torch::Tensor raw = fixture.input("custom.raw");
  const auto start = DateParser().parse(config.at("start").get<std::string>());
  ASSERT_TRUE(start.has_value());
  const Frequency step = parse_frequency(config.at("step").get<std::string>());
  std::vector<Time> times;
  for (int64_t i = 0; i < raw.size(0); ++i) times.push_back(step.after(*start, i));
  SeriesOptions options = options_of(fixture, "ratio");
  options.move_last = config.at("target").get<std::string>();
  const SeriesSource source(
      options, make_series(raw, config.at("columns").get<std::vector<std::string>>(), times));
  EXPECT_EQ(source.schema().targets,
            config.at("column_order_used").get<std::vector<std::string>>());
  check_parts(fixture, "custom", source);
}

// pandas' names of steps, as 15min or t, in ours
std::string granularity(std::string frequency) {
  frequency.erase(0, frequency.find_first_not_of("0123456789"));
  return frequency == "t" ? "min" : frequency == "q" ? "m" : frequency;
}

void check_dataset(Fixture& fixture) {
  fixture.stay_on_cpu();
  const torch::Tensor dates = fixture.input("time_features.date_parts");
  std::vector<Time> times;
  for (int64_t i = 0; i < dates.size(0); ++i) {
    const auto part = [&](int64_t at) { return dates[i][at].item<int>(); };
    char text[32];
    std::snprintf(text, sizeof text, "%04d-%02d-%02d %02d:%02d:%02d", part(0), part(1), part(2),
                  part(3), part(4), part(5));
    times.push_back(DateParser().parse(text).value());
  }
  for (const auto& name : fixture.names()) {
    if (!name.starts_with("time_features.") || name == "time_features.date_parts") continue;
    fixture.check(name, time_marks(times, granularity(name.substr(name.find('.') + 1))), kDouble);
  }
  check_custom(fixture);
  const torch::Tensor pems = fixture.input("pems.raw"), solar = fixture.input("solar.raw");
  check_parts(fixture, "pems",
              {options_of(fixture, "pems"),
               make_series(pems.select(2, 0).contiguous(), column_names(pems.size(1)))});
  check_parts(fixture, "solar",
              {options_of(fixture, "solar"), make_series(solar, column_names(solar.size(1)))});
}

}  // namespace

void add_timeseries_checkers(Checkers& all) {
  all["S_Mamba"] = [](Fixture& fixture) { check_model(fixture, "s_mamba"); };
  all["iTransformer"] = [](Fixture& fixture) { check_model(fixture, "itransformer"); };
  all["S-D-Mamba data loaders"] = check_dataset;
}

}  // namespace serpentine::golden
