// Checks of the recordings of pathology models.
#include <gtest/gtest.h>

#include "core/config.h"
#include "golden/golden.h"
#include "pathology/bag_model.h"
#include "pathology/pathology.h"
#include "pathology/survival.h"

namespace serpentine::golden {
namespace {

using torch::Tensor;
using Json = nlohmann::json;

/// Python's dropout option: a probability, or whether there is one.
double probability(const Json& config, double when_true) {
  const Json& value = config.at("dropout");
  if (value.is_boolean()) return value.get<bool>() ? when_true : 0;
  return value.get<double>();
}

/// The options that the models of the MambaMIL repository share.
Json shared_options(const Fixture& fixture, const std::string& type) {
  const Json& config = fixture.config;
  Json options = {{"type", type},
                  {"in_dim", config.at("in_dim")},
                  {"classes", config.at("n_classes")},
                  {"hidden", config.value("_hidden_width", 512)},
                  {"activation", config.value("act", "relu")},
                  {"dropout", probability(config, 0.25)}};
  if (config.contains("_attention_width")) options["attention"] = config["_attention_width"];
  return options;
}

std::shared_ptr<BagModel> build(const Fixture& fixture, const Json& options) {
  Registry<Model> models("model");
  add_pathology_models(models);
  auto model = models.build(Config::parse(options.dump()));
  const LoadReport report = load_state_dict(*model, fixture.weights);
  EXPECT_TRUE(report.ok()) << report.text();
  model->to(fixture.device);
  model->eval();
  return std::dynamic_pointer_cast<BagModel>(model);
}

/// The bag `input` with its trace and gradients, then every further bag `input.N`, alone and all of
/// them in one batch.
BagOutput check_bags(Fixture& fixture, BagModel& model, bool with_loss = false) {
  Batch batch;
  batch.input = fixture.input("input").requires_grad_();
  if (with_loss)
    batch.target = torch::tensor({fixture.config.at("_label").get<int64_t>()}).to(fixture.device);
  std::map<std::string, Tensor> trace;
  model.trace = &trace;
  const BagOutput out = model.read(batch, with_loss);
  model.trace = nullptr;
  for (const auto& [name, tensor] : trace) fixture.check(name, tensor);
  fixture.check("output", out.logits);
  fixture.check("Y_prob", out.logits.softmax(1));
  (out.logits * fixture.input("cotangent")).sum().backward();
  for (const auto& parameter : model.named_parameters())
    fixture.check("grad." + parameter.key(), parameter.value().grad());
  fixture.check("grad.input", batch.input.grad());

  std::vector<Tensor> bags = {batch.input.detach()}, outputs = {out.logits.detach()};
  for (const auto& name : fixture.names()) {
    if (name.rfind("input.", 0) != 0) continue;
    Batch alone;
    alone.input = fixture.input(name);
    outputs.push_back(model.forward(alone).detach());
    fixture.check("output" + name.substr(5), outputs.back());
    bags.push_back(alone.input);
  }
  Batch together;
  std::vector<int64_t> offsets = {0};
  for (const auto& bag : bags) offsets.push_back(offsets.back() + bag.size(0));
  together.input = torch::cat(bags);
  together.offsets = torch::tensor(offsets, torch::kInt);
  const Tensor expected = torch::cat(outputs);
  const double error = (model.forward(together) - expected).abs().max().item<double>();
  EXPECT_LE(error, 2e-5 * expected.abs().max().item<double>());
  return out;
}

void check_mamba_mil(Fixture& fixture) {
  const Json& config = fixture.config;
  Json options = shared_options(fixture, "mamba_mil");
  std::string block = config.at("type").get<std::string>();
  for (char& c : block) c = static_cast<char>(std::tolower(c));
  options["block"] = block;
  options["layers"] = config.at("layer");
  options["rate"] = config.at("rate");
  const auto model = build(fixture, options);
  const BagOutput out = check_bags(fixture, *model);
  fixture.check("hazards", hazards(out.logits));
  fixture.check("S", survival(out.logits));
}

void check_ab_mil(Fixture& fixture) {
  Json options = shared_options(fixture, "ab_mil");
  options["gated"] = fixture.config.at("model").get<std::string>().rfind("Gated", 0) == 0;
  check_bags(fixture, *build(fixture, options));
}

void check_clam(Fixture& fixture) {
  const Json& config = fixture.config;
  const bool branches = config.at("model") == "CLAM_MB";
  const std::string size = config.at("size_arg");
  const Json widths = config.contains("_size_" + size)
                          ? config["_size_" + size]
                          : Json({config.at("embed_dim"), 512, size == "big" ? 384 : 256});
  const Json options = {{"type", branches ? "clam_mb" : "clam_sb"},
                        {"in_dim", config.at("embed_dim")},
                        {"classes", config.at("n_classes")},
                        {"hidden", widths[1]},
                        {"attention", widths[2]},
                        {"k_sample", config.at("k_sample")},
                        {"dropout", probability(config, 0.25)},
                        {"gated", config.at("gate")},
                        {"subtyping", config.at("subtyping")}};
  const auto model = build(fixture, options);
  const BagOutput out = check_bags(fixture, *model, true);
  fixture.check("instance_loss", out.loss.view({1}));
}

void check_ds_mil(Fixture& fixture) {
  const Json& config = fixture.config;
  const Json options = {{"type", "ds_mil"},
                        {"in_dim", config.at("in_size")},
                        {"classes", config.at("out_size")},
                        {"query", config.value("_query_width", 128)},
                        {"nonlinear", config.at("nonlinear")},
                        {"passing_v", config.at("passing_v")},
                        {"dropout_v", config.at("dropout_v")}};
  check_bags(fixture, *build(fixture, options));
}

void check_shared(Fixture& fixture, const std::string& type) {
  check_bags(fixture, *build(fixture, shared_options(fixture, type)));
}

/// Cases first: the first slide row of each.
void check_time_bins(Fixture& fixture) {
  const Tensor cases = fixture.input("bins.slide_case"),
               censored = fixture.input("bins.slide_censorship"),
               months = fixture.input("bins.slide_months");
  std::set<int64_t> seen;
  std::vector<int64_t> rows, numbers;
  for (int64_t row = 0; row < cases.size(0); ++row) {
    const auto number = cases[row].item<int64_t>();
    if (!seen.insert(number).second) continue;
    rows.push_back(row);
    numbers.push_back(number);
  }
  std::vector<double> times;
  std::vector<bool> events;
  std::vector<int64_t> bins, labels, hidden;
  for (const int64_t row : rows) {
    times.push_back(months[row].item<double>());
    events.push_back(censored[row].item<int64_t>() == 0);
    hidden.push_back(censored[row].item<int64_t>());
  }
  const auto edges = time_bin_edges(times, events, fixture.config.at("n_bins").get<int64_t>(),
                                    fixture.config.at("eps").get<double>());
  for (size_t i = 0; i < times.size(); ++i) {
    bins.push_back(time_bin(edges, times[i]));
    labels.push_back(2 * bins.back() + hidden[i]);
  }
  fixture.check_equal("bins.patient_case", torch::tensor(numbers));
  fixture.check_equal("bins.patient_censorship", torch::tensor(hidden));
  fixture.check("bins.patient_months", torch::tensor(times, torch::kDouble));
  fixture.check("bins.edges", torch::tensor(edges, torch::kDouble), 1e-12);
  fixture.check_equal("bins.disc_label", torch::tensor(bins));
  fixture.check_equal("bins.label", torch::tensor(labels));
}

void check_survival(Fixture& fixture) {
  fixture.stay_on_cpu();
  const Tensor logits = fixture.input("logits"), bin = fixture.input("Y"),
               event = 1 - fixture.input("c");
  fixture.check("hazards", hazards(logits));
  fixture.check("S", survival(logits));
  fixture.check("risk", risk_of(logits));
  for (const auto& name : fixture.names()) {
    const auto alpha = [&](size_t prefix) { return std::stod(name.substr(prefix)); };
    if (name.rfind("nll.alpha", 0) == 0) {
      const Tensor leaf = logits.detach().clone().requires_grad_();
      const Tensor loss = discrete_survival_loss(leaf, bin, event, alpha(9));
      loss.backward();
      fixture.check(name, loss.view({1}));
      fixture.check("grad." + name + ".logits", leaf.grad());
    } else if (name.rfind("ce_surv.alpha", 0) == 0) {
      fixture.check(name, survival_cross_entropy(logits, bin, event, alpha(13)).view({1}));
    }
  }
  check_time_bins(fixture);
}

}  // namespace

void add_pathology_checkers(Checkers& all) {
  all["MambaMIL"] = check_mamba_mil;
  all["DAttention (ABMIL)"] = check_ab_mil;
  all["GatedAttention (gated ABMIL)"] = check_ab_mil;
  all["CLAM_SB"] = check_clam;
  all["CLAM_MB"] = check_clam;
  all["DSMIL MILNet(FCLayer, BClassifier)"] = check_ds_mil;
  all["TransMIL"] = [](Fixture& fixture) { check_shared(fixture, "trans_mil"); };
  all["S4Model (S4MIL)"] = [](Fixture& fixture) { check_shared(fixture, "s4_mil"); };
  all["MeanMIL"] = [](Fixture& fixture) { check_shared(fixture, "mean_mil"); };
  all["MaxMIL"] = [](Fixture& fixture) { check_shared(fixture, "max_mil"); };
  all["MambaMIL survival losses and time bins"] = check_survival;
}

}  // namespace serpentine::golden
