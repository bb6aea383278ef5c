#include "core/train/nan_guard.h"

#include <map>
#include <sstream>
#include <utility>

#include <ATen/record_function.h>
#include <torch/torch.h>

#include "core/check.h"
#include "core/train/precision.h"

namespace serpentine {

namespace {

bool is_bad(const torch::Tensor& tensor) {
  return tensor.defined() && tensor.is_floating_point() && tensor.numel() > 0 &&
         !torch::isfinite(tensor.detach()).all().item<bool>();
}

std::string place_of(const torch::Tensor& tensor) {
  const torch::Tensor bad = torch::nonzero(torch::isfinite(tensor.detach()).logical_not());
  std::ostringstream out;
  out << "[";
  for (int64_t axis = 0; axis < bad.size(1); ++axis)
    out << (axis ? ", " : "") << bad[0][axis].item<int64_t>();
  out << "], " << bad.size(0) << " of " << tensor.numel() << " values";
  return out.str();
}

std::string module_of(const std::string& parameter) {
  const size_t dot = parameter.rfind('.');
  return dot == std::string::npos ? "the model itself" : "layer '" + parameter.substr(0, dot) + "'";
}

/// What the watched operators told so far.
struct Watch {
  std::map<const void*, std::string> parameter_of;  // by storage: views of a parameter count as it
  std::vector<std::string> touched;                 // parameters in the order of first use
  std::string last, operator_name, layer;           // of the first bad output
  bool found = false, asking = false;
};

// callbacks are plain functions, so the watch that is on reaches them through its thread
thread_local Watch* watching = nullptr;

struct Call : at::ObserverContext {
  bool bad_input = false;
  std::string layer;
};

template <class Values>
bool any_bad(const Values& values) {
  for (const auto& value : values) {
    if (value.isTensor() && is_bad(value.toTensor())) return true;
    if (!value.isTensorList()) continue;
    for (const torch::Tensor& tensor : value.toTensorVector()) {
      if (is_bad(tensor)) return true;
    }
  }
  return false;
}

std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
  auto call = std::make_unique<Call>();
  if (watching == nullptr || watching->found || watching->asking) return call;
  watching->asking = true;  // the checks below are operators as well
  const auto inputs = function.inputs();
  for (const auto& input : inputs) {
    if (!input.isTensor() || !input.toTensor().defined() || !input.toTensor().has_storage())
      continue;
    const auto parameter =
        watching->parameter_of.find(input.toTensor().storage().unsafeGetStorageImpl());
    if (parameter == watching->parameter_of.end()) continue;
    watching->last = module_of(parameter->second);
    watching->touched.push_back(parameter->second);
  }
  // empty() and the like hand out memory that was never written
  const std::string name = function.name();
  call->bad_input = name.find("empty") != std::string::npos ||
                    name.find("_to_copy") != std::string::npos || any_bad(inputs);
  call->layer = watching->last;
  watching->asking = false;
  return call;
}

void on_end(const at::RecordFunction& function, at::ObserverContext* context) {
  const auto* call = static_cast<Call*>(context);
  if (watching == nullptr || watching->found || watching->asking || call == nullptr) return;
  watching->asking = true;
  if (!call->bad_input && any_bad(function.outputs())) {
    watching->found = true;
    watching->operator_name = function.name();
    watching->layer = call->layer.empty() ? watching->last : call->layer;
  }
  watching->asking = false;
}

/// Watches every operator of this thread while it lives.
class Watching {
 public:
  explicit Watching(Watch& watch) {
    watching = &watch;
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(on_start, on_end)
                                             .needsInputs(true)
                                             .needsOutputs(true)
                                             .scopes({at::RecordScope::FUNCTION}));
  }
  ~Watching() {
    at::removeCallback(handle_);
    watching = nullptr;
  }
  Watching(const Watching&) = delete;
  Watching& operator=(const Watching&) = delete;

 private:
  at::CallbackHandle handle_;
};

std::string bad_gradients(const Model& model, const Watch& watch) {
  std::map<std::string, torch::Tensor> bad;
  for (const auto& item : model.named_parameters()) {
    if (is_bad(item.value().grad())) bad[item.key()] = item.value().grad();
  }
  if (bad.empty()) return "";
  std::string name = bad.begin()->first;
  for (const auto& touched : watch.touched) {
    if (bad.count(touched)) name = touched;
  }
  return "the loss is finite but gradients are not, first (from the loss) in " + module_of(name) +
         ": '" + name + "' " + place_of(bad.at(name)) + ", " + std::to_string(bad.size()) +
         " parameters in all";
}

}  // namespace

std::vector<std::string> non_finite_inputs(const Batch& batch) {
  std::vector<std::string> out;
  const auto look = [&](const std::string& name, const torch::Tensor& tensor) {
    if (is_bad(tensor)) out.push_back(name + place_of(tensor));
  };
  look("input", batch.input);
  look("target", batch.target);
  look("coords", batch.coords);
  for (const auto& [name, tensor] : batch.named) look(name, tensor);
  return out;
}

std::string find_non_finite(Model& model, Task& task, const Batch& batch, torch::Device device,
                            std::optional<torch::ScalarType> autocast) {
  const torch::AutoGradMode with_gradients(true);
  Watch watch;
  for (const auto& item : model.named_parameters()) {
    if (is_bad(item.value()))
      return module_of(item.key()) + " holds the bad parameter '" + item.key() + "' " +
             place_of(item.value());
    watch.parameter_of[item.value().storage().unsafeGetStorageImpl()] = item.key();
  }
  model.zero_grad();
  const Batch there = batch.to(device);
  Loss loss;
  {
    const Watching on(watch);
    const Autocast scope(device.type(), autocast);
    loss = task.loss(model, there);
  }
  if (watch.found) {
    return (watch.layer.empty() ? "before the first layer" : watch.layer) +
           " made the first bad value, in operator " + watch.operator_name;
  }
  if (is_bad(loss.value))
    return "the loss is not finite although no operator made a bad value from good ones";
  if (loss.value.requires_grad()) loss.value.backward();
  return bad_gradients(model, watch);
}

void throw_non_finite(Model& model, Task& task, const std::vector<Batch>& batches,
                      torch::Device device, std::optional<torch::ScalarType> autocast,
                      const TrainState& state) {
  std::ostringstream message;
  message << "a value is not finite in step " << state.step + 1 << " (epoch " << state.epoch + 1
          << ", batch " << state.batch_in_epoch + 1 << ")";
  std::string cause;
  for (const auto& batch : batches) {
    if (batch.size() == 0) continue;
    for (const auto& input : non_finite_inputs(batch))
      message << "; the batch has bad values in " << input;
    if (cause.empty()) cause = find_non_finite(model, task, batch, device, autocast);
  }
  message << "; "
          << (cause.empty() ? "it did not come back when the step was repeated on this rank"
                            : cause)
          << ". The last checkpoint is untouched; a lower learning rate, clip_norm or precision "
             "fp32 may help";
  SERPENTINE_CHECK(false, "trainer", message.str());
  std::abort();  // never reached: tells the compiler so
}

}  // namespace serpentine
