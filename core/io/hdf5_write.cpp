#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <torch/torch.h>
#include <unistd.h>

#include "core/check.h"
#include "core/io/hdf5.h"
#include "core/io/hdf5_handle.h"

namespace serpentine {
namespace {

constexpr int64_t kMostChunkBytes = int64_t{4} << 20;

/// A library's type for the elements; says which array cannot be written otherwise.
Hdf5Handle element_type(const torch::Tensor& values, const std::string& who) {
  bool made = false;
  const hid_t type = hdf5_type(values.scalar_type(), made);
  SERPENTINE_CHECK(type >= 0, who, "HDF5 has no type for ", c10::toString(values.scalar_type()));
  return {made ? type : H5Tcopy(type), H5Tclose};
}

Hdf5Handle text_type() {
  Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.id(), H5T_VARIABLE);
  H5Tset_cset(type.id(), H5T_CSET_UTF8);
  return {H5Tcopy(type.id()), H5Tclose};
}

std::vector<hsize_t> extents(const torch::Tensor& values) {
  return {values.sizes().begin(), values.sizes().end()};
}

/// Lets "group/array" make its group.
Hdf5Handle with_groups() {
  Hdf5Handle list(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(list.id(), 1);
  return {H5Pcopy(list.id()), H5Pclose};
}

bool write_attribute(hid_t object, const std::string& key, hid_t type, hid_t space,
                     const void* data) {
  if (H5Aexists(object, key.c_str()) > 0) H5Adelete(object, key.c_str());
  const Hdf5Handle made(H5Acreate2(object, key.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT),
                        H5Aclose);
  return made.good() && H5Awrite(made.id(), type, data) >= 0;
}

bool write_value(hid_t object, const std::string& key, const Hdf5Value& value) {
  const Hdf5Handle one(H5Screate(H5S_SCALAR), H5Sclose);
  const auto list = [](size_t count) {
    const hsize_t extent = count;
    return H5Screate_simple(1, &extent, nullptr);
  };
  if (const auto* number = std::get_if<int64_t>(&value))
    return write_attribute(object, key, H5T_NATIVE_INT64, one.id(), number);
  if (const auto* number = std::get_if<double>(&value))
    return write_attribute(object, key, H5T_NATIVE_DOUBLE, one.id(), number);
  if (const auto* text = std::get_if<std::string>(&value)) {
    const Hdf5Handle type = text_type();
    const char* raw = text->c_str();
    return write_attribute(object, key, type.id(), one.id(), static_cast<const void*>(&raw));
  }
  if (const auto* numbers = std::get_if<std::vector<int64_t>>(&value)) {
    const Hdf5Handle space(list(numbers->size()), H5Sclose);
    return write_attribute(object, key, H5T_NATIVE_INT64, space.id(), numbers->data());
  }
  const auto& numbers = std::get<std::vector<double>>(value);
  const Hdf5Handle space(list(numbers.size()), H5Sclose);
  return write_attribute(object, key, H5T_NATIVE_DOUBLE, space.id(), numbers.data());
}

}  // namespace

struct Hdf5Writer::File {
  std::string path, temporary;
  hid_t id = -1;

  std::string who(const std::string& name) const { return path + ": the array '" + name + "'"; }
};

Hdf5Writer::Hdf5Writer(const std::string& path) : file_(std::make_unique<File>()) {
  const auto lock = hdf5_lock();
  file_->path = path;
  file_->temporary = path + ".tmp-" + std::to_string(::getpid());
  file_->id = H5Fcreate(file_->temporary.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  SERPENTINE_CHECK(file_->id >= 0, path,
                   "cannot be written: is its folder there, and may it be written to?");
}

Hdf5Writer::~Hdf5Writer() {
  if (!file_ || file_->id < 0) return;
  const auto lock = hdf5_lock();
  H5Fclose(file_->id);
  ::unlink(file_->temporary.c_str());
}

void Hdf5Writer::write(const std::string& name, const torch::Tensor& values) {
  const auto lock = hdf5_lock();
  const torch::Tensor flat = values.detach().to(torch::kCPU).contiguous();
  const Hdf5Handle type = element_type(flat, file_->who(name)), groups = with_groups();
  const auto shape = extents(flat);
  const Hdf5Handle space(
      shape.empty() ? H5Screate(H5S_SCALAR)
                    : H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr),
      H5Sclose);
  const Hdf5Handle set(H5Dcreate2(file_->id, name.c_str(), type.id(), space.id(), groups.id(),
                                  H5P_DEFAULT, H5P_DEFAULT),
                       H5Dclose);
  SERPENTINE_CHECK(set.good(), file_->who(name), "it cannot be made: is it there already?");
  if (flat.numel() == 0) return;
  const herr_t done =
      H5Dwrite(set.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, flat.const_data_ptr());
  SERPENTINE_CHECK(done >= 0, file_->who(name), "it cannot be written: is the disk full?");
}

void Hdf5Writer::append(const std::string& name, const torch::Tensor& rows, int64_t chunk) {
  const auto lock = hdf5_lock();
  const torch::Tensor flat = rows.detach().to(torch::kCPU).contiguous();
  SERPENTINE_CHECK(flat.dim() >= 1, file_->who(name), "rows have no first axis");
  const Hdf5Handle type = element_type(flat, file_->who(name));
  const auto shape = extents(flat);
  const int axes = static_cast<int>(shape.size());
  hid_t opened = H5Lexists(file_->id, name.c_str(), H5P_DEFAULT) > 0
                     ? H5Dopen2(file_->id, name.c_str(), H5P_DEFAULT)
                     : -1;
  if (opened < 0) {
    std::vector<hsize_t> none = shape, most = shape, part = shape;
    none[0] = 0;
    most[0] = H5S_UNLIMITED;
    int64_t row_bytes = static_cast<int64_t>(flat.element_size());
    for (int axis = 1; axis < axes; ++axis) {
      part[static_cast<size_t>(axis)] = std::max<hsize_t>(part[static_cast<size_t>(axis)], 1);
      row_bytes *= static_cast<int64_t>(part[static_cast<size_t>(axis)]);
    }
    part[0] = static_cast<hsize_t>(std::clamp<int64_t>(
        kMostChunkBytes / std::max<int64_t>(row_bytes, 1), 1, std::max<int64_t>(chunk, 1)));
    const Hdf5Handle space(H5Screate_simple(axes, none.data(), most.data()), H5Sclose);
    const Hdf5Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose), groups = with_groups();
    H5Pset_chunk(layout.id(), axes, part.data());
    opened = H5Dcreate2(file_->id, name.c_str(), type.id(), space.id(), groups.id(), layout.id(),
                        H5P_DEFAULT);
  }
  const Hdf5Handle set(opened, H5Dclose);
  SERPENTINE_CHECK(set.good(), file_->who(name), "it cannot be made");
  if (flat.numel() == 0) return;

