// serpentine demo: a real training on bundled data, beside the baselines it has to beat.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include <torch/torch.h>
#include <CLI/CLI.hpp>

#include "apps/build_info.h"
#include "apps/command.h"
#include "apps/demo_pathology.h"
#include "apps/demo_pointcloud.h"
#include "apps/image_report.h"
#include "apps/segment_demo.h"
#include "apps/training.h"
#include "core/io/progress.h"

namespace serpentine {
namespace {

constexpr const char* kDemoFooter =
    R"(Trains S-Mamba on ETTh1 (electricity transformers, hourly, 7 series) to look 96 hours ahead from the
last 96, then DLinear and the seasonal-naive forecast on the same windows. Under 5 minutes on 2 cores.
`vision` trains a small VMamba on 5,000 pictures of Fashion-MNIST, and draws what it gets wrong.
`pathology` cuts a bundled slide into tiles, trains MambaMIL and draws what it attends to.
`pointcloud` trains a Point Cloud Mamba on objects of a laser scan, and leaves a page to turn.
`segmentation` trains U-Mamba on ten bundled MR volumes, labels two new ones and draws them.
Examples:
  serpentine demo
  serpentine demo vision
  serpentine demo pathology
  serpentine demo pointcloud
  serpentine demo segmentation)";

struct DemoArguments {
  std::string app = "timeseries", out = "runs/demo";
  std::vector<std::string> overrides;
};

/// As CLI11 asks it: "" for KEY=VALUE, else what is wrong.
std::string override_error(const std::string& word) {
  return word.find('=') == std::string::npos
             ? "'" + word + "' is neither an application nor KEY=VALUE"
             : "";
}

/// A file of the source tree, or of an installation beside the program.
std::string bundled(const std::string& file) {
  const std::filesystem::path program =
      std::filesystem::read_symlink("/proc/self/exe").parent_path();
  const std::vector<std::filesystem::path> roots = {".", build_info().source,
                                                    program / "../share/serpentine"};
  for (const auto& root : roots) {
    if (std::filesystem::exists(root / file)) return (root / file).lexically_normal().string();
  }
  throw std::runtime_error("demo: " + file + " is neither here nor in " + build_info().source);
}

struct Contender {
  const char *config, *name;
};

int run_vision(const DemoArguments& arguments) {
  const auto begin = std::chrono::steady_clock::now();
  const Packages packages = all_packages();
  TrainRequest request;
  request.config = bundled("configs/demo/vision.yaml");
  request.overrides = {"data.path=" + bundled("data/samples/fashion_mnist")};
  request.overrides.insert(request.overrides.end(), arguments.overrides.begin(),
                           arguments.overrides.end());
  request.out = arguments.out + "/vision";
  request.replace = true;
  const TrainResult result = train_run(packages, request);
  if (result.code != 0 || result.test.empty()) return result.code;
  const ImageRun run = open_image_run(packages, request.out);
  const auto images = part_of_run(packages, run, "test");
  std::cout << "\n";
  report_images(score_images(run, *images), *images, run.schema.classes,
                request.out + "/evaluation_test");
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf(
      "\nTook %s. Look at\n  %s/evaluation_test/mistakes.png\n  %s/evaluation_test/confusion.png\n"
      "and try\n  serpentine predict %s --split test --top 3\n  serpentine info %s\n",
      format_seconds(seconds).c_str(), request.out.c_str(), request.out.c_str(),
      request.out.c_str(), request.out.c_str());
  return 0;
}

int run_demo(const DemoArguments& arguments) {
  if (arguments.app == "vision") return run_vision(arguments);
  // configs/ lies beside data/
  const auto root_of = [](const char* config) {
    const std::filesystem::path yaml = bundled(config);
    const auto root = yaml.parent_path().parent_path().parent_path();
    return root.empty() ? std::string(".") : root.string();
  };
  if (arguments.app == "pathology") {
    return run_pathology_demo(root_of("configs/demo/pathology.yaml"), arguments.out,
                              arguments.overrides);
  }
  if (arguments.app == "pointcloud") {
    return run_pointcloud_demo(root_of("configs/demo/pointcloud.yaml"), arguments.out,
                               arguments.overrides);
  }
  if (arguments.app == "segmentation") {
    return run_segment_demo(root_of("configs/demo/segmentation.yaml"), arguments.out,
                            arguments.overrides);
  }
  constexpr Contender kContenders[] = {
      {"s_mamba", "S-Mamba"}, {"dlinear", "DLinear"}, {"seasonal_naive", "seasonal naive"}};
  const Packages packages = all_packages();
  const auto begin = std::chrono::steady_clock::now();
  std::vector<TrainResult> results;
  for (const auto& contender : kContenders) {
    std::cout << "\n== " << contender.name << "\n";
    TrainRequest request;
    request.config = bundled(std::string("configs/demo/") + contender.config + ".yaml");
    request.overrides = {"data.path=" + bundled("data/samples/ETTh1.csv.gz")};
    request.overrides.insert(request.overrides.end(), arguments.overrides.begin(),
                             arguments.overrides.end());
    request.out = arguments.out + "/" + contender.config;
    request.replace = true;
    results.push_back(train_run(packages, request));
    if (results.back().code != 0 || results.back().test.empty()) return results.back().code;
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  std::printf("\n%-16s %10s %10s   ETTh1, 96 hours ahead, scaled, test part\n", "", "test MSE",
              "test MAE");
  for (size_t i = 0; i < results.size(); ++i) {
    std::printf("%-16s %10.4f %10.4f\n", kContenders[i].name, results[i].test.at("mse"),
                results[i].test.at("mae"));
  }
  std::printf(
      "\nTook %s. Look at\n  %s/s_mamba/plots/forecast.png\n  %s/s_mamba/plots/loss.png\nand try\n"
      "  serpentine forecast %s/s_mamba %s --horizon 96\n",
      format_seconds(seconds).c_str(), arguments.out.c_str(), arguments.out.c_str(),
      arguments.out.c_str(), bundled("data/samples/ETTh1.csv.gz").c_str());
  return 0;
}

}  // namespace

void add_demo_command(CLI::App& app, Action& action) {
  auto* command =
      app.add_subcommand("demo", "Train on bundled data and compare with baselines, 5 minutes");
  command->footer(kDemoFooter);
  auto arguments = std::make_shared<DemoArguments>();
  const std::vector<std::string> apps = {"timeseries", "vision", "pathology", "pointcloud",
                                         "segmentation"};
  command->add_option("APP", arguments->app, "Application")
      ->check(CLI::IsMember(apps) | CLI::Validator(override_error, "KEY=VALUE", "override"))
      ->capture_default_str();
  command
      ->add_option("OVERRIDES", arguments->overrides,
                   "Overrides of the YAML, as trainer.max_steps=20")
      ->type_name("KEY=VALUE");
  command
      ->add_option("--out", arguments->out,
                   "Folder of the runs; those of the application are replaced")
      ->capture_default_str();
  command->callback([&action, arguments] {
    // `demo trainer.max_steps=20` means the first application
    if (override_error(arguments->app).empty()) {
      arguments->overrides.insert(arguments->overrides.begin(), arguments->app);
      arguments->app = DemoArguments().app;
    }
    action = [arguments] { return run_demo(*arguments); };
  });
}

}  // namespace serpentine
