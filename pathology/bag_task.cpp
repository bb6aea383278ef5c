#include "pathology/bag_task.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "pathology/pathology.h"
#include "pathology/survival.h"

namespace serpentine {
namespace {

BagModel& bag_model(Model& model, const char* who) {
  auto* bags = dynamic_cast<BagModel*>(&model);
  SERPENTINE_CHECK(bags, who, "the model is not one of bags (mamba_mil, ab_mil, ...)");
  return *bags;
}

/// The bag's loss with those of the model's own, each at its weight.
template <class OfLogits>
torch::Tensor whole_loss(const BagOutput& out, const OfLogits& of_logits) {
  double own = 1;
  torch::Tensor rest;
  const auto add = [&](const torch::Tensor& loss, double weight) {
    own -= weight;
    rest = rest.defined() ? rest + weight * loss : weight * loss;
  };
  if (out.second_logits.defined())
    add(of_logits(out.second_logits.to(torch::kFloat)), out.second_weight);
  if (out.loss.defined()) add(out.loss, out.loss_weight);
  const torch::Tensor bags = of_logits(out.logits.to(torch::kFloat));
  return rest.defined() ? own * bags + rest : bags;
}

/// Metrics such as an AUC need every bag: the sums are a table with a row for each bag of the data
/// set, 0 until it was evaluated. So ranks may add theirs, and batches may have any size.
class BagTask : public Task {
 public:
  void evaluate(Model& model, const Batch& batch) override {
    const torch::NoGradGuard no_grad;
    const BagOutput out = bag_model(model, who()).read(batch, false);
    const int64_t classes = out.logits.size(1), bags = batch.size();
    const torch::Tensor of = batch.get("of"), index = batch.get("index");
    const int64_t rows = of.defined() ? of.max().item<int64_t>() : sums_size() + bags;
    columns_ = classes + kExtra;
    if (!table_.defined()) {
      table_ = torch::zeros({rows, columns_}, torch::kFloat64);
    } else if (rows > table_.size(0)) {
      table_ =
          torch::cat({table_, torch::zeros({rows - table_.size(0), columns_}, torch::kFloat64)});
    }
    const auto place = (index.defined() ? index : torch::arange(rows - bags, rows)).cpu();
    const auto number = [&](const torch::Tensor& from) {
      return from.to(torch::kCPU, torch::kFloat64).view({-1, 1});
    };
    const auto loss = number(each_loss(out, batch));
    const auto time = batch.get("time"), event = batch.get("event"), none = torch::zeros_like(loss);
    table_.index_copy_(
        0, place,
        torch::cat({torch::ones_like(loss), loss, number(batch.target),
                    time.defined() ? number(time) : none, event.defined() ? number(event) : none,
                    out.logits.to(torch::kCPU, torch::kFloat64)},
                   1));
  }

  std::map<std::string, double> metrics() override {
    BagPredictions all;
    double loss = 0;
    for (int64_t row = 0; row < sums_size(); ++row) {
      const double* cells = table_.const_data_ptr<double>() + row * table_.size(1);
      if (cells[0] == 0) continue;
      loss += cells[1];
      all.targets.push_back(static_cast<int64_t>(cells[2]));
      all.times.push_back(cells[3]);
      all.events.push_back(cells[4] > 0.5);
      all.logits.emplace_back(cells + kExtra, cells + table_.size(1));
    }
    table_ = torch::Tensor();
    auto out = numbers(all);
    if (!all.logits.empty()) out["loss"] = loss / static_cast<double>(all.logits.size());
    return out;
  }

  torch::Tensor sums() const override {
    return table_.defined() ? table_ : torch::zeros({0}, torch::kFloat64);
  }
  void set_sums(const torch::Tensor& sums) override {
    if (columns_ > 0) table_ = sums.cpu().view({-1, columns_}).contiguous();
  }

 protected:
  virtual const char* who() const = 0;
  virtual torch::Tensor each_loss(const BagOutput& out, const Batch& batch) const = 0;  // [B]
  virtual std::map<std::string, double> numbers(const BagPredictions& all) const = 0;

 private:
  static constexpr int64_t kExtra = 5;  // evaluated, loss, target, time, event
  int64_t sums_size() const { return table_.defined() ? table_.size(0) : 0; }
  torch::Tensor table_;
  int64_t columns_ = 0;
};

class Classification : public BagTask {
 public:
  explicit Classification(const ClassificationOptions& options) : options_(options) {}

  Loss loss(Model& model, const Batch& batch) override {
    const BagOutput out = bag_model(model, who()).read(batch, true);
    const auto of = [&](const torch::Tensor& logits) { return each(logits, batch.target).mean(); };
    return {whole_loss(out, of), batch.size()};
  }
  std::string monitored() const override {
    return (options_.monitored == "loss" ? "" : "+") + options_.monitored;
  }

