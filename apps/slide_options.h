// Command-line options that the slide commands share.
#pragma once

#include <string>
#include <vector>

#include "pathology/tile_job.h"

// NOLINTNEXTLINE(readability-identifier-naming): the library's own name
namespace CLI {
class App;
}

namespace serpentine {

struct SlideArguments {
  std::string mpp_csv, layout = "trident";
  bool no_read = false, keep_pen = false;
  TileJob job;
  /// The job that the options describe.
  TileJob finished() const;
};

/// --mpp-csv and --default-mpp.
void add_mpp_options(CLI::App& command, SlideArguments& arguments);
/// Those of tissue and tiles.
void add_tile_options(CLI::App& command, SlideArguments& arguments);

/// The slides that this process of a torchrun or Slurm job works on: every n-th.
std::vector<SlideFile> own_share(const std::vector<SlideFile>& slides);

}  // namespace serpentine
