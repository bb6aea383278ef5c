// What a trained model must know of its data: columns, roles, scaling. Kept with a run as JSON.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "timeseries/series.h"

namespace serpentine {

struct SeriesSchema {
  FileOptions file;                     // how files of this kind are read
  int64_t seq_len = 96, pred_len = 96;  // L, H
  int64_t period = 1;                   // steps of a season
  std::string frequency;                // the step of the training rows; empty without dates
  std::string trained_until;            // the date of the last training row; empty without dates
  std::string marks = "h";              // granularity of the calendar features; "none"
  std::vector<std::string> targets, past, future, statics;  // numeric columns by role
  std::map<std::string, std::vector<std::string>> levels;   // of each categorical column
  std::vector<std::string> future_categories;  // categorical columns known in the future
  std::vector<double> mean, std;               // of targets, past and future, in this order
  std::vector<double>
      naive_error;  // C: mean absolute error of the seasonal-naive forecast on train, scaled
  std::vector<double> quantiles;  // levels that the model predicts; empty: a point
  bool masked = false;            // the model was told of missing values
  bool irregular = false;         // the model was told of elapsed time

  nlohmann::json to_json() const;
  static SeriesSchema from_json(const nlohmann::json& json);  // throws with the missing key
};

}  // namespace serpentine
