// serpentine embed-slides: features of the tiles of a folder of slides.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <thread>

#include <torch/torch.h>
#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/encoder.h"
#include "apps/measure.h"
#include "apps/slide_options.h"
#include "apps/slide_pace.h"
#include "core/check.h"
#include "core/io/json_file.h"
#include "core/io/progress.h"

namespace serpentine {
namespace {

constexpr const char* kEmbedSlidesFooter =
    R"(Tiles what is not tiled yet (--tiles, or a folder below --out), reads with several threads, encodes in
batches and writes features as HDF5 (CLAM, TRIDENT), .pt or .safetensors. A second run does what is
missing. The encoder is a run of `serpentine train`, a ResNet's weights in torchvision's layout, a
TorchScript file (.ts), or `colour`: statistics that need no weights. Examples:
  serpentine embed-slides slides/ --encoder runs/gland_vmamba -o features/
  serpentine embed-slides slides/ --encoder resnet50.safetensors --tiles tiles/ -o features/
  serpentine embed-slides slides/ --encoder uni.ts --stain macenko --precision bf16 -o features/
  torchrun --no-python --nproc-per-node 4 serpentine embed-slides slides/ --encoder uni.ts -o features/)";

struct EmbedSlidesArguments {
  std::string slides, tiles;
  std::vector<std::string> given;  // options of tiles on the command line
  SlideArguments options;
  EncoderOptions encoder;
  EmbedJob job;
};

/// Coordinates of a slide, made now if they are not there. "" in `why` unless there are none.
TileRecord tiles_of(const SlideFile& slide, const TileJob& tiling, const EmbedJob& job,
                    std::string& why) {
  const std::string path = tiling.out + "/coords/" + slide.name + ".h5";
  // a finished slide is left alone, unless the options correct its resolution
  const bool ours = std::filesystem::exists(tiling.out + "/reports/" + slide.name + ".json");
  if (ours || !std::filesystem::exists(path)) {
    const SlideReport report = tile_slide(slide, tiling);
    if (!std::filesystem::exists(path)) {
      why = report.outcome == SlideReport::Outcome::kSkipped
                ? report.content.value("reason", "its tiles are gone")
                : report.sentence();
      if (report.content.contains("mpp_before")) forget_features(job, slide.name);
      return {};
    }
  }
  return read_coords(path);
}

struct Counts {
  int64_t done = 0, tiles = 0, failed = 0;
};

/// A whole slide: its sentence is printed, its outcome counted. Whether it had to be worked on.
/// left: what stands behind the title while it lasts.
bool embed_one(const SlideFile& slide, const std::string& title, const std::string& left,
               const TileJob& tiling, const Encoder& encoder, EmbedJob& job, Counts& counts) {
  std::string sentence;
  bool worked = true;
  try {
    const TileRecord record = tiles_of(slide, tiling, job, sentence);
    if (!sentence.empty()) {
      counts.failed += sentence.starts_with("FAILED");
    } else {
      std::unique_ptr<Progress> bar;
      job.progress = [&](int64_t done, int64_t all) {
        if (!bar) bar = std::make_unique<Progress>(title + left, all);
        bar->update(done);
      };
      const SlideReport report = embed_slide(slide, record, encoder.encode, job);
      sentence = report.sentence();
      worked = report.outcome != SlideReport::Outcome::kSkipped;
      counts.failed += report.outcome == SlideReport::Outcome::kFailed;
      if (report.outcome == SlideReport::Outcome::kDone ||
          report.outcome == SlideReport::Outcome::kSkipped) {
        ++counts.done;
        counts.tiles += report.content.value("tiles", int64_t{0});
      }
    }
  } catch (const c10::Error& error) {
    ++counts.failed;
    sentence = "FAILED: " + std::string(error.what_without_backtrace());
  } catch (const std::exception& error) {
    ++counts.failed;
    sentence = std::string("FAILED: ") + error.what();
  }
  std::cout << title << ": " << sentence << std::endl;
  return worked;
}

int run_embed_slides(EmbedSlidesArguments arguments) {
  TileJob tiling = arguments.options.finished();
  tiling.out = arguments.tiles.empty() ? arguments.job.out + "/tiles" : arguments.tiles;
  if (!arguments.tiles.empty()) {  // made by `serpentine tile`: its options hold
    const auto before = read_json(tiling.out + "/settings.json");
    if (before.is_object()) {
      tiling.use(before);
      arguments.options.lay_over(tiling, arguments.given);  // what differs is refused below
    }
  }
  const auto all = find_slides(arguments.slides);
  if (all.empty()) throw UsageError(arguments.slides + ": holds no slide");
  arguments.options.tell_unmatched(all);
  const auto slides = own_share(all);
  open_tile_folder(tiling);
  const Encoder encoder = open_encoder(arguments.encoder, tiling.tile.size);
  EmbedJob& job = arguments.job;
  job.encoder = encoder.name;
  job.precision = arguments.encoder.precision;
  job.input_size = arguments.encoder.input_size;
  job.tiling = tiling.settings();
  job.slide = tiling.slide;
  job.stream.threads = tiling.threads;
  job.stream.ahead = std::max<int64_t>(2, tiling.threads + 1);
  open_feature_folder(job);
  TileGrid grid;
  grid.size = tiling.tile.size;
  grid.size_read = 2 * grid.size;
  std::printf(
      "encoder    %s, %lld features a tile\nmemory     at most %s for pictures on their way, "
      "beside the encoder; %s a 100,000 tiles of features\n",
      encoder.name.c_str(), static_cast<long long>(encoder.width),
      amount(static_cast<double>(TileStream::memory(grid, job.stream)), "B").c_str(),
      amount(static_cast<double>(100000 * encoder.width * 8), "B").c_str());
  if (job.augment.copies > 0 && job.formats == std::vector<std::string>{"pt"})
    throw UsageError("--augment: .pt holds no copies; add h5 or safetensors to --format");
  Counts counts;
  SlidePace pace(slides);
  for (size_t i = 0; i < slides.size(); ++i) {
    const std::string title = "slide " + std::to_string(i + 1) + " of " +
                              std::to_string(slides.size()) + " " + slides[i].name;
    pace.begin();
    const bool worked = embed_one(slides[i], title, pace.left(), tiling, encoder, job, counts);
    pace.end(slides[i], worked);
  }
  summarise_tiles(tiling.out);
  std::printf("%lld of %zu slides have features of %lld tiles in %s\n",
              static_cast<long long>(counts.done), slides.size(),
              static_cast<long long>(counts.tiles), job.out.c_str());
  if (counts.failed > 0)
    std::printf("%lld failed, see above\n", static_cast<long long>(counts.failed));
  return counts.failed > 0 ? 1 : 0;
}

}  // namespace

