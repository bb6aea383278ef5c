// serpentine cloud: labels for the points of a file, and pictures of clouds.
#include <filesystem>
#include <iostream>
#include <memory>

#include <torch/torch.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/model_file.h"
#include "core/check.h"
#include "core/io/atomic_file.h"
#include "core/io/image.h"
#include "core/io/json_file.h"
#include "core/io/progress.h"
#include "core/io/state_dict.h"
#include "core/train/checkpoint.h"
#include "core/train/trainer.h"
#include "pointcloud/cloud_source.h"
#include "pointcloud/draw_cloud.h"
#include "pointcloud/las.h"
#include "pointcloud/point_order.h"
#include "pointcloud/segment_scene.h"

namespace serpentine {
namespace {

constexpr int64_t kMostKeys = 32;  // values of a field whose colours are explained

constexpr const char* kCloudFooter = R"(Examples:
  serpentine cloud segment runs/streets in.las -o out.las        classes into the classification
  serpentine cloud segment runs/streets in.las -o out.las --field predicted
(a run that was stopped goes on where it was when the same command comes again)
  serpentine cloud draw scan.ply -o scan.html --order hilbert    a page that turns in the browser)";

struct CloudArguments {
  std::string run, in, out, field, order, device = "auto";
  SegmentOptions segment;
  double cell = 0.02;
  int64_t most = 1'000'000;  // points that are drawn
};

std::shared_ptr<Model> model_of(const std::string& run) {
  const std::string weights = weights_of_run(run);
  if (weights.empty()) throw UsageError("cloud segment: '" + run + "' is no run folder");
  const Config config = Config::load(yaml_of(run)).child("model");
  auto model = all_packages().models.build(config);
  const LoadReport fit = load_state_dict(*model, read_weights(weights), model->tolerated_keys());
  TORCH_CHECK(fit.ok(), weights, " does not fit the model of ", yaml_of(run), "\n", fit.text());
  model->eval();
  return model;
}

/// What tells a file from another one of its name.
std::string state_of(const std::string& path) {
  const auto time = std::filesystem::last_write_time(path).time_since_epoch().count();
  return path + " " + std::to_string(std::filesystem::file_size(path)) + " " + std::to_string(time);
}

/// The values that a run's classes had in its files; empty: their numbers.
std::vector<int64_t> values_of(const std::string& run) {
  const auto data = read_json(run + "/data.json");
  if (!data.is_object() || data.value("kind", "") != "scenes") return {};
  TORCH_CHECK(data.contains("values"), run, "/data.json: says nothing of the classes' values");
  return data.at("values").get<std::vector<int64_t>>();
}

int run_segment(CloudArguments arguments) {
  TORCH_CHECK(std::filesystem::exists(arguments.in), arguments.in, ": there is no such file");
  const auto model = model_of(arguments.run);
  const auto device = pick_device(arguments.device);
  model->to(device);
  auto& options = arguments.segment;
  options.folder = arguments.out + ".work";
  options.made_for = state_of(arguments.in) + "\n" + state_of(weights_of_run(arguments.run));
  std::unique_ptr<Progress> progress;
  options.progress = [&](int64_t done, int64_t all) {
    if (!progress) progress = std::make_unique<Progress>("blocks", all, done - 1);
    progress->update(done);
  };
  const auto values = values_of(arguments.run);
  const torch::Tensor table = torch::tensor(values, torch::kLong);
  const auto as_values = [&](const torch::Tensor& classes) {
    return values.empty() ? classes : table.index_select(0, classes);
  };
  if (arguments.in.ends_with(".las") || arguments.in.ends_with(".laz")) {
    const LasFile file(arguments.in);
    const ScenePoints scene = {file.size(),
                               [&](int64_t first, int64_t n) { return file.points(first, n); }};
    const auto found = segment_scene(*model, scene, device, options);
    const auto of = [&](int64_t first, int64_t n) { return as_values(found->classes(first, n)); };
    if (arguments.field.empty()) {
      file.write_classes(arguments.out, of);
    } else {
      file.write_new_field(arguments.out, arguments.field, of);
    }
  } else {
    PointCloud cloud = read_cloud(arguments.in);
    const ScenePoints scene = {
        cloud.size(), [&](int64_t first, int64_t n) { return cloud.points.narrow(0, first, n); }};
    const torch::Tensor classes =
        as_values(segment_scene(*model, scene, device, options)->classes(0, cloud.size()));
    cloud.set(arguments.field.empty() ? "label" : arguments.field, classes.to(torch::kInt),
              NumberType::kI32);
    write_cloud(arguments.out, cloud);
  }
  if (progress) progress->finish();
  std::filesystem::remove_all(options.folder);  // the labels are where they belong
  std::cout << arguments.out << "\n";
  return 0;
}

/// What the colours of the classes that occur mean.
std::vector<CloudKey> keys_of(const torch::Tensor& classes) {
  const auto found = std::get<0>(at::_unique(classes, /*sorted=*/true));
  std::vector<CloudKey> keys;
  for (int64_t i = 0; i < std::min(kMostKeys, found.size(0)); ++i) {
    const auto colour = class_colours(found.narrow(0, i, 1))[0];
    keys.push_back(
        {"class " + std::to_string(found[i].item<int64_t>()),
         {colour[0].item<uint8_t>(), colour[1].item<uint8_t>(), colour[2].item<uint8_t>()}});
  }
  return keys;
}

/// The layers that a file's own fields give.
std::vector<CloudLayer> layers_of(const PointCloud& cloud) {
  std::vector<CloudLayer> layers;
  const torch::Tensor colours = colours_of(cloud);
  if (colours.defined()) layers.push_back({"colour", (colours * 255).round().to(torch::kByte)});
  for (const char* name : {"classification", "label", "class", "predicted"}) {
    const CloudField* field = cloud.find(name);
    if (field == nullptr || field->values.dim() != 1) continue;
    const torch::Tensor classes = field->values.to(torch::kLong);
    if (!classes.eq(field->values).all().item<bool>()) continue;
    layers.push_back({name, class_colours(classes), keys_of(classes)});
  }
  layers.push_back({"height", ramp_colours(cloud.points.select(1, 2))});
  if (const CloudField* field = cloud.find("intensity"))
    layers.push_back({"intensity", ramp_colours(field->values)});
  return layers;
}

int run_draw(const CloudArguments& arguments) {
  PointCloud cloud = finite_points(read_cloud(arguments.in));
  TORCH_CHECK(cloud.size() > 0, arguments.in, ": there is no point to draw");
  if (cloud.size() > arguments.most) {
    std::cout << "drawing " << readable_count(arguments.most) << " of "
              << readable_count(cloud.size()) << " points\n";
    cloud = some_points(cloud, choose_rows(cloud.size(), arguments.most, 0));
  }
  CloudScene scene;
  scene.points = cloud.points;
  scene.layers = layers_of(cloud);
  if (!arguments.order.empty()) {
    const torch::Tensor away = cloud.points - std::get<0>(cloud.points.min(0));
    const torch::Tensor unit = (away / away.max().clamp_min(1e-12)).to(torch::kFloat);
    scene.walk = point_walk(unit.unsqueeze(0), arguments.order, {arguments.cell, false})[0];
  }
  if (arguments.out.ends_with(".ply")) {
    write_cloud(arguments.out, coloured(cloud, scene.layers.front().colours));
  } else if (arguments.out.ends_with(".png")) {
    write_image(arguments.out, cloud_picture(scene, 0));
  } else {
    write_atomically(arguments.out, cloud_page(arguments.in, scene));
  }
  std::cout << arguments.out << "\n";
  return 0;
}

}  // namespace

