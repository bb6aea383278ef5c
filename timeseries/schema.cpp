#include "timeseries/schema.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "timeseries/columns.h"
#include "timeseries/series_source.h"

namespace serpentine {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(FileOptions, format, delimiter, decimal, header,
                                                date, date_format, start, frequency, fill_gaps,
                                                array, channel, categorical, ignore, only)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SeriesSchema, file, seq_len, pred_len, period, frequency,
                                   trained_until, marks, targets, past, future, statics, levels,
                                   future_categories, mean, std, naive_error, quantiles, masked,
                                   irregular)

namespace {

constexpr int64_t kMostLevels = 64;

// every column with exactly one role; the rest are targets unless targets are named
void set_roles(const SeriesOptions& options, const Series& series, SeriesSchema& schema) {
  schema.targets = options.targets;
  schema.past = options.past;
  schema.statics = options.statics;
  for (const auto& name : options.future) {
    (series.texts.count(name) ? schema.future_categories : schema.future).push_back(name);
  }
  std::set<std::string> taken;
  for (const auto* names : {&options.targets, &options.past, &options.future, &options.statics}) {
    for (const auto& name : *names) {
      (void)series.column(name);  // throws when absent
      if (!taken.insert(name).second)
        throw std::runtime_error("data: column '" + name + "' has two roles");
    }
  }
  for (const auto& name : options.file.categorical) {
    (void)series.column(name);
    if (taken.count(name) && !holds(options.future, name)) {
      throw std::runtime_error("data: the categorical column '" + name +
                               "' can only be a future covariate too");
    }
    taken.insert(name);
  }
  if (options.targets.empty()) {
    for (const auto& name : series.columns) {
      if (!taken.count(name)) schema.targets.push_back(name);
    }
  }
  if (schema.targets.empty())
    throw std::runtime_error(series.path + ": no column is left to forecast");
  auto& targets = schema.targets;
  if (!options.move_last.empty()) {
    const auto found = std::find(targets.begin(), targets.end(), options.move_last);
    if (found == targets.end())
      throw std::runtime_error("data.move_last: '" + options.move_last + "' is not a target");
    std::rotate(found, found + 1, targets.end());
  }
}

void set_levels(const Series& series, SeriesSchema& schema) {
  for (const auto& [name, texts] : series.texts) {
    std::set<std::string> levels(texts.begin(), texts.end());
    levels.erase("");
    if (static_cast<int64_t>(levels.size()) > kMostLevels) {
      throw std::runtime_error(series.path + ": the categorical column '" + name + "' has " +
                               std::to_string(levels.size()) + " levels, at most " +
                               std::to_string(kMostLevels) + " are possible");
    }
    schema.levels[name].assign(levels.begin(), levels.end());
  }
}

// mean and population deviation of the observed values of one column in the training rows
void scale_column(const SeriesOptions& options, const Series& series, RowRange train,
                  const std::string& name, SeriesSchema& schema, std::vector<std::string>& notes) {
  const torch::Tensor column =
      series.values.select(1, series.column(name)).slice(0, train.begin, train.end);
  const torch::Tensor seen = column.masked_select(column.isfinite());
  if (seen.numel() == 0) {
    throw std::runtime_error(series.path + ": column '" + name + "' has no value in the " +
                             std::to_string(train.rows()) + " training rows");
  }
  double mean = seen.mean().item<double>();
  double std = std::sqrt((seen - mean).square().mean().item<double>());
  // a mean of equal numbers is off by rounding, so the values themselves are compared
  if (seen.min().item<double>() == seen.max().item<double>()) {
    notes.push_back("column '" + name + "' is constant in the training rows; it is only centred");
    mean = seen[0].item<double>();
    std = 1;
  }
  schema.mean.push_back(options.scale ? mean : 0);
  schema.std.push_back(options.scale ? std : 1);
}

// scaled error of repeating the value of one period before
double naive_error(const torch::Tensor& column, int64_t period, double std) {
  if (column.size(0) <= period) return 0;
  const torch::Tensor error =
      (column.slice(0, period) - column.slice(0, 0, column.size(0) - period)).abs();
  const torch::Tensor seen = error.masked_select(error.isfinite());
  return seen.numel() ? seen.mean().item<double>() / std : 0;
}

}  // namespace

SeriesSchema make_schema(const SeriesOptions& options, const Series& series, RowRange train,
                         std::vector<std::string>& notes) {
  SeriesSchema schema;
  schema.seq_len = options.seq_len;
  schema.pred_len = options.pred_len;
  schema.period = options.period > 0 ? options.period : series.frequency.period();
  schema.frequency = series.frequency.known() ? series.frequency.text() : "";
  if (!series.times.empty() && train.rows() > 0) schema.trained_until = series.label(train.end - 1);
  schema.marks = series.times.empty() ? "none" : options.marks;
  schema.irregular = !series.times.empty() &&
                     (options.elapsed == "yes" || (options.elapsed == "auto" && !series.regular));
  set_roles(options, series, schema);
  set_levels(series, schema);
  for (const auto* names : {&schema.targets, &schema.past, &schema.future}) {
    for (const auto& name : *names) scale_column(options, series, train, name, schema, notes);
  }
  for (size_t c = 0; c < schema.targets.size(); ++c) {
    const torch::Tensor column = series.values.select(1, series.column(schema.targets[c]));
    schema.naive_error.push_back(
        naive_error(column.slice(0, train.begin, train.end), schema.period, schema.std[c]));
  }
  for (const auto* names : {&schema.targets, &schema.past}) {
    for (const auto& name : *names) {
      schema.masked |= series.values.select(1, series.column(name)).isnan().any().item<bool>();
    }
  }
  if (schema.masked)
    notes.push_back(
        "some values are missing; the model is told which, and the loss leaves them out");
  if (schema.irregular && !series.regular)
    notes.push_back("rows are not evenly spaced; the model is told the time between them");
  return schema;
}

nlohmann::json SeriesSchema::to_json() const { return *this; }

SeriesSchema SeriesSchema::from_json(const nlohmann::json& json) {
  try {
    nlohmann::json all = json;
    if (all.is_object()) all.emplace("trained_until", "");  // of runs before it was noted
    auto schema = all.get<SeriesSchema>();
    const size_t scaled = schema.targets.size() + schema.past.size() + schema.future.size();
    if (schema.mean.size() != scaled || schema.std.size() != scaled ||
        schema.naive_error.size() != schema.targets.size() || schema.targets.empty() ||
        schema.seq_len < 1 || schema.pred_len < 1) {
      throw std::runtime_error("its lists differ in length");
    }
    return schema;
  } catch (const std::exception& error) {
    throw std::runtime_error(std::string("the description of the data is damaged: ") +
                             error.what());
  }
}

}  // namespace serpentine