void add_embed_slides_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("embed-slides", "Features of the tiles of slides");
  command->footer(kEmbedSlidesFooter);
  auto arguments = std::make_shared<EmbedSlidesArguments>();
  arguments->options.job.threads = std::max(1U, std::thread::hardware_concurrency());
  command->add_option("SLIDES", arguments->slides, "A slide, or a folder of slides")->required();
  command->add_option("-o,--out", arguments->job.out, "Folder of the features")->required();
  command->add_option("--encoder", arguments->encoder.source, "Run, weights, TorchScript or colour")
      ->required();
  command->add_option("--tiles", arguments->tiles, "Folder of `serpentine tile`");
  command->add_option("--format", arguments->job.formats, "h5, pt, safetensors; several by commas")
      ->delimiter(',')
      ->check(CLI::IsMember({"h5", "pt", "safetensors"}));
  command->add_option("--stain", arguments->job.stain, "Normalise: macenko or reinhard")
      ->check(CLI::IsMember({"macenko", "reinhard"}));
  command->add_option("--stain-target", arguments->job.stain_target,
                      "Picture whose colours are the target");
  command->add_option("--batch", arguments->job.stream.batch, "Tiles of a batch")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  command->add_option("--readers", arguments->options.job.threads, "Threads that read tiles")
      ->check(CLI::Range(1, 256));
  command->add_option("--device", arguments->encoder.device, "auto, cpu or cuda");
  command->add_option("--precision", arguments->encoder.precision, "fp32, tf32, bf16 or fp16")
      ->check(CLI::IsMember({"fp32", "tf32", "bf16", "fp16"}));
  command
      ->add_option("--input-size", arguments->encoder.input_size,
                   "Pixels that tiles are resized to for the encoder; 0: as they are")
      ->check(CLI::Range(0, 65536));
  command
      ->add_option("--augment", arguments->job.augment.copies,
                   "Also embed so many augmented copies of each tile (data.augmented uses them)")
      ->check(CLI::Range(0, 64));
  command->add_option("--augment-seed", arguments->job.augment.seed, "What the copies are drawn by")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--augment-stain", arguments->job.augment.stain,
                   "Jitter of the copies' stains; 0: only turned and mirrored")
      ->check(CLI::Range(0.0, 0.5))
      ->capture_default_str();
  command->add_flag("--half", arguments->job.half, "Store float16");
  command->add_flag("--again", arguments->job.again, "Also slides that are finished");
  add_mpp_options(*command, arguments->options);
  add_tile_options(*command, arguments->options);
  add_read_option(*command, arguments->options);
  command->callback([&action, arguments, command] {
    arguments->given = given_tile_options(*command);
    action = [arguments] { return run_embed_slides(*arguments); };
  });
}

}  // namespace serpentine
