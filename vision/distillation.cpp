// The task of learning from a teacher: a run that was trained before on the same kind of pictures.
//
// Hinton et al., arXiv 1503.02531: softened outputs. Staged: for its first steps the student pulls
// its weights towards those of the teacher that have the same name and shape, then it learns the
// outputs; small models that share the teacher's layout gain from it.
#include <filesystem>
#include <utility>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/io/json_file.h"
#include "core/io/state_dict.h"
#include "core/train/checkpoint.h"
#include "core/train/classification.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

constexpr const char* kDistillationWho = "distillation";

struct DistillationOptions : ClassificationTaskOptions {
  std::string teacher;
  double temperature = 2, alpha = 0.5;
  bool hard = false;
  int64_t weight_steps = 0;
  void fields(Fields& f) {
    ClassificationTaskOptions::fields(f);
    f("teacher", teacher, "run folder of the teacher", {.required = true});
    f("temperature", temperature, "what both outputs are divided by", {.least = 0.01});
    f("alpha", alpha, "share of the teacher in the loss; the rest is the labels'",
      {.least = 0, .most = 1});
    f("hard", hard, "learn the teacher's answers instead of its probabilities");
    f("weight_steps", weight_steps,
      "first steps that only pull the student's weights towards the teacher's of equal name and "
      "shape; 0: none",
      {.least = 0});
  }
};

std::shared_ptr<Model> open_teacher(const std::string& folder) {
  const std::string yaml = folder + "/config.yaml";
  const std::string weights = folder + "/checkpoints/best.safetensors";
  SERPENTINE_CHECK(std::filesystem::exists(yaml) && std::filesystem::exists(weights),
                   kDistillationWho, "the teacher '", folder,
                   "' is no finished run: it holds no config.yaml or checkpoints/best.safetensors");
  Registry<Model> models{"model"};
  add_vision_models(models);
  auto model = models.build(Config::load(yaml).child("model"));
  const LoadReport fit = load_state_dict(*model, read_weights(weights), model->tolerated_keys());
  SERPENTINE_CHECK(fit.ok(), weights, "does not fit the model of ", yaml, "\n", fit.text());
  for (auto& parameter : model->parameters()) parameter.requires_grad_(false);
  model->eval();
  return model;
}

class DistillationTask : public ClassificationTask {
 public:
  explicit DistillationTask(DistillationOptions options)
      : ClassificationTask(options),
        options_(std::move(options)),
        teacher_(open_teacher(options_.teacher)) {}

  void at_step(int64_t step) override { step_ = step; }
  bool same_every_step() const override { return false; }

  Loss loss(Model& model, const Batch& batch) override {
    if (device_ != batch.input.device()) {
      device_ = batch.input.device();
      teacher_->to(device_);
    }
    if (step_ < options_.weight_steps) return {distance(model), batch.size()};
    const auto logits = model.forward(batch);
    const Loss labels = loss_of(logits, batch);
    if (options_.alpha == 0) return labels;
    torch::Tensor taught;
    {
      const torch::NoGradGuard no_grad;
      taught = teacher_->forward(batch).to(torch::kFloat32);
    }
    SERPENTINE_CHECK(taught.sizes() == logits.sizes(), kDistillationWho, "the teacher's output is ",
                     taught.sizes(), ", the student's ", logits.sizes());
    const auto own = logits.to(torch::kFloat32);
    torch::Tensor other;
    if (options_.hard) {
      other = torch::nn::functional::cross_entropy(own, taught.argmax(1));
    } else {
      const double t = options_.temperature;
      const auto chance = torch::softmax(taught / t, 1);
      const auto gap = torch::log_softmax(taught / t, 1) - torch::log_softmax(own / t, 1);
      other = (chance * gap).sum(1).mean() * (t * t);
    }
    return {options_.alpha * other + (1 - options_.alpha) * labels.value, batch.size()};
  }

 private:
  /// Squared distance of the weights that both have, over the teacher's squared length.
  torch::Tensor distance(Model& model) const {
    const auto theirs = teacher_->named_parameters();
    torch::Tensor gap, length;
    for (const auto& item : model.named_parameters()) {
      const auto* twin = theirs.find(item.key());
      if (twin == nullptr || twin->sizes() != item.value().sizes()) continue;
      const auto one = (item.value() - *twin).square().sum(), all = twin->square().sum();
      gap = gap.defined() ? gap + one : one;
      length = length.defined() ? length + all : all;
    }
    SERPENTINE_CHECK(gap.defined(), kDistillationWho,
                     "weight_steps needs weights of equal name and shape in teacher and student, "
                     "but there are none");
    return gap / length.clamp_min(1e-12);
  }

  DistillationOptions options_;
  std::shared_ptr<Model> teacher_;
  torch::Device device_ = torch::kCPU;
  int64_t step_ = 0;
};

}  // namespace

void add_distillation(Registry<Task>& all) {
  all.add<DistillationOptions>("distillation", [](const DistillationOptions& options) {
    return std::make_shared<DistillationTask>(options);
  });
}

void check_teacher(const Config& task, const nlohmann::json& description) {
  if (task.type() != "distillation") return;
  const auto options = task.read_typed<DistillationOptions>(DistillationOptions{});
  const auto taught = read_json(options.teacher + "/data.json");
  if (!taught.is_object()) return;  // the task itself says what is missing
  for (const char* key : {"kind", "classes", "image_size", "channels", "mean", "std"}) {
    SERPENTINE_CHECK(taught.contains(key) && taught[key] == description.at(key), kDistillationWho,
                     "the teacher ", options.teacher, " was trained on other pictures: `", key,
                     "` is ", taught.contains(key) ? taught[key].dump() : "missing", ", here ",
                     description.at(key).dump());
  }
}

}  // namespace serpentine
