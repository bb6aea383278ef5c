#include "apps/forecast_files.h"

#include <cmath>
#include <cstdio>

#include <torch/torch.h>

#include "core/io/csv.h"

namespace serpentine {
namespace {

nlohmann::json forecast_column(const torch::Tensor& values) {
  nlohmann::json list = nlohmann::json::array();
  const auto row = values.contiguous();
  for (int64_t i = 0; i < row.size(0); ++i) {
    const double value = row[i].item<double>();
    list.push_back(std::isfinite(value) ? nlohmann::json(value) : nlohmann::json());
  }
  return list;
}

std::string level_text(double level) {
  char text[32];
  std::snprintf(text, sizeof text, "q%g", level);
  return text;
}

}  // namespace

std::string csv_number(double value) {
  if (!std::isfinite(value)) return "";
  char text[40];
  std::snprintf(text, sizeof text, "%.7g", value);
  return text;
}

std::string forecast_csv(const Forecast& forecast) {
  std::string text = "date";
  for (const auto& name : forecast.names) {
    text += "," + csv_cell(name);
    for (const double level : forecast.levels)
      text += "," + csv_cell(name + " " + level_text(level));
  }
  text += "\n";
  const auto values = forecast.values.contiguous();
  const auto quantiles =
      forecast.quantiles.defined() ? forecast.quantiles.contiguous() : forecast.quantiles;
  for (size_t step = 0; step < forecast.times.size(); ++step) {
    text += csv_cell(forecast.times[step]);
    for (size_t c = 0; c < forecast.names.size(); ++c) {
      const auto s = static_cast<int64_t>(step), channel = static_cast<int64_t>(c);
      text += "," + csv_number(values[s][channel].item<double>());
      for (size_t q = 0; q < forecast.levels.size(); ++q) {
        text += "," + csv_number(quantiles[s][channel][static_cast<int64_t>(q)].item<double>());
      }
    }
    text += "\n";
  }
  return text;
}

nlohmann::json forecast_json(const Forecast& forecast) {
  nlohmann::json json;
  json["history_times"] = forecast.history_times;
  json["times"] = forecast.times;
  json["levels"] = forecast.levels;
  json["series"] = nlohmann::json::array();
  for (size_t c = 0; c < forecast.names.size(); ++c) {
    const auto channel = static_cast<int64_t>(c);
    nlohmann::json series = {{"name", forecast.names[c]},
                             {"history", forecast_column(forecast.history.select(1, channel))},
                             {"forecast", forecast_column(forecast.values.select(1, channel))}};
    for (size_t q = 0; q < forecast.levels.size(); ++q) {
      series["quantiles"][level_text(forecast.levels[q])] =
          forecast_column(forecast.quantiles.select(1, channel).select(1, static_cast<int64_t>(q)));
    }
    json["series"].push_back(series);
  }
  return json;
}

}  // namespace serpentine