void add_cloud_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("cloud", "Label the points of a file, or draw it");
  command->footer(kCloudFooter);
  command->require_subcommand(1);
  auto arguments = std::make_shared<CloudArguments>();
  auto* segment = command->add_subcommand("segment", "A class for every point of a file");
  segment->add_option("RUN", arguments->run, "Folder of a finished training")->required();
  segment->add_option("FILE", arguments->in, "LAS, PLY, PCD or another file of points")->required();
  segment->add_option("-o,--out", arguments->out, "File with the labels")->required();
  segment->add_option("--field", arguments->field, "A new field instead of the classification");
  segment->add_option("--block", arguments->segment.block, "Side of a block, in the file's unit");
  segment->add_option("--margin", arguments->segment.margin, "Seen around a block");
  segment->add_option("--points", arguments->segment.points, "Points the model sees at once");
  segment
      ->add_option("--votes", arguments->segment.votes,
                   "Answers that are averaged, of other points each, turned about z")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  segment->add_option("--device", arguments->device, "auto, cpu or cuda");
  segment->callback(
      [&action, arguments] { action = [arguments] { return run_segment(*arguments); }; });
  auto* draw = command->add_subcommand(
      "draw", "A page that turns in the browser, a picture, or a coloured PLY");
  draw->add_option("FILE", arguments->in, "File of points")->required();
  draw->add_option("-o,--out", arguments->out, "NAME.html, NAME.png or NAME.ply")
      ->required()
      ->check(CLI::Validator(
          [](const std::string& path) {
            for (const char* ending : {".html", ".png", ".ply"})
              if (path.ends_with(ending)) return std::string();
            return "'" + path + "' must end with .html, .png or .ply";
          },
          ""));
  draw->add_option("--order", arguments->order, "Traversal to draw as a line, as hilbert or xyz")
      ->check(CLI::IsMember(point_orders()));
  draw->add_option("--points", arguments->most, "Points to draw at most, a random choice")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  draw->add_option("--cell", arguments->cell, "Side of its cells, as a part of the cloud's size");
  draw->callback([&action, arguments] { action = [arguments] { return run_draw(*arguments); }; });
}

}  // namespace serpentine
