// serpentine wsi: what a slide is, and what a model of bags says of it.
#include <algorithm>
#include <cstdio>
#include <thread>

#include <torch/torch.h>
#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/predict_slides.h"
#include "apps/slide_options.h"
#include "core/io/image.h"

namespace serpentine {
namespace {

constexpr const char* kWsiFooter = R"(Examples:
  serpentine wsi info slide.svs
  serpentine wsi predict runs/lung slide.svs -o predictions/       label, heatmap, report
  serpentine wsi predict runs/crossval-lung slides/ -o predictions/   all folds averaged)";

struct SlideInfoArguments {
  std::string slide, thumbnail;
  SlideArguments options;
};

int run_slide_info(const SlideInfoArguments& arguments) {
  const auto slide = open_slide(arguments.slide, arguments.options.finished().slide);
  std::printf("file       %s\nformat     %s\nsize       %lld x %lld pixels\n",
              slide->path().c_str(), slide->format().c_str(),
              static_cast<long long>(slide->width()), static_cast<long long>(slide->height()));
  std::printf("resolution %s\n", slide->mpp().value > 0
                                     ? (std::to_string(slide->mpp().value) +
                                        " microns per pixel, from " + slide->mpp().source)
                                           .c_str()
                                     : "unknown; give --default-mpp or --mpp-csv");
  for (size_t i = 0; i < slide->levels().size(); ++i) {
    const auto& level = slide->levels()[i];
    std::printf("level %zu    %lld x %lld, reduced by %.4g\n", i,
                static_cast<long long>(level.width), static_cast<long long>(level.height),
                level.downsample);
  }
  for (const auto& name : slide->associated_names()) std::printf("picture    %s\n", name.c_str());
  if (!slide->remark().empty()) std::printf("remark     %s\n", slide->remark().c_str());
  if (!arguments.thumbnail.empty()) {
    write_image(arguments.thumbnail, thumbnail(*slide, 1024));
    std::printf("thumbnail  %s\n", arguments.thumbnail.c_str());
  }
  return 0;
}

void add_predict(CLI::App& wsi, Action& action) {
  auto arguments = std::make_shared<PredictRequest>();
  arguments->options.job.threads = std::max(1U, std::thread::hardware_concurrency());
  auto* command = wsi.add_subcommand("predict", "Label, probability, heatmap and report of slides");
  command->footer(kWsiFooter);
  command->add_option("RUN", arguments->run, "Run over bags, or a folder of `serpentine crossval`")
      ->required();
  command->add_option("SLIDES", arguments->slides, "A slide, or a folder of slides")->required();
  command->add_option("-o,--out", arguments->out, "Folder of the results, one a slide")
      ->capture_default_str();
  command->add_option("--features", arguments->features,
                      "Folder whose settings (encoder, tiles) hold; default: the run's");
  command->add_option("--encoder", arguments->encoder.source,
                      "Instead of the one in those settings");
  command
      ->add_option("--input-size", arguments->encoder.input_size,
                   "Pixels that tiles are resized to, instead of the one in those settings")
      ->check(CLI::Range(0, 65536));
  command->add_option("--device", arguments->encoder.device, "auto, cpu or cuda");
  command->add_option("--batch", arguments->job.stream.batch, "Tiles of a batch")
      ->check(CLI::Range(1, 65536));
  command->add_option("--readers", arguments->options.job.threads, "Threads that read tiles")
      ->check(CLI::Range(1, 256));
  command
      ->add_option("--heat-mpp", arguments->files.heat_mpp,
                   "Micrometres of the pyramid's pixel; 0: none")
      ->check(CLI::Range(0.0, 1000.0))
      ->capture_default_str();
  command->add_option("--opacity", arguments->files.style.opacity, "Of the heat over the slide")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      ->add_option("--heat", arguments->heat,
                   "attention, tile (what the model says of each tile alone), or auto: tile for "
                   "survival, else attention")
      ->check(CLI::IsMember({"auto", "attention", "tile"}));
  command->add_option("--colours", arguments->files.style.map, "turbo or viridis")
      ->check(CLI::IsMember({"turbo", "viridis"}));
  command->add_option("--top", arguments->files.top, "Tiles on the sheet")
      ->check(CLI::Range(1, 400));
  command
      ->add_option("--above", arguments->files.threshold,
                   "Rank from which QuPath's tiles are classified")
      ->check(CLI::Range(0.0, 1.0));
  command->add_flag("--again", arguments->again, "Also slides that are finished");
  add_mpp_options(*command, arguments->options);
  add_tile_options(*command, arguments->options);
  command->callback([&action, arguments, command] {
    arguments->given = given_tile_options(*command);
    arguments->input_given = command->count("--input-size") > 0;
    action = [arguments] { return predict_slides(*arguments); };
  });
}

}  // namespace

void add_wsi_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("wsi", "Say what a slide is; predict slides");
  command->footer(kWsiFooter);
  command->require_subcommand(1);
  add_predict(*command, action);
  auto arguments = std::make_shared<SlideInfoArguments>();
  auto* info = command->add_subcommand("info", "Format, size, levels, resolution");
  info->footer(kWsiFooter);
  info->add_option("SLIDE", arguments->slide, "A slide")->required();
  info->add_option("--thumbnail", arguments->thumbnail, "Write a thumbnail there");
  add_mpp_options(*info, arguments->options);
  info->callback(
      [&action, arguments] { action = [arguments] { return run_slide_info(*arguments); }; });
}

}  // namespace serpentine
