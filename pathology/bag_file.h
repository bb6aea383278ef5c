// The features of one slide's tiles, as CLAM, TRIDENT and others keep them.
#pragma once

#include <string>
#include <vector>

#include <torch/types.h>

namespace serpentine {

struct TileFeatures {
  torch::Tensor features;  // float32 [N, F]
  torch::Tensor coords;    // float32 [N, 2]: x, y in pixels of level 0; undefined: not in the file
  torch::Tensor copies;    // float32 [A, N, F] of augmented tiles, when asked for
};

/// Reads .h5 (`features` or `feats`, `coords`), .pt (a tensor, or a dictionary of them),
/// .safetensors or .npy. A leading axis of 1 is dropped. Throws with the file and the cause; a bag
/// without tiles is read as such. `copies`: also those of `embed-slides --augment`, which must be
/// there.
TileFeatures read_tile_features(const std::string& path, bool copies = false);

/// The file of a slide below `folder`, or "": <slide>.h5, .pt, .safetensors or .npy, in the folder
/// or its h5_files or pt_files, with or without `_features` behind the name.
std::string find_tile_features(const std::string& folder, const std::string& slide);

}  // namespace serpentine
