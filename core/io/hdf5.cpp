#include "core/io/hdf5.h"

#include <algorithm>
#include <cstring>

#include <torch/torch.h>

#include "core/check.h"
#include "core/io/hdf5_handle.h"

namespace serpentine {
namespace {

constexpr uint64_t kMostBytes = uint64_t{1} << 40;  // of one array
constexpr int kMostAxes = 8;

// from HDF5 1.12 on the plain names mean a newer struct and a call with one argument more
#if H5_VERSION_GE(1, 12, 0)
using ObjectInfo = H5O_info1_t;
constexpr auto kVisit = H5Ovisit1;
#else
using ObjectInfo = H5O_info_t;
constexpr auto kVisit = H5Ovisit;
#endif

herr_t add_array(hid_t, const char* name, const ObjectInfo* info, void* names) {
  if (info->type == H5O_TYPE_DATASET)
    static_cast<std::vector<std::string>*>(names)->emplace_back(name);
  return 0;
}

herr_t add_name(hid_t, const char* name, const H5A_info_t*, void* names) {
  static_cast<std::vector<std::string>*>(names)->emplace_back(name);
  return 0;
}

/// The tensor's type that holds every value of the stored one.
torch::ScalarType type_of(hid_t stored, const std::string& who) {
  const H5T_class_t kind = H5Tget_class(stored);
  const size_t size = H5Tget_size(stored);
  if (kind == H5T_FLOAT) return size <= 4 ? torch::kFloat : torch::kDouble;
  SERPENTINE_CHECK(kind == H5T_INTEGER || kind == H5T_ENUM, who, "it is not of numbers");
  const Hdf5Handle base(H5Tget_super(stored), H5Tclose);
  const bool whole = H5Tget_sign(base.good() ? base.id() : stored) == H5T_SGN_NONE;
  if (size == 1) return whole ? torch::kByte : torch::kChar;
  if (size == 2) return whole ? torch::kInt : torch::kShort;
  if (size == 4) return whole ? torch::kLong : torch::kInt;
  return torch::kLong;
}

std::vector<int64_t> shape_of(hid_t space, const std::string& who) {
  const int axes = H5Sget_simple_extent_ndims(space);
  SERPENTINE_CHECK(axes >= 0 && axes <= kMostAxes, who, "it has ", axes, " axes");
  std::vector<hsize_t> extents(static_cast<size_t>(axes));
  H5Sget_simple_extent_dims(space, extents.data(), nullptr);
  uint64_t bytes = 8;
  for (const hsize_t extent : extents) {
    SERPENTINE_CHECK(extent == 0 || bytes <= kMostBytes / extent, who,
                     "it claims too many numbers");
    bytes *= std::max<hsize_t>(extent, 1);
  }
  return {extents.begin(), extents.end()};
}

std::string text_of(hid_t source, hid_t type, herr_t (*read)(hid_t, hid_t, void*)) {
  if (H5Tis_variable_str(type) > 0) {
    char* text = nullptr;
    if (read(source, type, static_cast<void*>(&text)) < 0 || text == nullptr) return "";
    std::string out = text;
    H5free_memory(text);
    return out;
  }
  std::string out(H5Tget_size(type), '\0');
  if (read(source, type, out.data()) < 0) return "";
  return out.substr(0, out.find('\0'));
}

template <class Number>
bool read_numbers(hid_t attribute, hid_t type, int64_t count, bool scalar, Hdf5Value& value) {
  std::vector<Number> numbers(static_cast<size_t>(count));
  if (H5Aread(attribute, type, numbers.data()) < 0) return false;
  if (scalar || count == 1) {
    value = numbers.at(0);
  } else {
    value = std::move(numbers);
  }
  return true;
}

}  // namespace

std::unique_lock<std::mutex> hdf5_lock() {
  static std::mutex mutex;
  std::unique_lock<std::mutex> lock(mutex);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // errors are told by us
  return lock;
}

hid_t hdf5_type(c10::ScalarType type, bool& made) {
  made = false;
  switch (type) {
    case torch::kFloat:
      return H5T_NATIVE_FLOAT;
    case torch::kDouble:
      return H5T_NATIVE_DOUBLE;
    case torch::kByte:
      return H5T_NATIVE_UINT8;
    case torch::kChar:
      return H5T_NATIVE_INT8;
    case torch::kShort:
      return H5T_NATIVE_INT16;
    case torch::kInt:
      return H5T_NATIVE_INT32;
    case torch::kLong:
      return H5T_NATIVE_INT64;
    case torch::kHalf:
      break;
    default:
      return -1;
  }
  // IEEE half: sign at bit 15, five bits of exponent, ten of mantissa
  const hid_t half = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(half, 15, 10, 5, 0, 10);
  H5Tset_size(half, 2);
  H5Tset_ebias(half, 15);
  made = true;
  return half;
}

bool hdf5_available() { return true; }

struct Hdf5Reader::File {
  std::string path;
  hid_t id = -1;

