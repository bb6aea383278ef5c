// The tasks of whole clouds: classification, and models that compute their own loss.
#include "pointcloud/cloud_task.h"

#include <torch/torch.h>

#include "core/check.h"
#include "pointcloud/pointcloud.h"

namespace serpentine {
namespace {

constexpr const char* kCloudTaskWho = "cloud_classification";

/// A model that computes its own loss, as point_mamba_masked does.
struct OwnLossOptions {
  AugmentOptions augment;
  void fields(Fields& f) { f.group("augment", augment, "what training varies"); }
};

class OwnLossTask : public Task {
 public:
  explicit OwnLossTask(OwnLossOptions options) : options_(std::move(options)) {
    options_.augment.check();
  }
  Loss loss(Model& model, const Batch& batch) override {
    return {model.forward(augmented(batch, options_.augment)).to(torch::kFloat32).mean(),
            batch.size()};
  }
  void evaluate(Model& model, const Batch& batch) override {
    const torch::NoGradGuard no_grad;
    const auto loss = model.forward(batch).to(torch::kFloat64).mean();
    const auto count = static_cast<double>(batch.size());
    sums_ = sums_.to(loss.device()) +
            torch::stack({loss * count, torch::full({}, count, loss.options())});
  }
  std::map<std::string, double> metrics() override {
    const torch::Tensor cpu = sums_.to(torch::kCPU);
    sums_ = torch::zeros_like(cpu);
    return {{"loss", (cpu[0] / cpu[1]).item<double>()}};
  }
  torch::Tensor sums() const override { return sums_; }
  void set_sums(const torch::Tensor& sums) override { sums_ = sums; }
  std::string monitored() const override { return "loss"; }

 private:
  OwnLossOptions options_;
  torch::Tensor sums_ = torch::zeros({2}, torch::kFloat64);
};

}  // namespace

void CloudTaskOptions::fields(Fields& f) {
  f("classes", classes, "classes of clouds; 0: as many as the model's output has", {.least = 0});
  f("label_smoothing", label_smoothing, "part of the target spread over all classes",
    {.least = 0, .most = 0.99});
  f("mix", mix, "probability that a training batch's clouds are mixed in pairs",
    {.least = 0, .most = 1});
  f("votes", votes, "evaluations whose probabilities are averaged, the first as the cloud lies",
    {.least = 1});
  f.group("augment", augment, "what training varies");
  f.group("vote", vote, "what further votes vary");
}

CloudTask::CloudTask(CloudTaskOptions options) : options_(std::move(options)) {
  options_.augment.check();
  options_.vote.check();
  sums_ = torch::zeros({options_.classes * options_.classes + 1}, torch::kFloat64);
}

Loss CloudTask::loss(Model& model, const Batch& batch) {
  Batch changed = augmented(batch, options_.augment);
  const int64_t count = batch.size();
  const bool mixing =
      options_.mix > 0 && count > 1 && torch::rand({1}).item<double>() < options_.mix;
  if (!mixing) {
    const auto output = model.forward(changed).to(torch::kFloat32);
    return {cross_entropy(output, batch.target).mean(), count};
  }
  const auto partner = torch::randperm(count, batch.target.options());
  const auto share = mix_clouds(changed, partner, torch::rand({count}, batch.input.options()));
  const auto output = model.forward(changed).to(torch::kFloat32);
  const auto own = cross_entropy(output, batch.target),
             other = cross_entropy(output, batch.target.index_select(0, partner));
  return {(share * own + (1 - share) * other).mean(), count};
}

torch::Tensor CloudTask::vote(Model& model, const Batch& batch) const {
  const torch::NoGradGuard no_grad;
  torch::Tensor sum;
  for (int64_t vote = 0; vote < options_.votes; ++vote) {
    const Batch seen = vote == 0 ? batch : augmented(batch, options_.vote);
    const auto chance = torch::softmax(model.forward(seen).to(torch::kFloat32), 1);
    sum = sum.defined() ? sum + chance : chance;
  }
  return sum / static_cast<double>(options_.votes);
}

std::map<std::string, double> CloudTask::metrics() {
  const torch::Tensor cpu = sums_.to(torch::kCPU);
  const auto classes =
      static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(sums_.numel() - 1))));
  const auto table = cpu.narrow(0, 0, classes * classes).view({classes, classes});
  const auto right = table.diagonal(), truth = table.sum(1);
  const auto occurs = truth > 0;
  const double total = truth.sum().item<double>();
  const double of_classes = (right / truth.clamp_min(1)).sum().item<double>();
  sums_ = torch::zeros_like(cpu);
  return {{"accuracy", right.sum().item<double>() / total},
          {"mean_accuracy", of_classes / occurs.sum().item<double>()},
          {"loss", cpu[-1].item<double>() / total}};
}

// of each cloud: [B]
torch::Tensor CloudTask::cross_entropy(const torch::Tensor& output,
                                       const torch::Tensor& target) const {
  using namespace torch::nn::functional;  // NOLINT(google-build-using-namespace): one function
  return torch::nn::functional::cross_entropy(
      output, target,
      CrossEntropyFuncOptions().label_smoothing(options_.label_smoothing).reduction(torch::kNone));
}

void CloudTask::add(const torch::Tensor& chance, const torch::Tensor& target) {
  const int64_t classes = chance.size(1);
  SERPENTINE_CHECK(options_.classes == 0 || options_.classes == classes, kCloudTaskWho,
                   "the model's output must be [B, ", options_.classes, "], got ", chance.sizes());
  if (sums_.numel() == 1) sums_ = torch::zeros({classes * classes + 1}, torch::kFloat64);
  const auto cell = target * classes + chance.argmax(1);
  const auto table = torch::zeros({classes * classes}, chance.options().dtype(torch::kFloat64))
                         .index_add(0, cell, torch::ones_like(cell, torch::kFloat64));
  const auto loss = -chance.gather(1, target.unsqueeze(1)).clamp_min(1e-30).log().sum();
  sums_ = sums_.to(table.device()) + torch::cat({table, loss.to(torch::kFloat64).reshape({1})});
}

void add_cloud_tasks(Registry<Task>& all) {
  all.add<CloudTaskOptions>("cloud_classification", [](const CloudTaskOptions& options) {
    return std::make_shared<CloudTask>(options);
  });
  all.add<OwnLossOptions>("cloud_reconstruction", [](const OwnLossOptions& options) {
    return std::make_shared<OwnLossTask>(options);
  });
}

}  // namespace serpentine
