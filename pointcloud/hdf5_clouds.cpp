// Clouds in HDF5 files, in the layout of ModelNet40 and ScanObjectNN: `data` [M, N, 3 or more] and
// `label` [M] or [M, 1].
#include <ATen/ATen.h>

#include "core/check.h"
#include "core/io/hdf5.h"
#include "pointcloud/cloud_source.h"

namespace serpentine {

HdfClouds read_hdf5_clouds(const std::string& path) {
  const Hdf5Reader file(path);
  HdfClouds out;
  out.points = file.read("data");
  SERPENTINE_CHECK(out.points.dim() == 3 && out.points.size(2) >= 3, path,
                   "the array 'data' must be [clouds, points, 3], got ", out.points.sizes());
  out.points = out.points.slice(2, 0, 3).to(at::kDouble).contiguous();
  out.labels = file.read_as("label", at::kLong).flatten();
  SERPENTINE_CHECK(out.labels.size(0) == out.points.size(0), path, "there are ", out.points.size(0),
                   " clouds, but ", out.labels.size(0), " labels");
  return out;
}

}  // namespace serpentine