 protected:
  const char* who() const override { return "bag_classification"; }
  torch::Tensor each_loss(const BagOutput& out, const Batch& batch) const override {
    return each(out.logits.to(torch::kFloat), batch.target);
  }
  std::map<std::string, double> numbers(const BagPredictions& all) const override {
    return classification_metrics(all, options_.bootstrap);
  }

 private:
  torch::Tensor each(const torch::Tensor& logits, const torch::Tensor& target) const {
    namespace F = torch::nn::functional;
    torch::Tensor weight;
    if (!options_.class_weights.empty()) {
      SERPENTINE_CHECK(static_cast<int64_t>(options_.class_weights.size()) == logits.size(1), who(),
                       "class_weights must have ", logits.size(1), " numbers, got ",
                       options_.class_weights.size());
      weight = torch::tensor(options_.class_weights, logits.options());
    }
    if (options_.loss == "bce") {
      const auto wanted = torch::one_hot(target, logits.size(1)).to(logits.scalar_type());
      const auto loss =
          torch::binary_cross_entropy_with_logits(logits, wanted, {}, {}, at::Reduction::None)
              .mean(1);
      return weight.defined() ? loss * weight.index_select(0, target) : loss;
    }
    auto how = F::CrossEntropyFuncOptions()
                   .reduction(torch::kNone)
                   .label_smoothing(options_.label_smoothing);
    if (weight.defined()) how = how.weight(weight);
    return F::cross_entropy(logits, target, how);
  }

  ClassificationOptions options_;
};

class Survival : public BagTask {
 public:
  explicit Survival(const SurvivalOptions& options) : options_(options) {}

  Loss loss(Model& model, const Batch& batch) override {
    const BagOutput out = bag_model(model, who()).read(batch, true);
    return {whole_loss(out, [&](const torch::Tensor& logits) { return of(logits, batch); }),
            batch.size()};
  }
  std::string monitored() const override {
    return (options_.monitored == "loss" ? "" : "+") + options_.monitored;
  }

 protected:
  const char* who() const override { return "survival"; }
  torch::Tensor each_loss(const BagOutput& out, const Batch& batch) const override {
    const auto logits = out.logits.to(torch::kFloat);
    if (options_.loss == "cox") return of(logits, batch).expand({batch.size()});
    std::vector<torch::Tensor> all;
    for (int64_t bag = 0; bag < batch.size(); ++bag) {
      Batch one;
      one.target = batch.target.narrow(0, bag, 1);
      one.named["event"] = batch.get("event").narrow(0, bag, 1);
      all.push_back(of(logits.narrow(0, bag, 1), one));
    }
    return torch::stack(all);
  }
  std::map<std::string, double> numbers(const BagPredictions& all) const override {
    return survival_metrics(all, options_.bootstrap);
  }

 private:
  torch::Tensor of(const torch::Tensor& logits, const Batch& batch) const {
    const auto event = batch.get("event");
    SERPENTINE_CHECK(event.defined(), who(), "the data have no times (data.columns.time)");
    if (options_.loss == "cox") return cox_loss(logits.squeeze(1), batch.get("time"), event);
    return options_.loss == "nll"
               ? discrete_survival_loss(logits, batch.target, event, options_.alpha)
               : survival_cross_entropy(logits, batch.target, event, options_.alpha);
  }

  SurvivalOptions options_;
};

}  // namespace

void ClassificationOptions::fields(Fields& f) {
  f("loss", loss, "bce: each class apart, as DSMIL trains", {.choices = {"cross_entropy", "bce"}});
  f("monitored", monitored, "what picks the best checkpoint",
    {.choices = {"loss", "auc", "accuracy", "balanced_accuracy", "f1"}});
  f("class_weights", class_weights, "of each class's bags in the loss", {.least = 0});
  f("label_smoothing", label_smoothing, "part of the target spread over all classes",
    {.least = 0, .most = 0.99});
  f("bootstrap", bootstrap, "resamples of the AUC's interval; 0: none", {.least = 0});
}

void SurvivalOptions::fields(Fields& f) {
  f("loss", loss,
    "nll: likelihood of time bins; ce: with a cross entropy of survival; cox: partial likelihood "
    "over a batch, which needs several bags",
    {.choices = {"nll", "ce", "cox"}});
  f("monitored", monitored, "what picks the best checkpoint", {.choices = {"c_index", "loss"}});
  f("alpha", alpha, "extra weight of bags whose event was seen", {.least = 0, .most = 1});
  f("bootstrap", bootstrap, "resamples of the C-index's interval; 0: none", {.least = 0});
}

void add_bag_tasks(Registry<Task>& all) {
  all.add<ClassificationOptions>("bag_classification", [](const ClassificationOptions& options) {
    return std::make_shared<Classification>(options);
  });
  all.add<SurvivalOptions>("survival", [](const SurvivalOptions& options) {
    return std::make_shared<Survival>(options);
  });
}

}  // namespace serpentine
