#include <set>

#include <ATen/CPUGeneratorImpl.h>
#include <torch/torch.h>

#include "apps/parity.h"
#include "core/check.h"

namespace serpentine {
namespace {

using Tensors = std::map<std::string, torch::Tensor>;

/// The name of a named input that `key` records, or "": "input.marks" and the reference's "x_mark".
std::string named_input(const std::string& key) {
  if (key.rfind("input.", 0) == 0) return key.substr(6);
  return key == "x_mark" ? "marks" : "";
}

bool is_input(const std::string& key) {
  return key == "input" || key == "cotangent" || !named_input(key).empty();
}

/// A variant is words joined by '_': "nomark" leaves out the input marks, "nonorm" sets use_norm:
/// false.
struct Variant {
  std::set<std::string> without;
  std::vector<std::string> options;
};

Variant parse_variant(const std::string& text, const Tensors& inputs) {
  Variant variant;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find('_', begin), text.size());
    std::string word = text.substr(begin, end - begin);
    begin = end + 1;
    if (word.rfind("no", 0) == 0) word = word.substr(2);
    bool found = false;
    for (const auto& [key, tensor] : inputs) {
      const std::string name = named_input(key);
      if (name.empty() || name.rfind(word, 0) != 0) continue;
      variant.without.insert(name);
      found = true;
    }
    if (!found) variant.options.push_back("model.use_" + word + "=false");
  }
  return variant;
}

/// What one forward (and backward) pass gave, under the names of a recording.
struct Outcome {
  Tensors tensors;
  torch::Tensor output;
};

Outcome pass(const ParityModel& parity, const Tensors& recorded, const Variant& variant,
             bool gradients) {
  const auto model = parity.build(variant.options);
  Outcome outcome;
  model->trace = &outcome.tensors;
  Tensors inputs;
  Batch batch;
  for (const auto& [key, tensor] : recorded) {
    const std::string name = named_input(key);
    if (!is_input(key) || key == "cotangent" || variant.without.count(name)) continue;
    inputs[key] = tensor.clone();
    if (gradients && tensor.is_floating_point()) inputs[key].set_requires_grad(true);
    (key == "input" ? batch.input : batch.named[name]) = inputs[key];
  }
  const torch::AutoGradMode mode(gradients);
  outcome.output = model->forward(batch);
  model->trace = nullptr;
  if (!gradients) return outcome;
  if (!outcome.output.requires_grad()) return outcome;  // a model without anything to learn
  (outcome.output * recorded.at("cotangent")).sum().backward();
  for (const auto& parameter : model->named_parameters()) {
    if (parameter.value().grad().defined())
      outcome.tensors["grad." + parameter.key()] = parameter.value().grad();
  }
  for (const auto& [key, tensor] : inputs) {
    if (tensor.grad().defined()) outcome.tensors["grad." + key] = tensor.grad();
  }
  return outcome;
}

Tensors checked(const StateDict& recorded, const std::string& file) {
  Tensors all(recorded.begin(), recorded.end());
  TORCH_CHECK(all.count("input"), file, ": a recording needs a tensor 'input', this one holds ",
              all.size(), " tensors without it");
  return all;
}

/// "grad_nonorm.input" is {grad, nonorm, input}; "output.nomark" is {output, nomark, ""}.
struct Key {
  bool output = false, gradient = false;
  std::string variant, name;
};

Key parse_key(const std::string& text) {
  Key key;
  const size_t dot = text.find('.');
  const std::string head = text.substr(0, dot);
  const std::string tail = dot == std::string::npos ? "" : text.substr(dot + 1);
  key.output = head == "output";
  key.gradient = head == "grad" || head.rfind("grad_", 0) == 0;
  if (key.output) key.variant = tail;
  if (key.gradient) {
    key.variant = head.size() > 5 ? head.substr(5) : "";
    key.name = tail;
  }
  return key;
}

void judge(ParityRow& row, const torch::Tensor& expected, const torch::Tensor& actual) {
  row.verdict = ParityVerdict::kBeyond;
  if (actual.sizes() != expected.sizes()) {
    row.note =
        c10::str("the recording has ", expected.sizes(), ", the model gives ", actual.sizes());
    return;
  }
  if (expected.numel() == 0) {
    row.verdict = ParityVerdict::kClose;
    return;
  }
  const auto want = expected.detach().to(torch::kFloat64);
  const auto difference = (actual.detach().to(torch::kFloat64) - want).abs();
  const double largest = std::max(want.abs().max().item<double>(), 1e-30);
  row.max_error = difference.max().item<double>() / largest;
  row.rms_error = difference.square().mean().sqrt().item<double>() / largest;
  if (!std::isfinite(row.max_error)) {
    row.note = "there are values that are not finite";
  } else if (row.max_error <= row.tolerance) {
    row.verdict = ParityVerdict::kClose;
  }
}

}  // namespace

Batch recorded_batch(const StateDict& recorded, const std::string& file) {
  Batch batch;
  for (const auto& [key, tensor] : checked(recorded, file)) {
    const std::string name = named_input(key);
    if (key == "input") batch.input = tensor;
    if (!name.empty()) batch.named[name] = tensor;
  }
  return batch;
}

std::vector<ParityRow> compare_parity(const ParityModel& model, const StateDict& recorded,
                                      double tolerance, const std::string& file) {
  const Tensors all = checked(recorded, file);
  std::map<std::string, Outcome> outcomes;
  std::vector<ParityRow> rows;
  for (const auto& [name, expected] : recorded) {
    if (is_input(name)) continue;
    const Key key = parse_key(name);
    ParityRow row;
    row.name = name;
    row.tolerance = tolerance > 0 ? tolerance : key.gradient ? 1e-4 : 2e-5;
    TORCH_CHECK(!key.gradient || all.count("cotangent"), file, ": holds '", name,
                "' but no 'cotangent'");
    auto outcome = outcomes.find(key.variant);
    if (outcome == outcomes.end()) {
      const Variant variant = parse_variant(key.variant, all);
      outcome = outcomes.emplace(key.variant, pass(model, all, variant, all.count("cotangent") > 0))
                    .first;
    }
    const auto& tensors = outcome->second.tensors;
    const auto found = tensors.find(key.gradient ? "grad." + key.name : name);
    if (key.output) {
      judge(row, expected, outcome->second.output);
    } else if (found != tensors.end()) {
      judge(row, expected, found->second);
    }
    rows.push_back(row);
  }
  return rows;
}

StateDict record_parity(const ParityModel& model, const StateDict& recorded,
                        const std::string& file, bool with_gradients) {
  Tensors all = checked(recorded, file);
  StateDict out;
  if (with_gradients && !all.count("cotangent")) {
    const torch::Tensor output = pass(model, all, {}, false).output;
    all["cotangent"] = torch::randn(output.sizes(), at::detail::createCPUGenerator(1));
    out.emplace_back("cotangent", all["cotangent"]);
  }
  for (const auto& [name, tensor] : recorded) {
    if (is_input(name)) out.emplace_back(name, tensor);
  }
  const Outcome outcome = pass(model, all, {}, all.count("cotangent") > 0);
  out.emplace_back("output", outcome.output.detach());
  for (const auto& [name, tensor] : outcome.tensors) out.emplace_back(name, tensor.detach());
  return out;
}

}  // namespace serpentine
