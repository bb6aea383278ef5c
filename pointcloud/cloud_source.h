// The data section of a run over whole clouds: where they are, their classes and parts.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/data/source.h"
#include "pointcloud/cloud.h"

namespace serpentine {

struct CloudSourceOptions {
  std::string path;
  int64_t points = 1024;
  std::string sampling = "random", normalize = "sphere";
  std::vector<std::string> features;
  double validation = 0.1;
  int64_t folds = 5, fold = 0, seed = 0, limit = 0;
  void fields(Fields& f);
};

/// One labelled cloud as it was found.
struct LabelledCloud {
  PointCloud cloud;
  std::string name;      // file or id, for errors
  std::string category;  // its class
  std::string split;     // "train", "test" or "" when the data do not say
};

/// Calls `use` with every cloud under `path`: an index of packed clouds (NAME.index.csv beside
/// NAME.i16), an HDF5 file or a text file that lists some (ModelNet40 and ScanObjectNN's layout:
/// arrays `data` and `label`), or a folder with one folder a class, in it files or folders `train`
/// and `test`. Meshes get `surface` points. Clouds come in a fixed sequence.
void each_labelled_cloud(const std::string& path, int64_t surface, int64_t seed,
                         const std::function<void(LabelledCloud)>& use);

/// Clouds [M, N, 3] float64 and labels [M] of an HDF5 file. Throws where the program was built
/// without HDF5, with the option that builds it.
struct HdfClouds {
  at::Tensor points, labels;
};
HdfClouds read_hdf5_clouds(const std::string& path);

/// The centre to zero and the farthest point to distance 1; equal points stay at zero. points:
/// [N, 3] of any float type -> float32.
at::Tensor in_unit_sphere(const at::Tensor& points);

/// `count` rows out of `size`: all of them, in their sequence, again from the first where there are
/// too few; a random choice (by `seed`) where there are more. int64 [count].
at::Tensor choose_rows(int64_t size, int64_t count, int64_t seed);

}  // namespace serpentine
