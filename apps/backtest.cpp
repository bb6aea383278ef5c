// serpentine backtest: what the forecasts of the past would have been worth.
#include <algorithm>
#include <cstdio>

#include <torch/torch.h>
#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/figures.h"
#include "apps/forecast_files.h"
#include "apps/trained.h"
#include "core/io/atomic_file.h"
#include "core/io/csv.h"
#include "timeseries/forecast.h"

namespace serpentine {
namespace {

constexpr const char* kBacktestFooter =
    R"(Forecasts from many rows of FILE as if what came later were unknown, and compares. Prints the metrics
(of scaled values, as in training) and each series' errors in its own units; writes backtest.json
(also the error of every step), origins.csv and pictures of the error by step and of the latest window.
Rows that the model was trained on flatter it, and a note says how many origins lie there: give a file
of later data, or --windows for the latest ones.
Examples:
  serpentine backtest runs/mine my.csv
  serpentine backtest runs/mine my.csv --stride 24 --windows 30)";

struct BacktestArguments {
  std::string run, file, out;
  BacktestOptions options;
  std::vector<std::string> plot;
};

double mean_of(const torch::Tensor& values) { return torch::nanmean(values).item<double>(); }

std::string origins_csv(const Backtest& result) {
  std::string text = "origin";
  for (const auto& name : result.names)
    text += "," + csv_cell(name + " mae") + "," + csv_cell(name + " rmse");
  text += "\n";
  for (size_t o = 0; o < result.origins.size(); ++o) {
    text += csv_cell(result.origins[o]);
    for (size_t c = 0; c < result.names.size(); ++c) {
      const auto origin = static_cast<int64_t>(o), channel = static_cast<int64_t>(c);
      text += "," + csv_number(result.origin_mae[origin][channel].item<double>());
      text += "," + csv_number(result.origin_rmse[origin][channel].item<double>());
    }
    text += "\n";
  }
  return text;
}

// one number a step; NaN, where nothing was observed, becomes null
nlohmann::json steps_of(const torch::Tensor& errors, int64_t channel) {
  nlohmann::json all = nlohmann::json::array();
  for (int64_t step = 0; step < errors.size(0); ++step)
    all.push_back(errors[step][channel].item<double>());
  return all;
}

nlohmann::json summary(const Backtest& result) {
  nlohmann::json json = {{"origins", result.origins.size()},
                         {"origins_in_training_rows", result.trained},
                         {"metrics", result.metrics}};
  for (size_t c = 0; c < result.names.size(); ++c) {
    const auto channel = static_cast<int64_t>(c);
    json["series"].push_back(
        {{"name", result.names[c]},
         {"mae", mean_of(result.step_mae.select(1, channel))},
         {"rmse", std::sqrt(mean_of(result.step_rmse.select(1, channel).square()))},
         {"step_mae", steps_of(result.step_mae, channel)},
         {"step_rmse", steps_of(result.step_rmse, channel)}});
  }
  return json;
}

/// Says how many origins the model has seen, which flatters it, and how to leave them out.
void warn_of_seen_rows(const Backtest& result, const std::string& trained_until) {
  if (result.trained == 0) return;
  const auto unseen = static_cast<int64_t>(result.origins.size()) - result.trained;
  std::printf(
      "note: %lld of %zu origins lie in rows that the model was trained on (up to %s), which "
      "flatters it",
      static_cast<long long>(result.trained), result.origins.size(), trained_until.c_str());
  if (unseen > 0) {
    std::printf("; --windows %lld leaves them out\n", static_cast<long long>(unseen));
  } else {
    std::printf("; no origin lies behind them\n");
  }
}

void print(const Backtest& result, const nlohmann::json& json) {
  std::printf("%zu origins from %s to %s, %lld steps each\n", result.origins.size(),
              result.origins.front().c_str(), result.origins.back().c_str(),
              static_cast<long long>(result.step_mae.size(0)));
  for (const auto& [name, value] : result.metrics)
    std::printf("  %-10s %.6g\n", name.c_str(), value);
  size_t width = 6;
  for (const auto& name : result.names) width = std::max(width, name.size());
  std::printf("%-*s  %12s  %12s   in its own units\n", static_cast<int>(width), "series", "MAE",
              "RMSE");
  for (const auto& row : json["series"]) {
    std::printf("%-*s  %12.6g  %12.6g\n", static_cast<int>(width),
                row["name"].get<std::string>().c_str(),
                row["mae"].is_number() ? row["mae"].get<double>() : NAN,
                row["rmse"].is_number() ? row["rmse"].get<double>() : NAN);
  }
}

int run_backtest(const BacktestArguments& arguments) {
  const Packages packages = all_packages();
  const TrainedRun run = open_run(packages, arguments.run);
  const Series series = read_series(arguments.file, run.schema.file);
  const torch::NoGradGuard no_gradient;
  const Backtest result = backtest(*run.model, run.schema, series, arguments.options);
  const Figure window = window_figure(result, arguments.plot, run.model_type);

  const std::string out = arguments.out.empty() ? run.folder + "/backtest" : arguments.out;
  make_folder(out);
  const nlohmann::json json = summary(result);
  write_atomically(out + "/backtest.json", json.dump(1) + "\n");
  write_atomically(out + "/origins.csv", origins_csv(result));
  print(result, json);
  warn_of_seen_rows(result, run.schema.trained_until);
  std::printf("%s/backtest.json\n%s/origins.csv\n", out.c_str(), out.c_str());
  draw(steps_figure(result, run.model_type), out + "/error_by_step");
  draw(window, out + "/latest_window");
  return 0;
}

}  // namespace

void add_backtest_command(CLI::App& app, Action& action) {
  auto* command =
      app.add_subcommand("backtest", "Forecast a file's past from many rows and compare");
  command->footer(kBacktestFooter);
  auto arguments = std::make_shared<BacktestArguments>();
  const auto count = CLI::Range(int64_t{0}, int64_t{1} << 40);
  command->add_option("RUN", arguments->run, "Folder of a finished training")->required();
  command
      ->add_option("FILE", arguments->file, "CSV (gzip too) with the columns of the training data")
      ->required();
  command
      ->add_option("--stride", arguments->options.step,
                   "Rows between origins (0: the model's horizon)")
      ->check(count);
  command
      ->add_option("--windows", arguments->options.origins, "At most so many, the latest (0: all)")
      ->check(count);
  command->add_option("--batch", arguments->options.batch_size, "Windows computed together")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  command->add_option("--out", arguments->out, "Folder of the results (default: RUN/backtest)");
  command->add_option("--plot", arguments->plot, "Series to draw (default: the first six)");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_backtest(*arguments); }; });
}

}  // namespace serpentine
