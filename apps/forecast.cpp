// serpentine forecast: the future beyond a file's last row.
#include <cstdio>
#include <filesystem>
#include <iostream>

#include <torch/torch.h>
#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/figures.h"
#include "apps/forecast_files.h"
#include "apps/trained.h"
#include "core/io/atomic_file.h"
#include "timeseries/forecast.h"

namespace serpentine {
namespace {

constexpr const char* kForecastFooter =
    R"(Writes forecast.csv, forecast.json, forecast.png and forecast.svg, in the file's own units, with
quantile bands when the model was trained with `task.quantiles`. FILE needs the columns of the training
data and at least as many rows as the model's input window. A horizon beyond the model's is reached by
feeding its forecasts back.
Examples:
  serpentine forecast runs/mine my.csv
  serpentine forecast runs/mine my.csv --horizon 240 --out next_ten_days)";

struct ForecastArguments {
  std::string run, file, out;
  int64_t horizon = 0;
  std::vector<std::string> plot;
};

int run_forecast(const ForecastArguments& arguments) {
  const Packages packages = all_packages();
  const TrainedRun run = open_run(packages, arguments.run);
  const Series series = read_series(arguments.file, run.schema.file);
  const int64_t horizon = arguments.horizon > 0 ? arguments.horizon : run.schema.pred_len;
  const torch::NoGradGuard no_gradient;
  const Forecast result = forecast(*run.model, run.schema, series, horizon);
  const auto figure = [&] { return forecast_figure(result, arguments.plot, run.model_type); }();

  const std::string out = arguments.out.empty() ? run.folder + "/forecast" : arguments.out;
  make_folder(out);
  nlohmann::json json = forecast_json(result);
  json["run"] = run.folder;
  json["file"] = arguments.file;
  json["model"] = run.model_type;
  json["model_horizon"] = run.schema.pred_len;
  write_atomically(out + "/forecast.csv", forecast_csv(result));
  write_atomically(out + "/forecast.json", json.dump(1) + "\n");

  std::printf("%s: %lld steps of %zu series, from %s to %s\n", run.model_type.c_str(),
              static_cast<long long>(horizon), result.names.size(), result.times.front().c_str(),
              result.times.back().c_str());
  if (horizon > run.schema.pred_len) {
    std::printf(
        "note: the model looks %lld steps ahead; the %lld beyond were reached by feeding its own "
        "forecasts "
        "back, so trust them less\n",
        static_cast<long long>(run.schema.pred_len),
        static_cast<long long>(horizon - run.schema.pred_len));
  }
  std::printf("%s/forecast.csv\n%s/forecast.json\n", out.c_str(), out.c_str());
  draw(figure, out + "/forecast");
  return 0;
}

}  // namespace

void add_forecast_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("forecast", "Forecast the future beyond a file's last row");
  command->footer(kForecastFooter);
  auto arguments = std::make_shared<ForecastArguments>();
  command->add_option("RUN", arguments->run, "Folder of a finished training")->required();
  command
      ->add_option("FILE", arguments->file, "CSV (gzip too) with the columns of the training data")
      ->required();
  command
      ->add_option("--horizon", arguments->horizon,
                   "Steps to forecast (0: as many as the model looks ahead)")
      ->check(CLI::Range(int64_t{0}, int64_t{1000000}));
  command->add_option("--out", arguments->out, "Folder of the results (default: RUN/forecast)");
  command->add_option("--plot", arguments->plot, "Series to draw (default: the first six)");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_forecast(*arguments); }; });
}

}  // namespace serpentine
