// A forecast as CSV, as JSON and as a picture.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "timeseries/forecast.h"

namespace serpentine {

/// One row a step: date, then each target and its quantiles ("OT", "OT q0.1", ...), original units.
std::string forecast_csv(const Forecast& forecast);

/// The same with the history before it; missing values are null.
nlohmann::json forecast_json(const Forecast& forecast);

/// The shortest text that reads back as the same float; "" for NaN.
std::string csv_number(double value);

}  // namespace serpentine
