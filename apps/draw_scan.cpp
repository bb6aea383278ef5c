// serpentine draw-scan: a serialization as a picture.
#include <cmath>
#include <cstdio>
#include <iostream>

#include <ATen/CPUGeneratorImpl.h>
#include <torch/types.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "core/io/atomic_file.h"
#include "scans/picture.h"

namespace serpentine {
namespace {

constexpr const char* kDrawScanFooter =
    R"(NAME is a serialization, or a YAML mapping of one. Examples:
  serpentine draw-scan hilbert --size 16x16
  serpentine draw-scan window --set size=4 --set flip=true -o window.png
  serpentine draw-scan '{type: bidirectional, inner: {type: raster, columns: true}}'
  serpentine draw-scan traverse --points 300 --set cell=0.1 --set axes=zyx
  serpentine draw-scan lattice --size 12x16 --layout tiles --set holes=true
docs/scans.md shows all of them.)";

struct DrawArguments {
  std::string name, size = "14x14", layout = "auto";
  std::vector<std::string> overrides, out;
  int64_t points = 200, layer = -1, layers = 12, seed = 1;
};

/// "14x14" is height x width, "4x8x8" depth x height x width.
TokenLayout image_layout(const std::string& size) {
  TokenLayout layout;
  long long first = 0, second = 0, third = 0;
  int used = 0;
  const auto whole = [&] { return static_cast<size_t>(used) == size.size(); };
  if (std::sscanf(size.c_str(), "%lldx%lldx%lld%n", &first, &second, &third, &used) == 3 &&
      whole()) {
    layout.depth = first, layout.height = second, layout.width = third;
  } else if (std::sscanf(size.c_str(), "%lldx%lld%n", &first, &second, &used) == 2 && whole()) {
    layout.height = first, layout.width = second;
  } else {
    throw UsageError("draw-scan: --size must be HEIGHTxWIDTH or DEPTHxHEIGHTxWIDTH, got '" + size +
                     "'");
  }
  constexpr int64_t kMost = 512;
  for (const int64_t side : {layout.depth, layout.height, layout.width}) {
    if (side < 1 || side > kMost)
      throw UsageError("draw-scan: the sides of --size must be 1 to 512, got '" + size + "'");
  }
  layout.num_tokens = layout.depth * layout.height * layout.width;
  if (layout.num_tokens > kMost * kMost)
    throw UsageError("draw-scan: at most 262144 tokens can be drawn, got '" + size + "'");
  return layout;
}

/// The tiles of a slide that hold tissue: an uneven disk with a hole on the grid.
TokenLayout tile_layout(const std::string& size) {
  const TokenLayout grid = image_layout(size);
  std::vector<float> coords;
  for (int64_t y = 0; y < grid.height; ++y) {
    for (int64_t x = 0; x < grid.width; ++x) {
      const double across =
          2 * (static_cast<double>(x) + 0.5) / static_cast<double>(grid.width) - 1;
      const double down = 2 * (static_cast<double>(y) + 0.5) / static_cast<double>(grid.height) - 1;
      const double angle = std::atan2(down, across), border = 0.85 + 0.2 * std::sin(3 * angle + 1);
      const bool hole = std::hypot(across + 0.1, down - 0.15) < 0.25;
      if (std::hypot(across, down) < border && !hole)
        coords.insert(coords.end(), {static_cast<float>(x), static_cast<float>(y)});
    }
  }
  TokenLayout layout;
  layout.coords = torch::tensor(coords).view({1, -1, 2});
  layout.num_tokens = layout.coords.size(1);
  return layout;
}

/// Points on a ball's surface inside the unit cube.
TokenLayout point_layout(int64_t count, at::Generator generator) {
  TokenLayout layout;
  layout.num_tokens = count;
  const auto away = torch::randn({1, count, 3}, generator);
  layout.coords = 0.5 + 0.5 * away / away.norm(2, {2}, true).clamp_min(1e-6);
  return layout;
}

/// For strategies that sort by scores: how near a token lies to the middle.
torch::Tensor score_of(const TokenLayout& layout) {
  if (layout.coords.defined()) return -(layout.coords - layout.coords.mean(1, true)).norm(2, {2});
  const auto token = torch::arange(layout.num_tokens);
  const auto from_middle = [](const torch::Tensor& index, int64_t size) {
    return (index.to(torch::kFloat) - static_cast<double>(size - 1) / 2).square();
  };
  return -(from_middle(token % layout.width, layout.width) +
           from_middle(token.div(layout.width, "floor") % layout.height, layout.height) +
           from_middle(token.div(layout.width * layout.height, "floor"), layout.depth))
              .unsqueeze(0);
}

int run_draw(const DrawArguments& arguments) {
  Registry<Serialization> all("serialization");
  add_serializations(all);
  const bool mapping = arguments.name.starts_with('{');
  const Config config = Config::parse(mapping ? arguments.name : "{type: " + arguments.name + "}",
                                      "the command line", arguments.overrides);
  const auto strategy = build_serialization(all, config);
  const std::string type = config.type();

  const at::Generator generator =
      at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(arguments.seed));
  std::string kind = arguments.layout;
  if (kind == "auto") kind = type == "traverse" ? "points" : type == "lattice" ? "tiles" : "image";
  TokenLayout layout = kind == "points"  ? point_layout(arguments.points, generator)
                       : kind == "tiles" ? tile_layout(arguments.size)
                                         : image_layout(arguments.size);
  layout.keys = score_of(layout);
  const TokenLayout cells = layout;
  layout.num_tokens = strategy->num_tokens(cells.num_tokens);

