// The pictures of forecasts and trainings.
#pragma once

#include <string>
#include <vector>

#include "core/io/plot.h"
#include "timeseries/forecast.h"

namespace serpentine {

/// The history and the forecast of each chosen series (none: the first six) with quantile bands.
/// An unknown name throws UsageError with the nearest one.
Figure forecast_figure(const Forecast& forecast, const std::vector<std::string>& chosen,
                       const std::string& model);

/// The same for the latest window of a backtest, beside what came.
Figure window_figure(const Backtest& result, const std::vector<std::string>& chosen,
                     const std::string& model);

/// The mean absolute error of each step ahead, over the series' own mean error, so that series
/// share an axis.
Figure steps_figure(const Backtest& result, const std::string& model);

/// Draws and prints the paths, or the sentence that says why there is no picture.
void draw(const Figure& figure, const std::string& stem);

}  // namespace serpentine
