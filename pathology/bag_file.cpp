#include "pathology/bag_file.h"

#include <algorithm>
#include <filesystem>

#include <torch/torch.h>

#include "core/check.h"
#include "core/io/hdf5.h"
#include "core/io/npy.h"
#include "core/io/safetensors.h"
#include "core/io/torch_pickle.h"

namespace serpentine {
namespace {

const std::vector<std::string> kFeatureNames = {"features", "feats", "feature", "embeddings", "x"};
const std::vector<std::string> kCoordNames = {"coords", "coordinates", "xy"};
const std::vector<std::string> kCopyNames = {"augmented"};

/// The first of the known names that is there; of a file with one array, that one.
torch::Tensor choose(const StateDict& tensors, const std::vector<std::string>& names, bool only) {
  for (const auto& name : names) {
    for (const auto& [key, tensor] : tensors) {
      if (key == name) return tensor;
    }
  }
  return only && tensors.size() == 1 ? tensors.front().second : torch::Tensor();
}

StateDict read_arrays(const std::string& path, bool copies) {
  if (path.ends_with(".h5") || path.ends_with(".hdf5")) {
    const Hdf5Reader file(path);
    StateDict arrays;
    for (const auto& name : file.arrays()) {
      const auto known = [&](const auto& names) {
        return std::find(names.begin(), names.end(), name) != names.end();
      };
      if (known(kFeatureNames) || known(kCoordNames) || (copies && known(kCopyNames)))
        arrays.emplace_back(name, file.read(name));
    }
    return arrays;
  }
  if (path.ends_with(".safetensors")) return read_safetensors(path).tensors;
  if (path.ends_with(".npy")) return {{"features", read_npy(path)}};
  return read_torch_tensors(path);
}

}  // namespace

TileFeatures read_tile_features(const std::string& path, bool copies) {
  const StateDict arrays = read_arrays(path, copies);
  TileFeatures out;
  out.features = choose(arrays, kFeatureNames, true);
  out.coords = choose(arrays, kCoordNames, false);
  SERPENTINE_CHECK(out.features.defined(), path, "holds no features (an array 'features' or ",
                   "'feats')");
  const bool none = out.features.numel() == 0 && out.features.dim() < 2;  // TRIDENT's empty slide
  if (none) out.features = out.features.view({0, 0});
  if (out.features.dim() == 3 && out.features.size(0) == 1) out.features = out.features.squeeze(0);
  SERPENTINE_CHECK(out.features.dim() == 2, path, "the features must be [tiles, channels], got ",
                   out.features.sizes());
  out.features = out.features.to(torch::kFloat).contiguous();
  if (copies && !none) {
    out.copies = choose(arrays, kCopyNames, false);
    SERPENTINE_CHECK(out.copies.defined(), path,
                     "holds no augmented copies; `embed-slides --augment` writes them to .h5 and "
                     ".safetensors");
    SERPENTINE_CHECK(out.copies.dim() == 3 && out.copies.sizes().slice(1) == out.features.sizes(),
                     path, "the augmented copies are ", out.copies.sizes(),
                     ", not [copies, tiles, features] of the tiles ", out.features.sizes());
    out.copies = out.copies.to(torch::kFloat).contiguous();
  }
  if (!out.coords.defined()) return out;
  if (out.coords.dim() == 3 && out.coords.size(0) == 1) out.coords = out.coords.squeeze(0);
  SERPENTINE_CHECK(out.coords.dim() == 2 && out.coords.size(1) >= 2 &&
                       out.coords.size(0) == out.features.size(0),
                   path, "there are ", out.features.size(0), " tiles, but coords ",
                   out.coords.sizes());
  out.coords = out.coords.narrow(1, 0, 2).to(torch::kFloat).contiguous();
  return out;
}

std::string find_tile_features(const std::string& folder, const std::string& slide) {
  namespace fs = std::filesystem;
  std::string stem = slide;
  for (const char* ending : {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn"}) {
    if (stem.ends_with(ending)) stem.resize(stem.size() - std::string(ending).size());
  }
  for (const char* inner : {"", "h5_files", "pt_files"}) {
    for (const char* tail : {"", "_features"}) {
      for (const char* kind : {".h5", ".pt", ".safetensors", ".npy"}) {
        const fs::path file = fs::path(folder) / inner / (stem + tail + kind);
        std::error_code error;
        if (fs::is_regular_file(file, error)) return file.string();
      }
    }
  }
  return "";
}

}  // namespace serpentine
