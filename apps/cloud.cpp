// serpentine cloud: labels for the points of a file, and pictures of clouds.
#include <cstdio>
#include <iostream>

#include <torch/torch.h>
#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/model_file.h"
#include "core/check.h"
#include "core/io/atomic_file.h"
#include "core/io/state_dict.h"
#include "core/train/trainer.h"
#include "pointcloud/draw_cloud.h"
#include "pointcloud/las.h"
#include "pointcloud/point_order.h"
#include "pointcloud/segment_scene.h"

namespace serpentine {
namespace {

constexpr const char* kCloudFooter = R"(Examples:
  serpentine cloud segment runs/streets in.las -o out.las        classes into the classification
  serpentine cloud segment runs/streets in.las -o out.las --field predicted
  serpentine cloud draw scan.ply -o scan.html --order hilbert    a page that turns in the browser)";

struct CloudArguments {
  std::string run, in, out, field, order, device = "auto";
  SegmentOptions segment;
  double cell = 0.02;
};

std::shared_ptr<Model> model_of(const std::string& run) {
  const std::string weights = weights_of_run(run);
  if (weights.empty()) throw UsageError("cloud segment: '" + run + "' is no run folder");
  const Config config = Config::load(yaml_of(run)).child("model");
  auto model = all_packages().models.build(config);
  const LoadReport fit = load_state_dict(*model, read_state_dict(weights), model->tolerated_keys());
  TORCH_CHECK(fit.ok(), weights, " does not fit the model of ", yaml_of(run), "\n", fit.text());
  model->eval();
  return model;
}

int run_segment(CloudArguments arguments) {
  const auto model = model_of(arguments.run);
  const auto device = pick_device(arguments.device);
  model->to(device);
  arguments.segment.progress = [](int64_t done, int64_t all) {
    std::fprintf(stderr, "\rblock %lld of %lld", static_cast<long long>(done),
                 static_cast<long long>(all));
  };
  const bool las = arguments.in.ends_with(".las") || arguments.in.ends_with(".laz");
  if (las) {
    const LasFile file(arguments.in);
    const torch::Tensor labels =
        segment_scene(*model, file.points(0, file.size()), device, arguments.segment);
    const auto of = [&](int64_t first, int64_t n) { return labels.narrow(0, first, n); };
    if (arguments.field.empty()) {
      file.write_classes(arguments.out, of);
    } else {
      file.write_new_field(arguments.out, arguments.field, of);
    }
  } else {
    PointCloud cloud = read_cloud(arguments.in);
    const torch::Tensor labels = segment_scene(*model, cloud.points, device, arguments.segment);
    cloud.set(arguments.field.empty() ? "label" : arguments.field, labels.to(torch::kInt),
              NumberType::kI32);
    write_cloud(arguments.out, cloud);
  }
  std::fprintf(stderr, "\n");
  std::cout << arguments.out << "\n";
  return 0;
}

int run_draw(const CloudArguments& arguments) {
  const PointCloud cloud = finite_points(read_cloud(arguments.in));
  TORCH_CHECK(cloud.size() > 0, arguments.in, ": there is no point to draw");
  std::vector<CloudLayer> layers;
  const torch::Tensor colours = colours_of(cloud);
  if (colours.defined()) layers.push_back({"colour", (colours * 255).round().to(torch::kByte)});
  for (const char* name : {"classification", "label", "class"}) {
    const CloudField* field = cloud.find(name);
    if (field && field->values.dim() == 1) layers.push_back({name, class_colours(field->values)});
  }
  const torch::Tensor height = cloud.points.select(1, 2), low = height.min();
  const torch::Tensor share = (height - low) / (height.max() - low).clamp_min(1e-12);
  layers.push_back({"height", (torch::stack({share, 1 - (2 * share - 1).abs(), 1 - share}, 1) * 255)
                                  .round()
                                  .to(torch::kByte)});
  torch::Tensor walk;
  if (!arguments.order.empty()) {
    const torch::Tensor away = cloud.points - std::get<0>(cloud.points.min(0));
    const torch::Tensor unit = (away / away.max().clamp_min(1e-12)).to(torch::kFloat);
    walk = point_walk(unit.unsqueeze(0), arguments.order, {arguments.cell, false})[0];
  }
  if (arguments.out.ends_with(".ply")) {
    write_cloud(arguments.out, coloured(cloud, layers.front().colours));
  } else {
    write_atomically(arguments.out, cloud_page(arguments.in, cloud.points, layers, walk));
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
  segment->add_option("--device", arguments->device, "auto, cpu or cuda");
  segment->callback(
      [&action, arguments] { action = [arguments] { return run_segment(*arguments); }; });
  auto* draw =
      command->add_subcommand("draw", "A page that turns in the browser, or a coloured PLY");
  draw->add_option("FILE", arguments->in, "File of points")->required();
  draw->add_option("-o,--out", arguments->out, "NAME.html or NAME.ply")->required();
  draw->add_option("--order", arguments->order, "Traversal to draw as a line, as hilbert or xyz")
      ->check(CLI::IsMember(point_orders()));
  draw->add_option("--cell", arguments->cell, "Side of its cells, as a part of the cloud's size");
  draw->callback([&action, arguments] { action = [arguments] { return run_draw(*arguments); }; });
}

}  // namespace serpentine
