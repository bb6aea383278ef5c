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
  /// Says on stderr when --mpp-csv names none of the slides.
  void tell_unmatched(const std::vector<SlideFile>& slides) const;
  /// Lays the options named in `given` ("--size") over settings that were read.
  void lay_over(TileJob& settings, const std::vector<std::string>& given) const;
};

/// --mpp-csv and --default-mpp.
void add_mpp_options(CLI::App& command, SlideArguments& arguments);
/// Those of tissue and tiles.
void add_tile_options(CLI::App& command, SlideArguments& arguments);
/// --no-read, of the commands that look at each tile before they use it.
void add_read_option(CLI::App& command, SlideArguments& arguments);
/// Which of the tile options the command line has.
std::vector<std::string> given_tile_options(const CLI::App& command);

/// Where it stands in TileJob::settings(), as a JSON pointer.
std::string place_of_tile_option(const std::string& option);

/// The slides that this process of a torchrun or Slurm job works on: every n-th.
std::vector<SlideFile> own_share(const std::vector<SlideFile>& slides);

}  // namespace serpentine
