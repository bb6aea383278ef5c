#include "pointcloud/point_task.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "pointcloud/pointcloud.h"

namespace serpentine {
namespace {

constexpr const char* kPointTaskWho = "point_classification";

}  // namespace

void PointTaskOptions::fields(Fields& f) {
  f("label_smoothing", label_smoothing, "part of the target spread over all classes",
    {.least = 0, .most = 0.99});
  f("class_weights", class_weights, "of each class in the loss; empty: all alike", {.least = 0});
  f.group("augment", augment, "what training varies");
}

PointTask::PointTask(PointTaskOptions options)
    : options_(std::move(options)), sums_(torch::zeros({2}, torch::kFloat64)) {
  options_.augment.check();
  SERPENTINE_CHECK(options_.augment.drop_points == 0, kPointTaskWho,
                   "augment.drop_points would move points under their classes; it must be 0");
}

torch::Tensor PointTask::scores(Model& model, const Batch& batch) const {
  const auto output = model.forward(batch).to(torch::kFloat32);
  SERPENTINE_CHECK(output.dim() == 3 && output.size(1) == batch.input.size(1), kPointTaskWho,
                   "the model must give [B, points, classes] for ", batch.input.size(1),
                   " points, got ", output.sizes(), "; it is not one that labels points");
  return output.flatten(0, 1);
}

Loss PointTask::loss(Model& model, const Batch& batch) {
  const auto output = scores(model, augmented(batch, options_.augment));
  const auto target = batch.target.flatten();
  const auto count = target.ge(0).sum();
  auto how = torch::nn::functional::CrossEntropyFuncOptions()
                 .ignore_index(-1)
                 .label_smoothing(options_.label_smoothing)
                 .reduction(torch::kSum);
  if (!options_.class_weights.empty()) {
    SERPENTINE_CHECK(static_cast<int64_t>(options_.class_weights.size()) == output.size(1),
                     kPointTaskWho, "class_weights must have one value for each of the ",
                     output.size(1), " classes, got ", options_.class_weights.size());
    how.weight(torch::tensor(options_.class_weights, output.options()));
  }
  const auto sum = torch::nn::functional::cross_entropy(output, target, how);
  return {sum / count.clamp_min(1), batch.size()};
}

void PointTask::evaluate(Model& model, const Batch& batch) {
  const torch::NoGradGuard no_grad;
  const auto output = scores(model, batch), target = batch.target.flatten();
  const int64_t classes = output.size(1);
  if (sums_.numel() == 2) sums_ = torch::zeros({classes * classes + 2}, torch::kFloat64);
  const auto kept = target.ge(0).nonzero().squeeze(1);
  const auto judged = output.index_select(0, kept), truth = target.index_select(0, kept);
  const auto cell = truth * classes + judged.argmax(1);
  const auto table = torch::zeros({classes * classes}, judged.options().dtype(torch::kFloat64))
                         .index_add(0, cell, torch::ones_like(cell, torch::kFloat64));
  const auto loss =
      -torch::log_softmax(judged, 1).gather(1, truth.unsqueeze(1)).to(torch::kFloat64).sum();
  const auto count = torch::full({}, static_cast<double>(kept.size(0)), loss.options());
  sums_ = sums_.to(table.device()) + torch::cat({table, torch::stack({loss, count})});
}

std::map<std::string, double> PointTask::metrics() {
  const torch::Tensor cpu = sums_.to(torch::kCPU);
  const auto classes =
      static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(cpu.numel() - 2))));
  const auto table = cpu.narrow(0, 0, classes * classes).view({classes, classes});
  const auto right = table.diagonal(), truth = table.sum(1), either = truth + table.sum(0) - right;
  const double occurs = either.gt(0).sum().item<double>(), known = truth.gt(0).sum().item<double>();
  const double points = cpu[-1].item<double>();
  sums_ = torch::zeros_like(cpu);
  return {{"accuracy", right.sum().item<double>() / points},
          {"mean_accuracy", (right / truth.clamp_min(1)).sum().item<double>() / known},
          {"miou", (right / either.clamp_min(1)).sum().item<double>() / occurs},
          {"loss", cpu[-2].item<double>() / points}};
}

void add_point_task(Registry<Task>& all) {
  all.add<PointTaskOptions>("point_classification", [](const PointTaskOptions& options) {
    return std::make_shared<PointTask>(options);
  });
}

}  // namespace serpentine
