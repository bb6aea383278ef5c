#include "pathology/cross_validation.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <torch/torch.h>

#include "core/check.h"
#include "core/io/atomic_file.h"
#include "core/io/csv.h"
#include "core/io/plot.h"
#include "pathology/statistics.h"

namespace serpentine {
namespace {

std::string exact(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

std::vector<std::vector<double>> probabilities(const BagPredictions& all, double temperature) {
  std::vector<std::vector<double>> rows;
  for (const auto& logits : all.logits) rows.push_back(softmax_of(logits, temperature));
  return rows;
}

}  // namespace

NamedPredictions predict_bags(BagModel& model, const BagDataset& bags, torch::Device device) {
  const torch::NoGradGuard no_grad;
  model.eval();
  NamedPredictions out;
  for (int64_t i = 0; i < bags.size(); ++i) {
    const Batch batch = bags.get_batch({i}).to(device);
    const torch::Tensor logits =
        model.forward(batch).to(torch::kCPU, torch::kDouble).flatten().contiguous();
    out.names.push_back(bags.bag(i).name);
    out.all.logits.emplace_back(logits.const_data_ptr<double>(),
                                logits.const_data_ptr<double>() + logits.numel());
    out.all.targets.push_back(bags.target(i));
    out.all.times.push_back(bags.bag(i).time);
    out.all.events.push_back(bags.bag(i).event);
  }
  return out;
}

void write_predictions(const std::string& path, const NamedPredictions& predictions, bool survival,
                       double temperature) {
  const size_t outputs = predictions.all.logits.empty() ? 0 : predictions.all.logits.front().size();
  std::string text = survival ? "name,target,time,event" : "name,target";
  for (size_t c = 0; c < outputs; ++c) text += ",logit" + std::to_string(c);
  for (size_t c = 0; c < outputs && !survival; ++c) text += ",probability" + std::to_string(c);
  if (survival) text += ",risk";
  text += "\n";
  for (size_t i = 0; i < predictions.names.size(); ++i) {
    const auto& logits = predictions.all.logits[i];
    text += csv_cell(predictions.names[i]) + "," + std::to_string(predictions.all.targets[i]);
    if (survival)
      text += "," + exact(predictions.all.times[i]) + (predictions.all.events[i] ? ",1" : ",0");
    for (const double logit : logits) text += "," + exact(logit);
    if (survival) {
      text += "," + exact(risk_of(logits));
    } else {
      for (const double p : softmax_of(logits, temperature)) text += "," + exact(p);
    }
    text += "\n";
  }
  write_atomically(path, text);
}

NamedPredictions read_predictions(const std::string& path, bool survival) {
  const CsvTable table = read_csv(path, {.header = "yes"});
  const auto at = [&](const std::string& name) {
    const auto found = std::find(table.names.begin(), table.names.end(), name);
    SERPENTINE_CHECK(found != table.names.end(), path, "there is no column '", name, "'");
    return static_cast<int64_t>(found - table.names.begin());
  };
  std::vector<int64_t> logits;
  for (int64_t c = 0; c < table.columns(); ++c) {
    if (table.names[static_cast<size_t>(c)].rfind("logit", 0) == 0) logits.push_back(c);
  }
  NamedPredictions out;
  for (int64_t row = 0; row < table.rows(); ++row) {
    out.names.emplace_back(table.cell(row, at("name")));
    out.all.targets.push_back(static_cast<int64_t>(table.number(row, at("target"))));
    out.all.times.push_back(survival ? table.number(row, at("time")) : 0);
    out.all.events.push_back(survival && table.number(row, at("event")) > 0.5);
    std::vector<double> values;
    for (const int64_t column : logits) values.push_back(table.number(row, column));
    out.all.logits.push_back(std::move(values));
  }
  return out;
}

std::map<std::string, double> fold_metrics(const NamedPredictions& test, bool survival,
                                           double temperature) {
  if (survival) return survival_metrics(test.all, 0);
  auto metrics = classification_metrics(test.all, 0);
  metrics["ece"] = calibration_error(probabilities(test.all, 1), test.all.targets);
  metrics["ece_calibrated"] =
      calibration_error(probabilities(test.all, temperature), test.all.targets);
  return metrics;
}

NamedPredictions ensemble(const std::vector<FoldResult>& folds, bool survival) {
  NamedPredictions out;
  std::map<std::string, size_t> place;
  std::vector<double> count;
  std::vector<std::vector<double>> sums;
  for (const FoldResult& fold : folds) {
    for (size_t i = 0; i < fold.test.names.size(); ++i) {
      const auto& logits = fold.test.all.logits[i];
      const auto values =
          survival ? std::vector<double>{risk_of(logits)} : softmax_of(logits, fold.temperature);
      const auto [found, fresh] = place.try_emplace(fold.test.names[i], out.names.size());
      if (fresh) {
        out.names.push_back(fold.test.names[i]);
        out.all.targets.push_back(fold.test.all.targets[i]);
        out.all.times.push_back(fold.test.all.times[i]);
        out.all.events.push_back(fold.test.all.events[i]);
        sums.emplace_back(values.size(), 0.0);
        count.push_back(0);
      }
      ++count[found->second];
      for (size_t c = 0; c < values.size(); ++c) sums[found->second][c] += values[c];
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    std::vector<double> logits;
    for (const double sum : sums[i]) {
      const double mean = sum / count[i];
      logits.push_back(survival ? mean : std::log(std::max(mean, 1e-300)));
    }
    out.all.logits.push_back(std::move(logits));
  }
  return out;
}

SummaryTable summarize(const std::vector<FoldResult>& folds, bool survival, int64_t draws) {
  SummaryTable table;
  for (const auto& [name, value] : folds.front().metrics) table.columns.push_back(name);
  std::vector<double> means, deviations;
  for (const FoldResult& fold : folds) {
    std::vector<double> row;
    for (const auto& name : table.columns) row.push_back(fold.metrics.at(name));
    table.rows.emplace_back(std::to_string(fold.fold), row);
  }
  for (size_t c = 0; c < table.columns.size(); ++c) {
    std::vector<double> values;
    for (const auto& row : table.rows) {
      if (!std::isnan(row.second[c])) values.push_back(row.second[c]);
    }
    means.push_back(values.empty() ? std::nan("") : mean_of(values));
    deviations.push_back(deviation_of(values));
  }
  const NamedPredictions together = ensemble(folds, survival);
  auto pooled = survival ? survival_metrics(together.all, draws)
                         : classification_metrics(together.all, draws);
  if (!survival)
    pooled["ece_calibrated"] =
        calibration_error(probabilities(together.all, 1), together.all.targets);
  for (const auto& [name, value] : pooled) {  // columns that only the ensemble has: intervals
    if (std::find(table.columns.begin(), table.columns.end(), name) != table.columns.end())
      continue;
    table.columns.push_back(name);
    for (auto& row : table.rows) row.second.push_back(std::nan(""));
    means.push_back(std::nan(""));
    deviations.push_back(std::nan(""));
  }
  std::vector<double> last;
  for (const auto& name : table.columns)
    last.push_back(pooled.count(name) > 0 ? pooled.at(name) : std::nan(""));
  table.rows.emplace_back("mean", means);
  table.rows.emplace_back("sd", deviations);
  table.rows.emplace_back("pooled", last);
  return table;
}

std::string SummaryTable::csv() const {
  std::string text = "fold";
  for (const auto& name : columns) text += "," + name;
  text += "\n";
  for (const auto& [name, values] : rows) {
    text += name;
    for (const double value : values) text += "," + (std::isnan(value) ? "" : exact(value));
    text += "\n";
  }
  return text;
}

std::string SummaryTable::markdown() const {
  std::string text = "| fold |", rule = "\n|---|";
  for (const auto& name : columns) {
    text += " " + name + " |";
    rule += "---|";
  }
  text += rule + "\n";
  for (const auto& [name, values] : rows) {
    text += "| " + name + " |";
    for (const double value : values) {
      char number[32] = "";
      if (!std::isnan(value)) std::snprintf(number, sizeof number, "%.3f", value);
      text += std::string(" ") + number + " |";
    }
    text += "\n";
  }
  return text;
}

std::string draw_survival(const std::vector<FoldResult>& folds, const std::string& stem) {
  std::vector<double> times;
  std::vector<bool> events, high;
  for (const FoldResult& fold : folds) {
    std::vector<double> risks;
    for (const auto& logits : fold.test.all.logits) risks.push_back(risk_of(logits));
    const double median = median_of(risks);
    for (size_t i = 0; i < risks.size(); ++i) {
      times.push_back(fold.test.all.times[i]);
      events.push_back(fold.test.all.events[i]);
      high.push_back(risks[i] > median);
    }
  }
  const LogRank test = log_rank(times, events, high);
  char sentence[96];
  std::snprintf(sentence, sizeof sentence, "log-rank chi-square %.3f, p %.3g", test.chi_square,
                test.p);
  Figure figure;
  figure.title = std::string("Survival by predicted risk, ") + sentence;
  figure.x_label = "time";
  figure.y_label = "alive";
  Panel panel;
  for (const bool group : {false, true}) {
    std::vector<double> group_times;
    std::vector<bool> group_events;
    for (size_t i = 0; i < times.size(); ++i) {
      if (high[i] != group) continue;
      group_times.push_back(times[i]);
      group_events.push_back(events[i]);
    }
    const SurvivalCurve curve = kaplan_meier(group_times, group_events);
    Curve drawn;
    drawn.title =
        (group ? "higher risk, n = " : "lower risk, n = ") + std::to_string(group_times.size());
    drawn.ink = group ? Ink::kSecond : Ink::kFirst;
    for (size_t i = 0; i < curve.time.size(); ++i) {
      if (i > 0) {  // level until the step
        drawn.x.push_back(curve.time[i]);
        drawn.y.push_back(curve.alive[i - 1]);
      }
      drawn.x.push_back(curve.time[i]);
      drawn.y.push_back(curve.alive[i]);
    }
    panel.curves.push_back(std::move(drawn));
  }
  figure.panels = {panel};
  const std::string problem = draw_figure(figure, stem);
  return std::string(sentence) + (problem.empty() ? "" : "; " + problem);
}

}  // namespace serpentine
