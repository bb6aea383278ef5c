#include "core/io/npy.h"

#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "core/io/atomic_file.h"
#include "core/io/bytes.h"
#include "core/io/zip_reader.h"

namespace serpentine {
namespace {

struct Type {
  const char* descr;
  size_t size;
  torch::ScalarType read;  // torch's type of the same bytes
  torch::ScalarType kept;
};

constexpr std::array<Type, 11> kNpyTypes = {{
    {"<f8", 8, torch::kFloat64, torch::kFloat64},
    {"<f4", 4, torch::kFloat32, torch::kFloat32},
    {"<f2", 2, torch::kFloat16, torch::kFloat16},
    {"<i8", 8, torch::kInt64, torch::kInt64},
    {"<i4", 4, torch::kInt32, torch::kInt32},
    {"<i2", 2, torch::kInt16, torch::kInt16},
    {"|i1", 1, torch::kInt8, torch::kInt8},
    {"|u1", 1, torch::kUInt8, torch::kUInt8},
    {"<u2", 2, torch::kUInt16, torch::kInt32},
    {"<u4", 4, torch::kUInt32, torch::kInt64},
    {"|b1", 1, torch::kUInt8, torch::kBool},
}};

struct Header {
  Type type = {};
  bool fortran = false;
  std::vector<int64_t> shape;
};

/// The text after `'key':` in the header, a Python dictionary without nesting but the shape.
std::string_view value_of(std::string_view header, const std::string& key, const std::string& who) {
  const size_t at = header.find("'" + key + "':");
  TORCH_CHECK(at != std::string_view::npos, who, ": the npy header has no ", key);
  std::string_view value = header.substr(at + key.size() + 3);
  while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
  return value;
}

std::vector<int64_t> parse_shape(std::string_view text, const std::string& who) {
  const size_t end = text.find(')');
  TORCH_CHECK(!text.empty() && text.front() == '(' && end != std::string_view::npos, who,
              ": the npy shape is not a tuple");
  std::vector<int64_t> shape;
  text = text.substr(1, end - 1);
  while (!text.empty()) {
    if (text.front() == ' ' || text.front() == ',') {
      text.remove_prefix(1);
      continue;
    }
    int64_t extent = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), extent);
    TORCH_CHECK(error == std::errc() && extent >= 0 && shape.size() < 64, who,
                ": the npy shape holds what is no extent");
    text.remove_prefix(static_cast<size_t>(stop - text.data()));
    shape.push_back(extent);
  }
  return shape;
}

Header parse_header(std::string_view text, const std::string& who) {
  Header header;
  const std::string_view descr = value_of(text, "descr", who);
  const size_t end = descr.empty() ? std::string_view::npos : descr.find('\'', 1);
  TORCH_CHECK(end != std::string_view::npos && descr.front() == '\'', who,
              ": has fields of several types, which is not supported");
  const std::string name(descr.substr(1, end - 1));
  const auto* type = std::find_if(kNpyTypes.begin(), kNpyTypes.end(),
                                  [&](const Type& known) { return name == known.descr; });
  TORCH_CHECK(type != kNpyTypes.end(), who, ": the type '", name.substr(0, 40),
              name.find('O') == std::string::npos ? "' is not supported"
                                                  : "' (Python objects) is not supported");
  header.type = *type;
  header.fortran = value_of(text, "fortran_order", who).rfind("True", 0) == 0;
  header.shape = parse_shape(value_of(text, "shape", who), who);
  return header;
}

}  // namespace

torch::Tensor parse_npy(std::string_view bytes, const std::string& who) {
  TORCH_CHECK(bytes.size() >= 10 && bytes.substr(0, 6) == "\x93NUMPY", who, ": is not an npy file");
  const int version = bytes[6];
  TORCH_CHECK(version >= 1 && version <= 3, who, ": npy version ", version, " is not supported");
  const size_t start = version == 1 ? 10 : 12;
  TORCH_CHECK(bytes.size() >= start, who, ": the npy header is cut off");
  const size_t length = version == 1 ? load_little<uint16_t>(bytes.data() + 8)
                                     : load_little<uint32_t>(bytes.data() + 8);
  TORCH_CHECK(length <= bytes.size() - start, who, ": the npy header is cut off");
  const Header header = parse_header(bytes.substr(start, length), who);
  const std::string_view data = bytes.substr(start + length);

  std::vector<int64_t> extents = header.shape;
  if (header.fortran) std::reverse(extents.begin(), extents.end());
  int64_t size = 0;
  TORCH_CHECK(checked_bytes(extents, header.type.size, size), who, ": the npy shape is too large");
  TORCH_CHECK(static_cast<uint64_t>(size) == data.size(), who, ": the npy shape ",
              at::IntArrayRef(header.shape), " needs ", size, " bytes, but ", data.size(),
              " follow");
  torch::Tensor array = torch::empty(extents, header.type.read);
  if (size > 0) std::memcpy(array.data_ptr(), data.data(), data.size());
  if (header.type.kept == torch::kBool)
    array = array.ne(0);
  else
    array = array.to(header.type.kept);
  if (!header.fortran) return array;
  std::vector<int64_t> axes(extents.size());
  for (size_t i = 0; i < axes.size(); ++i) axes[i] = static_cast<int64_t>(axes.size() - 1 - i);
  return array.permute(axes).contiguous();
}

void write_npy(const std::string& path, const torch::Tensor& array) {
  const torch::Tensor values = array.to(torch::kCPU).contiguous();
  const auto* type = std::find_if(kNpyTypes.begin(), kNpyTypes.end(), [&](const Type& known) {
    return known.kept == values.scalar_type() &&
           known.read == (known.kept == torch::kBool ? torch::kUInt8 : known.kept);
  });
  TORCH_CHECK(type != kNpyTypes.end(), path, ": arrays of ", values.scalar_type(),
              " cannot be written as npy");
  std::string shape;
  for (const int64_t extent : values.sizes()) shape += std::to_string(extent) + ", ";
  if (values.dim() > 1) shape.resize(shape.size() - 2);
  std::string header = std::string("{'descr': '") + type->descr +
                       "', 'fortran_order': False, 'shape': (" + shape + "), }";
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 11,
                ' ');  // data begin at a multiple of 64
  header += '\n';
  std::string start = "\x93NUMPY";
  start += std::string("\x01\x00", 2);
  append_little(start, static_cast<uint16_t>(header.size()));
  AtomicFile file(path);
  file.write(start + header);
  if (values.numel() > 0)
    file.write(values.const_data_ptr(),
               static_cast<size_t>(values.numel()) * values.element_size());
  file.commit();
}

torch::Tensor read_npy(const std::string& path) {
  const InputFile file(path);
  return parse_npy(file.read_all(), path);
}

StateDict read_npz(const std::string& path) {
  const ZipReader zip(path);
  StateDict arrays;
  for (const auto& name : zip.names()) {
    const std::string suffix = ".npy";
    const bool npy = name.size() > suffix.size() &&
                     name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0;
    if (!npy) continue;
    arrays.emplace_back(name.substr(0, name.size() - suffix.size()),
                        parse_npy(zip.read(name), path + ": '" + name + "'"));
  }
  TORCH_CHECK(!arrays.empty(), path, ": holds no NumPy arrays");
  return arrays;
}

}  // namespace serpentine
