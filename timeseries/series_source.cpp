#include "timeseries/series_source.h"

#include <stdexcept>

#include <nlohmann/json.hpp>

#include "timeseries/forecast_task.h"
#include "timeseries/timeseries.h"

namespace serpentine {
namespace {

// the columns that some role uses, so that others need not be numbers
FileOptions file_options(const SeriesOptions& options) {
  FileOptions file = options.file;
  if (options.targets.empty()) return file;
  for (const auto& names :
       {options.targets, options.past, options.future, options.statics, options.file.categorical}) {
    file.only.insert(file.only.end(), names.begin(), names.end());
  }
  return file;
}

}  // namespace

void SeriesOptions::fields(Fields& f) {
  f("path", path, "file of the series", {.required = true});
  file.fields(f);
  f("seq_len", seq_len, "rows that the model reads", {.least = 1});
  f("pred_len", pred_len, "rows that it forecasts, the horizon", {.least = 1});
  f("stride", stride, "rows between training windows", {.least = 1});
  f("targets", targets, "columns to forecast; empty: every column without another role");
  f("past", past, "covariates known up to the present");
  f("future", future, "covariates known ahead, as a calendar or a plan (numbers or categories)");
  f("static", statics, "columns with one value a file");
  f("move_last", move_last, "target that is moved to the end, as the published loaders do");
  f("split", split, "borders of train, validation and test",
    {.choices = {"etth", "ettm", "ratio", "solar", "pems"}});
  f("ratios", ratios, "parts of the rows for train, validation and test (ratio, solar, pems)");
  f("scale", scale, "standardise columns by the mean and deviation of the training rows");
  f("marks", marks, "finest unit of the calendar features; none: no features",
    {.choices = {"none", "s", "min", "h", "d", "w", "m"}});
  f("elapsed", elapsed, "a token with the time between rows; auto: when it varies",
    {.choices = {"auto", "yes", "no"}});
  f("period", period,
    "rows of a season, for the naive forecast and MASE; 0: from the step between rows",
    {.least = 0});
}

SeriesSource::SeriesSource(const SeriesOptions& options)
    : SeriesSource(options, read_series(options.path, file_options(options))) {}

SeriesSource::SeriesSource(const SeriesOptions& options, Series series)
    : options_(options), series_(std::move(series)) {
  borders_ =
      split_rows(series_.path, options.split, series_.rows(), options.seq_len, options.ratios);
  check_rows();
  schema_ = make_schema(options, series_, borders_.train, notes_);
  schema_.file = file_options(options);
  prepared_ = std::make_shared<PreparedSeries>(prepare(schema_, series_));
}

void SeriesSource::check_rows() const {
  const int64_t length = options_.seq_len + options_.pred_len;
  const auto check = [&](const char* name, const RowRange& range, bool wanted) {
    if (!wanted || range.windows(length) > 0) return;
    throw std::runtime_error(series_.path + ": the " + name + " part has " +
                             std::to_string(range.rows()) + " rows (of " +
                             std::to_string(series_.rows()) + "), one window needs seq_len " +
                             std::to_string(options_.seq_len) + " + pred_len " +
                             std::to_string(options_.pred_len) + " = " + std::to_string(length));
  };
  const bool ratios = options_.split != "etth" && options_.split != "ettm";
  check("train", borders_.train, true);
  check("validation", borders_.validation, !ratios || options_.ratios[1] > 0);
  check("test", borders_.test, !ratios || options_.ratios[2] > 0);
}

std::shared_ptr<const Dataset> SeriesSource::part(Part which) const {
  const RowRange range = which == Part::kTrain        ? borders_.train
                         : which == Part::kValidation ? borders_.validation
                                                      : borders_.test;
  const int64_t stride = which == Part::kTrain ? options_.stride : 1;
  return std::make_shared<WindowDataset>(prepared_, range, options_.seq_len, options_.pred_len,
                                         stride);
}

void SeriesSource::fill_model(Config& model, const Config& task) {
  schema_.quantiles = task.read_typed<ForecastTaskOptions>().quantiles;
  model.set_default("seq_len", schema_.seq_len);
  model.set_default("pred_len", schema_.pred_len);
  model.set_default("targets", static_cast<int64_t>(schema_.targets.size()));
  model.set_default("future", prepared_->future.defined() ? prepared_->future.size(1) : 0);
  model.set_default("masked", schema_.masked);
  model.set_default("period", schema_.period);
  model.set_default("quantiles", schema_.quantiles);
}

nlohmann::json SeriesSource::description() const { return schema_.to_json(); }

void add_forecast_sources(Registry<DataSource>& all) {
  all.add<SeriesOptions>("series", [](const SeriesOptions& options) {
    return std::make_shared<SeriesSource>(options);
  });
}

}  // namespace serpentine
