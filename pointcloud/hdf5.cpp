// Clouds in HDF5 files, in the layout of ModelNet40 and ScanObjectNN: `data` [M, N, 3 or more] and
// `label` [M] or [M, 1].
#include <array>
#include <vector>

#include <ATen/ATen.h>
#include <hdf5.h>

#include "core/check.h"
#include "pointcloud/cloud_source.h"

namespace serpentine {
namespace {

constexpr hsize_t kMostNumbers = hsize_t{1} << 34;  // of one array

// an HDF5 handle that closes itself
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  hid_t id() const { return id_; }
  bool good() const { return id_ >= 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

at::Tensor read_array(const Handle& file, const std::string& path, const char* name, hid_t type,
                      at::ScalarType as) {
  const Handle set(H5Dopen2(file.id(), name, H5P_DEFAULT), H5Dclose);
  SERPENTINE_CHECK(set.good(), path, "the file has no array '", name, "'");
  const Handle space(H5Dget_space(set.id()), H5Sclose);
  const int dims = H5Sget_simple_extent_ndims(space.id());
  SERPENTINE_CHECK(dims >= 1 && dims <= 4, path, "the array '", name, "' has ", dims, " axes");
  std::array<hsize_t, 4> extents{};
  H5Sget_simple_extent_dims(space.id(), extents.data(), nullptr);
  std::vector<int64_t> shape;
  hsize_t numbers = 1;
  for (int axis = 0; axis < dims; ++axis) {
    const bool fits = extents[axis] == 0 || numbers <= kMostNumbers / extents[axis];
    SERPENTINE_CHECK(fits, path, "the array '", name, "' claims too many numbers");
    numbers *= extents[axis];
    shape.push_back(static_cast<int64_t>(extents[axis]));
  }
  at::Tensor values = at::empty(shape, at::TensorOptions(as));
  const herr_t read =
      H5Dread(set.id(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.mutable_data_ptr());
  SERPENTINE_CHECK(read >= 0, path, "the array '", name, "' cannot be read: it is damaged, cut ",
                   "short, or not of numbers");
  return values;
}

}  // namespace

HdfClouds read_hdf5_clouds(const std::string& path) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // errors are told here, not printed
  const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  SERPENTINE_CHECK(file.good(), path, "is no HDF5 file, or cannot be opened");
  HdfClouds out;
  out.points = read_array(file, path, "data", H5T_NATIVE_FLOAT, at::kFloat);
  SERPENTINE_CHECK(out.points.dim() == 3 && out.points.size(2) >= 3, path,
                   "the array 'data' must be [clouds, points, 3], got ", out.points.sizes());
  out.points = out.points.slice(2, 0, 3).contiguous();
  out.labels = read_array(file, path, "label", H5T_NATIVE_INT64, at::kLong).flatten();
  SERPENTINE_CHECK(out.labels.size(0) == out.points.size(0), path, "there are ", out.points.size(0),
                   " clouds, but ", out.labels.size(0), " labels");
  return out;
}

}  // namespace serpentine
