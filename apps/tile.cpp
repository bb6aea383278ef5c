// serpentine tile: tissue and tiles of a folder of slides.
#include <cstdio>
#include <iostream>
#include <thread>

#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/slide_options.h"
#include "apps/slide_pace.h"
#include "core/io/progress.h"

namespace serpentine {
namespace {

constexpr const char* kTileFooter =
    R"(Writes coordinates of tiles as HDF5 (TRIDENT's or CLAM's layout), outlines of the tissue as GeoJSON,
a picture and a report a slide, quality.csv and quarantine.csv. A second run does what is missing.
Several processes may share the folder. Examples:
  serpentine tile slides/ -o tiles/ --mpp 0.5 --size 256
  serpentine tile slides/ -o tiles/ --mpp-csv mpp.csv --min-sharpness 20
  torchrun --no-python --nproc-per-node 4 serpentine tile slides/ -o tiles/)";

struct TileArguments {
  std::string slides;
  SlideArguments options;
};

int run_tile(const TileArguments& arguments) {
  TileJob job = arguments.options.finished();
  const auto all = find_slides(arguments.slides);
  if (all.empty()) throw UsageError(arguments.slides + ": holds no slide");
  arguments.options.tell_unmatched(all);
  const auto slides = own_share(all);
  open_tile_folder(job);
  int64_t failed = 0, done = 0, tiles = 0;
  SlidePace pace(slides);
  for (size_t i = 0; i < slides.size(); ++i) {
    const std::string title = "slide " + std::to_string(i + 1) + " of " +
                              std::to_string(slides.size()) + " " + slides[i].name;
    SlideReport report;
    pace.begin();
    {
      std::unique_ptr<Progress> bar;
      job.progress = [&](int64_t read, int64_t planned) {
        if (!bar) bar = std::make_unique<Progress>(title + pace.left(), planned);
        bar->update(read);
      };
      report = tile_slide(slides[i], job);
    }
    pace.end(slides[i], report.outcome != SlideReport::Outcome::kSkipped);
    std::cout << title << ": " << report.sentence() << std::endl;
    failed += report.outcome == SlideReport::Outcome::kFailed;
    if (report.outcome == SlideReport::Outcome::kDone ||
        report.outcome == SlideReport::Outcome::kSkipped) {
      ++done;
      tiles += report.content.value("tiles", int64_t{0});
    }
  }
  summarise_tiles(job.out);
  std::printf("%lld of %zu slides have %lld tiles; see %s/quality.csv\n",
              static_cast<long long>(done), slides.size(), static_cast<long long>(tiles),
              job.out.c_str());
  if (failed > 0) {
    std::printf("%lld failed; why stands in %s/quarantine.csv\n", static_cast<long long>(failed),
                job.out.c_str());
  }
  return failed > 0 ? 1 : 0;
}

}  // namespace

void add_tile_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("tile", "Find the tissue of slides and cut it into tiles");
  command->footer(kTileFooter);
  auto arguments = std::make_shared<TileArguments>();
  arguments->options.job.threads = std::max(1U, std::thread::hardware_concurrency());
  command->add_option("SLIDES", arguments->slides, "A slide, or a folder of slides")->required();
  command->add_option("-o,--out", arguments->options.job.out, "Folder of the results")->required();
  add_mpp_options(*command, arguments->options);
  add_tile_options(*command, arguments->options);
  add_read_option(*command, arguments->options);
  command->add_option("--layout", arguments->options.layout, "Of the HDF5: trident or clam")
      ->check(CLI::IsMember({"trident", "clam"}))
      ->capture_default_str();
  command->add_option("--readers", arguments->options.job.threads, "Threads that read tiles")
      ->check(CLI::Range(1, 256));
  command->add_flag("--again", arguments->options.job.again, "Also slides that are finished");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_tile(*arguments); }; });
}

}  // namespace serpentine
