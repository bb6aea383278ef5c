// Features of all tiles of one slide into a folder that several processes may share.
//
//   h5_files/NAME.h5         `features` [T, F] and `coords` [T, 2], as CLAM and TRIDENT write them
//   pt_files/NAME.pt         the features alone, for torch.load
//   NAME.safetensors         `features` and `coords`
//   With augmented copies .h5 and .safetensors hold `augmented` [copies, T, F], too; `features`
//   stay those of the tiles as they are, so other readers see no difference. reports/NAME.json its
//   presence says that the slide is finished settings.json            encoder, stain and tiles:
//   what a new slide must go through
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <torch/types.h>

#include "pathology/slide.h"
#include "pathology/tile_augment.h"
#include "pathology/tile_files.h"
#include "pathology/tile_job.h"
#include "pathology/tiles.h"

namespace serpentine {

/// uint8 [B, S, S, 3] on the CPU to float32 [B, F] on the CPU.
using TileEncoder = std::function<torch::Tensor(const torch::Tensor& pictures)>;

struct EmbedJob {
  std::string out;
  std::vector<std::string> formats = {"h5"};  // h5, pt, safetensors
  std::string encoder;                        // what it is, for the files
  std::string stain;                          // "", "macenko", "reinhard"
  std::string stain_target;                   // a picture whose colours are the target, or ""
  std::string precision = "fp32";             // that the encoder runs in
  int64_t input_size = 0;                     // pixels that tiles are resized to; 0: as they are
  bool half = false;                          // store float16
  TileAugment augment;                        // copies that are embedded beside the tiles
  double min_sharpness = 0;                   // tiles below are left out, where none did before
  nlohmann::json tiling;                      // settings of the tiles
  SlideOptions slide;
  TileStreamOptions stream;
  bool again = false;
  std::function<void(int64_t, int64_t)> progress;

  nlohmann::json settings() const;
};

/// The rows of tiles that could be read, in order.
struct EmbeddedTiles {
  torch::Tensor features;  // float32 [T, F]
  torch::Tensor coords;    // int64 [T, 2]
  torch::Tensor copies;    // float32 [copies, T, F] of augmented tiles, or undefined
  int64_t unreadable = 0, blurred = 0;
};

/// All tiles of `grid` through the encoder; stain is fitted to the slide first if asked for.
EmbeddedTiles embed_tiles(const Slide& slide, const TileGrid& grid, const TileEncoder& encoder,
                          const EmbedJob& job);

/// Embeds the slide of a file of coordinates. Never throws for what is wrong with the slide.
SlideReport embed_slide(const SlideFile& file, const TileRecord& record, const TileEncoder& encoder,
                        const EmbedJob& job);

/// Removes what the folder holds of a slide whose tiles are no longer those.
void forget_features(const EmbedJob& job, const std::string& name);

/// Makes the folders. Throws when the folder holds features of another encoder or stain.
void open_feature_folder(const EmbedJob& job);

/// Bytes that one slide of `tiles` tiles and `width` features needs at most, beside the encoder.
int64_t embed_memory(const TileGrid& grid, const EmbedJob& job, int64_t width);

}  // namespace serpentine
