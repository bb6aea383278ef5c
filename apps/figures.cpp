#include "apps/figures.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include <torch/torch.h>

#include "apps/command.h"
#include "core/config.h"
#include "timeseries/dates.h"

namespace serpentine {
namespace {

constexpr size_t kMostPanels = 8;

std::vector<double> column(const torch::Tensor& values) {
  const auto flat = values.to(torch::kFloat64).contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

/// Where labels lie on the x axis: seconds since 1970 if they are dates, else row numbers.
struct Axis {
  std::vector<double> past, future;
  bool dates = false;
};

std::optional<std::vector<double>> as_dates(const std::vector<std::string>& labels) {
  DateParser parser;
  std::vector<double> seconds;
  for (const auto& label : labels) {
    const auto time = parser.parse(label);
    if (!time) return std::nullopt;
    seconds.push_back(static_cast<double>(*time) / 1e6);
  }
  return seconds;
}

Axis axis_of(const Forecast& forecast) {
  Axis axis;
  const auto is_number = [](const std::string& text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  };
  if (!forecast.times.empty() && !is_number(forecast.times.front())) {
    const auto past = as_dates(forecast.history_times), future = as_dates(forecast.times);
    if (past && future) return {*past, *future, true};
  }
  const auto rows = [&](const std::vector<std::string>& labels, double first) {
    std::vector<double> x;
    for (size_t i = 0; i < labels.size(); ++i) {
      x.push_back(is_number(labels[i]) ? std::stod(labels[i]) : first + static_cast<double>(i));
    }
    return x;
  };
  axis.past = rows(forecast.history_times, 1);
  axis.future = rows(forecast.times, static_cast<double>(forecast.history_times.size()) + 1);
  return axis;
}

std::vector<size_t> chosen_series(const std::vector<std::string>& names,
                                  const std::vector<std::string>& chosen) {
  std::vector<size_t> indices;
  for (const auto& name : chosen) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) {
      const std::string near = nearest(name, names);
      throw UsageError("--plot: there is no forecast series '" + name + "'" +
                       (near.empty() ? "" : "; did you mean '" + near + "'?"));
    }
    indices.push_back(static_cast<size_t>(found - names.begin()));
  }
  for (size_t i = 0; chosen.empty() && i < std::min(names.size(), kMostPanels); ++i)
    indices.push_back(i);
  return indices;
}

/// "80 % interval" of the levels 0.1 and 0.9; the outermost pair is the palest.
void add_bands(Panel& panel, const Forecast& forecast, const std::vector<double>& x,
               int64_t channel) {
  const size_t levels = forecast.levels.size();
  for (size_t q = 0; q < levels / 2; ++q) {
    const auto at = [&](size_t level) {
      return column(forecast.quantiles.select(1, channel).select(1, static_cast<int64_t>(level)));
    };
    const double share = 100 * (forecast.levels[levels - 1 - q] - forecast.levels[q]);
    char title[32];
    std::snprintf(title, sizeof title, "%g %% interval", std::round(share * 100) / 100);
    panel.bands.push_back({title, x, at(q), at(levels - 1 - q), Ink::kForecast, 0.22});
  }
}

Figure window(const Forecast& forecast, const torch::Tensor& actual,
              const std::vector<std::string>& chosen) {
  const Axis axis = axis_of(forecast);
  Figure figure;
  figure.dates = axis.dates;
  if (!axis.dates) figure.x_label = "row";
  for (const size_t index : chosen_series(forecast.names, chosen)) {
    const auto channel = static_cast<int64_t>(index);
    Panel panel;
    panel.title = forecast.names[index];
    add_bands(panel, forecast, axis.future, channel);
    panel.curves.push_back(
        {"past", axis.past, column(forecast.history.select(1, channel)), Ink::kPast, false});
    if (actual.defined()) {
      panel.curves.push_back(
          {"what came", axis.future, column(actual.select(1, channel)), Ink::kActual, false});
    }
    panel.curves.push_back({"forecast", axis.future, column(forecast.values.select(1, channel)),
                            Ink::kForecast, false});
    if (!axis.past.empty()) panel.markers = {axis.past.back()};
    figure.panels.push_back(panel);
  }
  return figure;
}

std::string shown_of(const Figure& figure, size_t all) {
  if (figure.panels.size() == all) return "";
  return " (" + std::to_string(figure.panels.size()) + " of " + std::to_string(all) + " series)";
}

}  // namespace

Figure forecast_figure(const Forecast& forecast, const std::vector<std::string>& chosen,
                       const std::string& model) {
  Figure figure = window(forecast, {}, chosen);
  figure.title = "Forecast of " + std::to_string(forecast.times.size()) + " steps by " + model +
                 shown_of(figure, forecast.names.size());
  return figure;
}

Figure window_figure(const Backtest& result, const std::vector<std::string>& chosen,
                     const std::string& model) {
  Figure figure = window(result.last, result.last_actual, chosen);
  figure.title =
      "Latest window of the backtest by " + model + shown_of(figure, result.names.size());
  return figure;
}

Figure steps_figure(const Backtest& result, const std::string& model) {
  Figure figure;
  figure.title =
      "Error by step ahead, " + model + ", " + std::to_string(result.origins.size()) + " origins";
  figure.x_label = "steps ahead";
  figure.y_label = "MAE over its mean";
  constexpr Ink kInks[] = {Ink::kFirst, Ink::kSecond, Ink::kThird, Ink::kFourth};
  Panel panel;
  for (size_t c = 0; c < std::min<size_t>(result.names.size(), std::size(kInks)); ++c) {
    const auto errors = result.step_mae.select(1, static_cast<int64_t>(c));
    const double mean = torch::nanmean(errors).item<double>();
    if (!(mean > 0)) continue;
    Curve curve{result.names[c], {}, column(errors / mean), kInks[c], false};
    for (int64_t step = 1; step <= errors.size(0); ++step)
      curve.x.push_back(static_cast<double>(step));
    panel.curves.push_back(curve);
  }
  figure.panels = {panel};
  return figure;
}

void draw(const Figure& figure, const std::string& stem) {
  if (figure.panels.empty() || figure.panels.front().curves.empty()) return;
  const std::string trouble = draw_figure(figure, stem);
  if (trouble.empty()) {
    std::printf("%s.png\n%s.svg\n", stem.c_str(), stem.c_str());
  } else {
    std::printf("%s\n", trouble.c_str());
  }
}

}  // namespace serpentine