  ScanContext context;
  context.num_layers = arguments.layers;
  context.layer = arguments.layer < 0 ? arguments.layers - 1 : arguments.layer;
  context.training = true;
  context.generator = generator;
  const ScanOrder order = strategy->order(layout, context);

  const Drawing drawing = draw_order(order, cells);
  std::vector<std::string> files = arguments.out;
  if (files.empty()) files = {type + ".svg"};
  for (const std::string& file : files) {
    if (file.ends_with(".svg")) {
      write_atomically(file, svg(drawing));
    } else if (file.ends_with(".png")) {
      write_image(file, picture(drawing));
    } else {
      throw UsageError("draw-scan: '" + file + "' must end with .svg or .png");
    }
    std::cout << file << ": ";
  }
  std::cout << order.num_branches << (order.num_branches == 1 ? " branch, " : " branches, ")
            << order.num_sequences() << (order.num_sequences() == 1 ? " walk, " : " walks, ")
            << order.num_positions() << " positions, " << order.num_tokens << " tokens\n";
  return 0;
}

}  // namespace

void add_draw_scan_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("draw-scan", "Draw a serialization: in which order it reads");
  command->footer(kDrawScanFooter);
  auto arguments = std::make_shared<DrawArguments>();
  command->add_option("NAME", arguments->name, "Its type, or a YAML mapping with it")->required();
  command->add_option("--size", arguments->size, "Tokens: HxW, or DxHxW for a volume");
  command->add_option("--set", arguments->overrides, "An option as key=value")
      ->allow_extra_args(false);
  command
      ->add_option("--layout", arguments->layout,
                   "image, tiles (a grid with holes), points (on a ball in the unit cube)")
      ->check(CLI::IsMember({"auto", "image", "tiles", "points"}));
  command->add_option("--points", arguments->points, "How many points")
      ->check(CLI::Range(1, 100000));
  command->add_option("--layer", arguments->layer,
                      "For orders that depend on it; default the last");
  command->add_option("--layers", arguments->layers, "Layers of the model")
      ->check(CLI::Range(2, 1000));
  command->add_option("--seed", arguments->seed, "Of random orders");
  command->add_option("-o,--out", arguments->out, "FILE.svg or FILE.png; default NAME.svg")
      ->allow_extra_args(false);
  command->callback(
      [&action, arguments] { action = [arguments] { return run_draw(*arguments); }; });
}

}  // namespace serpentine
