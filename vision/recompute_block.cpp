#include "vision/recompute_block.h"

#include <mutex>
#include <optional>

#include <ATen/autocast_mode.h>
#include <torch/torch.h>

namespace serpentine {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Everything that a second run needs to be the same as the first.
struct Run : torch::CustomClassHolder {
  TensorBlock block;
  std::vector<bool> given;         // which inputs were defined
  Tensor cpu_draws, device_draws;  // states of the generators before the run
  c10::Device device = at::kCPU;
  bool autocast = false;
  at::ScalarType autocast_type = at::kFloat;
};

/// Sets a default generator's state and gives the former one back at the end.
class Draws {
 public:
  Draws(c10::Device device, const Tensor& state)
      : generator_(at::globalContext().defaultGenerator(device)) {
    const std::lock_guard<std::mutex> lock(generator_.mutex());
    before_ = generator_.get_state();
    generator_.set_state(state);
  }
  ~Draws() {
    const std::lock_guard<std::mutex> lock(generator_.mutex());
    generator_.set_state(before_);
  }
  Draws(const Draws&) = delete;
  Draws& operator=(const Draws&) = delete;

  static Tensor state(c10::Device device) {
    at::Generator generator = at::globalContext().defaultGenerator(device);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    return generator.get_state();
  }

 private:
  at::Generator generator_;
  Tensor before_;
};

class Autocast {
 public:
  explicit Autocast(const Run& run)
      : type_(run.device.type()),
        enabled_(at::autocast::is_autocast_enabled(type_)),
        dtype_(at::autocast::get_autocast_dtype(type_)) {
    at::autocast::set_autocast_enabled(type_, run.autocast);
    at::autocast::set_autocast_dtype(type_, run.autocast_type);
  }
  ~Autocast() {
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(type_, enabled_);
    at::autocast::set_autocast_dtype(type_, dtype_);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  at::DeviceType type_;
  bool enabled_;
  at::ScalarType dtype_;
};

/// The inputs in their places, undefined ones among them.
variable_list placed(const Run& run, const variable_list& defined) {
  variable_list all;
  size_t next = 0;
  for (const bool given : run.given) all.push_back(given ? defined[next++] : Tensor());
  return all;
}

class Recompute : public torch::autograd::Function<Recompute> {
 public:
  static variable_list forward(AutogradContext* context, at::TensorList defined,
                               const c10::intrusive_ptr<Run>& run) {
    context->save_for_backward(defined.vec());
    context->saved_data["run"] = c10::IValue::make_capsule(run);
    const torch::NoGradGuard no_grad;
    return run->block(placed(*run, defined.vec()));
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto run =
        c10::static_intrusive_pointer_cast<Run>(context->saved_data["run"].toCapsule());
    variable_list leaves;
    for (const Tensor& saved : context->get_saved_variables())
      leaves.push_back(saved.detach().requires_grad_(saved.requires_grad()));
    variable_list again;
    {
      const torch::AutoGradMode with_grad(true);
      const Draws cpu(at::kCPU, run->cpu_draws);
      std::optional<Draws> device;
      if (run->device_draws.defined()) device.emplace(run->device, run->device_draws);
      const Autocast autocast(*run);
      again = run->block(placed(*run, leaves));
    }
    variable_list outputs, seeds;
    for (size_t i = 0; i < again.size(); ++i) {
      if (!again[i].requires_grad() || !gradients[i].defined()) continue;
      outputs.push_back(again[i]);
      seeds.push_back(gradients[i]);
    }
    if (!outputs.empty()) torch::autograd::backward(outputs, seeds);
    variable_list all;
    for (const Tensor& leaf : leaves) all.push_back(leaf.grad());
    all.emplace_back();  // the run's
    return all;
  }
};

}  // namespace

std::vector<Tensor> recompute_block(const TensorBlock& block, const std::vector<Tensor>& inputs) {
  auto run = c10::make_intrusive<Run>();
  variable_list defined;
  bool learns = false;
  for (const Tensor& input : inputs) {
    run->given.push_back(input.defined());
    if (!input.defined()) continue;
    defined.push_back(input);
    learns = learns || input.requires_grad();
  }
  if (!learns || !torch::GradMode::is_enabled()) return block(inputs);
  run->block = block;
  run->device = defined[0].device();
  run->cpu_draws = Draws::state(at::kCPU);
  if (!run->device.is_cpu()) run->device_draws = Draws::state(run->device);
  run->autocast = at::autocast::is_autocast_enabled(run->device.type());
  run->autocast_type = at::autocast::get_autocast_dtype(run->device.type());
  return Recompute::apply(at::TensorList(defined), run);
}

Tensor recompute_block(bool wanted, const std::function<Tensor(const Tensor&)>& block,
                       const Tensor& x) {
  if (!wanted) return block(x);
  const TensorBlock one = [block](const std::vector<Tensor>& inputs) {
    return std::vector<Tensor>{block(inputs[0])};
  };
  return recompute_block(one, {x})[0];
}

}  // namespace serpentine
