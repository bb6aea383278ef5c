#include "apps/training_plots.h"

#include <cmath>

#include <torch/torch.h>

#include "apps/figures.h"
#include "apps/run_record.h"
#include "apps/trained.h"
#include "timeseries/series_source.h"

namespace serpentine {
namespace {

Figure loss_figure(const RunPlan& plan, const RunParts& parts, const std::string& folder) {
  std::string monitored = parts.task->monitored();
  if (!monitored.empty() && monitored.front() == '+') monitored.erase(0, 1);  // larger is better
  Figure figure;
  figure.title = "Training of " + plan.options.model.type();
  figure.x_label = "epoch";
  Panel panel;
  Curve training{"training loss", {}, {}, Ink::kFirst, true};
  Curve validation{"validation " + monitored, {}, {}, Ink::kSecond, true};
  for (const auto& evaluation : read_evaluations(folder)) {
    const auto found = evaluation.metrics.find(monitored);
    training.x.push_back(evaluation.epoch);
    training.y.push_back(evaluation.loss);
    validation.x.push_back(evaluation.epoch);
    validation.y.push_back(found == evaluation.metrics.end() ? NAN : found->second);
  }
  if (training.x.size() > 1) panel.curves = {training, validation};
  figure.panels = {panel};
  return figure;
}

/// The forecast of the latest window whose future is known.
void draw_forecast(const RunPlan& plan, const RunParts& parts, const SeriesSource& source,
                   const std::string& folder) {
  BacktestOptions options;
  options.origins = 1;
  const torch::NoGradGuard no_gradient;
  parts.model->to(torch::kCPU);
  parts.model->eval();
  draw(window_figure(backtest(*parts.model, source.schema(), source.series(), options), {},
                     plan.options.model.type()),
       folder + "/plots/forecast");
}

}  // namespace

void draw_training(const RunPlan& plan, const RunParts& parts, const std::string& folder) {
  make_folder(folder + "/plots");
  draw(loss_figure(plan, parts, folder), folder + "/plots/loss");
  if (const auto* source = dynamic_cast<const SeriesSource*>(parts.source.get())) {
    draw_forecast(plan, parts, *source, folder);
  }
}

}  // namespace serpentine