  const Hdf5Handle before(H5Dget_space(set.id()), H5Sclose);
  SERPENTINE_CHECK(H5Sget_simple_extent_ndims(before.id()) == axes, file_->who(name),
                   "rows of another number of axes cannot be added");
  std::vector<hsize_t> grown(shape.size());
  H5Sget_simple_extent_dims(before.id(), grown.data(), nullptr);
  for (size_t axis = 1; axis < shape.size(); ++axis) {
    SERPENTINE_CHECK(grown[axis] == shape[axis], file_->who(name), "its rows are ", grown[axis],
                     " wide, those to add ", shape[axis]);
  }
  std::vector<hsize_t> begin(shape.size(), 0);
  begin[0] = grown[0];
  grown[0] += shape[0];
  herr_t done = H5Dset_extent(set.id(), grown.data());
  const Hdf5Handle after(H5Dget_space(set.id()), H5Sclose);
  const Hdf5Handle memory(H5Screate_simple(axes, shape.data(), nullptr), H5Sclose);
  H5Sselect_hyperslab(after.id(), H5S_SELECT_SET, begin.data(), nullptr, shape.data(), nullptr);
  if (done >= 0)
    done =
        H5Dwrite(set.id(), type.id(), memory.id(), after.id(), H5P_DEFAULT, flat.const_data_ptr());
  SERPENTINE_CHECK(done >= 0, file_->who(name), "rows cannot be added: is the disk full?");
}

void Hdf5Writer::write_texts(const std::string& name, const std::vector<std::string>& texts) {
  const auto lock = hdf5_lock();
  const Hdf5Handle type = text_type(), groups = with_groups();
  const hsize_t count = texts.size();
  const Hdf5Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
  const Hdf5Handle set(H5Dcreate2(file_->id, name.c_str(), type.id(), space.id(), groups.id(),
                                  H5P_DEFAULT, H5P_DEFAULT),
                       H5Dclose);
  SERPENTINE_CHECK(set.good(), file_->who(name), "it cannot be made: is it there already?");
  std::vector<const char*> raw;
  for (const auto& text : texts) raw.push_back(text.c_str());
  if (raw.empty()) return;
  const herr_t done = H5Dwrite(set.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                               static_cast<const void*>(raw.data()));
  SERPENTINE_CHECK(done >= 0, file_->who(name), "it cannot be written: is the disk full?");
}

void Hdf5Writer::set_attributes(const std::string& name, const Hdf5Attributes& attributes) {
  const auto lock = hdf5_lock();
  const std::string place = name.empty() ? "/" : name;
  const Hdf5Handle object(H5Oopen(file_->id, place.c_str(), H5P_DEFAULT), H5Oclose);
  SERPENTINE_CHECK(object.good(), file_->path, "the file has no array '", name, "'");
  for (const auto& [key, value] : attributes) {
    SERPENTINE_CHECK(write_value(object.id(), key, value), file_->path, "the attribute '", key,
                     "' cannot be written");
  }
}

void Hdf5Writer::finish() {
  const auto lock = hdf5_lock();
  const herr_t closed = H5Fclose(file_->id);
  file_->id = -1;
  const int disk = closed < 0 ? -1 : ::open(file_->temporary.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = disk >= 0 && (::fsync(disk) == 0 || errno == EINVAL);
  if (disk >= 0) ::close(disk);
  if (!synced || ::rename(file_->temporary.c_str(), file_->path.c_str()) != 0) {
    const std::string reason = closed < 0 ? "the disk is full or gone" : std::strerror(errno);
    ::unlink(file_->temporary.c_str());
    TORCH_CHECK(false, file_->path, " cannot be written: ", reason);
  }
}

}  // namespace serpentine
