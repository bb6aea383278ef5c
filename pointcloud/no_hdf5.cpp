// Instead of hdf5.cpp where the program is built without HDF5.
#include "core/check.h"
#include "pointcloud/cloud_source.h"

namespace serpentine {

HdfClouds read_hdf5_clouds(const std::string& path) {
  SERPENTINE_CHECK(false, path, "this program is built without HDF5; install libhdf5-dev and ",
                   "configure with -DSERPENTINE_HDF5=ON, or convert the file to .npz");
}

}  // namespace serpentine