  std::string who(const std::string& name) const { return path + ": the array '" + name + "'"; }

  torch::Tensor read(const std::string& name, int64_t first, int64_t count,
                     std::optional<torch::ScalarType> wanted) const {
    const Hdf5Handle set(H5Dopen2(id, name.c_str(), H5P_DEFAULT), H5Dclose);
    SERPENTINE_CHECK(set.good(), path, "the file has no array '", name, "'");
    const Hdf5Handle space(H5Dget_space(set.id()), H5Sclose);
    const Hdf5Handle stored(H5Dget_type(set.id()), H5Tclose);
    std::vector<int64_t> shape = shape_of(space.id(), who(name));
    // HDF5 does not convert what h5py stores for booleans; its bytes are numbers already
    const bool boolean = H5Tget_class(stored.id()) == H5T_ENUM;
    const torch::ScalarType own = type_of(stored.id(), who(name));
    const torch::ScalarType type = wanted && !boolean ? *wanted : own;
    Hdf5Handle memory(H5Scopy(space.id()), H5Sclose);
    if (count >= 0) {
      SERPENTINE_CHECK(!shape.empty() && first >= 0 && first + count <= shape[0], who(name),
                       "rows ", first, " to ", first + count, " are asked for, there are ",
                       shape.empty() ? 0 : shape[0]);
      shape[0] = count;
      std::vector<hsize_t> begin(shape.size(), 0), extent(shape.begin(), shape.end());
      begin[0] = static_cast<hsize_t>(first);
      H5Sset_extent_simple(memory.id(), static_cast<int>(shape.size()), extent.data(), nullptr);
      H5Sselect_hyperslab(space.id(), H5S_SELECT_SET, begin.data(), nullptr, extent.data(),
                          nullptr);
    }
    torch::Tensor values = torch::empty(shape, type);
    if (values.numel() == 0) return values;
    bool made = false;
    const hid_t native = boolean ? stored.id() : hdf5_type(type, made);
    const herr_t done =
        H5Dread(set.id(), native, memory.id(), space.id(), H5P_DEFAULT, values.mutable_data_ptr());
    if (made) H5Tclose(native);
    SERPENTINE_CHECK(done >= 0, who(name), "it cannot be read: it is damaged or cut short");
    return wanted ? values.to(*wanted) : values;
  }
};

Hdf5Reader::Hdf5Reader(const std::string& path) : file_(std::make_unique<File>()) {
  const auto lock = hdf5_lock();
  file_->path = path;
  file_->id = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  SERPENTINE_CHECK(file_->id >= 0, path, "is no HDF5 file, or cannot be opened");
}

Hdf5Reader::~Hdf5Reader() {
  const auto lock = hdf5_lock();
  if (file_ && file_->id >= 0) H5Fclose(file_->id);
}

bool Hdf5Reader::has(const std::string& name) const {
  const auto all = arrays();
  return std::find(all.begin(), all.end(), name) != all.end();
}

std::vector<std::string> Hdf5Reader::arrays() const {
  const auto lock = hdf5_lock();
  std::vector<std::string> names;
  kVisit(file_->id, H5_INDEX_NAME, H5_ITER_INC, add_array, &names);
  return names;
}

std::vector<int64_t> Hdf5Reader::shape(const std::string& name) const {
  const auto lock = hdf5_lock();
  const Hdf5Handle set(H5Dopen2(file_->id, name.c_str(), H5P_DEFAULT), H5Dclose);
  SERPENTINE_CHECK(set.good(), file_->path, "the file has no array '", name, "'");
  const Hdf5Handle space(H5Dget_space(set.id()), H5Sclose);
  return shape_of(space.id(), file_->who(name));
}

torch::Tensor Hdf5Reader::read(const std::string& name) const {
  const auto lock = hdf5_lock();
  return file_->read(name, 0, -1, std::nullopt);
}

torch::Tensor Hdf5Reader::rows(const std::string& name, int64_t first, int64_t count) const {
  const auto lock = hdf5_lock();
  SERPENTINE_CHECK(count >= 0, file_->who(name), "the count of rows is negative");
  return file_->read(name, first, count, std::nullopt);
}

torch::Tensor Hdf5Reader::read_as(const std::string& name, torch::ScalarType type) const {
  const auto lock = hdf5_lock();
  return file_->read(name, 0, -1, type);
}

std::vector<std::string> Hdf5Reader::read_texts(const std::string& name) const {
  const auto lock = hdf5_lock();
  const Hdf5Handle set(H5Dopen2(file_->id, name.c_str(), H5P_DEFAULT), H5Dclose);
  SERPENTINE_CHECK(set.good(), file_->path, "the file has no array '", name, "'");
  const Hdf5Handle space(H5Dget_space(set.id()), H5Sclose), type(H5Dget_type(set.id()), H5Tclose);
  SERPENTINE_CHECK(H5Tget_class(type.id()) == H5T_STRING, file_->who(name), "it is not of texts");
  int64_t count = 1;
  for (const int64_t extent : shape_of(space.id(), file_->who(name))) count *= extent;
  std::vector<std::string> texts;
  if (H5Tis_variable_str(type.id()) > 0) {
    std::vector<char*> raw(static_cast<size_t>(count));
    const herr_t done =
        H5Dread(set.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, static_cast<void*>(raw.data()));
    SERPENTINE_CHECK(done >= 0, file_->who(name), "it cannot be read");
    for (const char* text : raw) texts.emplace_back(text == nullptr ? "" : text);
    H5Dvlen_reclaim(type.id(), space.id(), H5P_DEFAULT, static_cast<void*>(raw.data()));
    return texts;
  }
  const size_t width = H5Tget_size(type.id());
  std::string raw(width * static_cast<size_t>(count), '\0');
  const herr_t done = H5Dread(set.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, raw.data());
  SERPENTINE_CHECK(done >= 0, file_->who(name), "it cannot be read");
  for (size_t at = 0; at < raw.size(); at += width) {
    const std::string text = raw.substr(at, width);
    texts.push_back(text.substr(0, text.find('\0')));
  }
  return texts;
}

Hdf5Attributes Hdf5Reader::attributes(const std::string& name) const {
  const auto lock = hdf5_lock();
  const std::string place = name.empty() ? "/" : name;
  const Hdf5Handle object(H5Oopen(file_->id, place.c_str(), H5P_DEFAULT), H5Oclose);
  SERPENTINE_CHECK(object.good(), file_->path, "the file has no array '", name, "'");
  std::vector<std::string> names;
  H5Aiterate2(object.id(), H5_INDEX_NAME, H5_ITER_INC, nullptr, add_name, &names);
  Hdf5Attributes found;
  for (const auto& key : names) {
    const Hdf5Handle attribute(H5Aopen(object.id(), key.c_str(), H5P_DEFAULT), H5Aclose);
    const Hdf5Handle type(H5Aget_type(attribute.id()), H5Tclose);
    const Hdf5Handle space(H5Aget_space(attribute.id()), H5Sclose);
    const int64_t count = H5Sget_simple_extent_npoints(space.id());
    const bool scalar = H5Sget_simple_extent_type(space.id()) == H5S_SCALAR;
    const H5T_class_t kind = H5Tget_class(type.id());
    if (count < 1 || count > 4096) continue;
    Hdf5Value value;
    bool kept = false;
    if (kind == H5T_STRING && count == 1) {
      value = text_of(attribute.id(), type.id(), H5Aread);
      kept = true;
    } else if (kind == H5T_INTEGER) {
      kept = read_numbers<int64_t>(attribute.id(), H5T_NATIVE_INT64, count, scalar, value);
    } else if (kind == H5T_FLOAT) {
      kept = read_numbers<double>(attribute.id(), H5T_NATIVE_DOUBLE, count, scalar, value);
    }
    if (kept) found[key] = std::move(value);
  }
  return found;
}

}  // namespace serpentine
