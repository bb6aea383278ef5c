// PLY: text and binary, either byte order. Turk, "The PLY Polygon File Format" (1994).
#include <algorithm>
#include <array>
#include <limits>

#include <ATen/ATen.h>

#include "core/check.h"
#include "pointcloud/cloud.h"
#include "pointcloud/cloud_text.h"

namespace serpentine {
namespace {

struct Name {
  const char* name;
  NumberType type;
};
constexpr std::array<Name, 16> kTypes = {{{"char", NumberType::kI8},
                                          {"uchar", NumberType::kU8},
                                          {"short", NumberType::kI16},
                                          {"ushort", NumberType::kU16},
                                          {"int", NumberType::kI32},
                                          {"uint", NumberType::kU32},
                                          {"float", NumberType::kF32},
                                          {"double", NumberType::kF64},
                                          {"int8", NumberType::kI8},
                                          {"uint8", NumberType::kU8},
                                          {"int16", NumberType::kI16},
                                          {"uint16", NumberType::kU16},
                                          {"int32", NumberType::kI32},
                                          {"uint32", NumberType::kU32},
                                          {"float32", NumberType::kF32},
                                          {"float64", NumberType::kF64}}};

struct Property {
  std::string name;
  NumberType type = NumberType::kF32;
  bool list = false;
  NumberType length = NumberType::kU8;  // of a list
};

struct Element {
  std::string name;
  int64_t count = 0;
  std::vector<Property> properties;

  bool has_list() const {
    return std::any_of(properties.begin(), properties.end(), [](const auto& p) { return p.list; });
  }
  size_t row_bytes() const {
    size_t bytes = 0;
    for (const auto& property : properties) bytes += bytes_of(property.type);
    return bytes;
  }
};

struct PlyHeader {
  bool ascii = false, swap = false;
  std::vector<Element> elements;
};

NumberType type_of(std::string_view name, const TextScanner& text) {
  for (const auto& known : kTypes) {
    if (name == known.name) return known.type;
  }
  text.fail("there is no PLY type '" + std::string(name) + "'");
}

void add_property(const std::vector<std::string_view>& words, PlyHeader& header,
                  const TextScanner& text) {
  if (header.elements.empty()) text.fail("a property comes before the first element");
  Property property;
  if (words.size() == 3) {
    property.type = type_of(words[1], text);
  } else if (words.size() == 5 && words[1] == "list") {
    property.list = true;
    property.length = type_of(words[2], text);
    property.type = type_of(words[3], text);
  } else {
    text.fail("a property is 'property TYPE NAME' or 'property list TYPE TYPE NAME'");
  }
  property.name = std::string(words.back());
  header.elements.back().properties.push_back(std::move(property));
}

PlyHeader read_ply_header(TextScanner& text) {
  std::string_view line;
  if (!text.line(line) || line != "ply") text.fail("a PLY file begins with the line 'ply'");
  PlyHeader header;
  bool format = false;
  while (text.line(line)) {
    const auto words = words_of(line);
    if (words.empty() || words[0] == "comment" || words[0] == "obj_info") continue;
    if (words[0] == "end_header") {
      if (!format) text.fail("the header has no line 'format'");
      return header;
    }
    if (words[0] == "format" && words.size() >= 2) {
      format = true;
      header.ascii = words[1] == "ascii";
      header.swap = words[1] == "binary_big_endian";
      if (!header.ascii && !header.swap && words[1] != "binary_little_endian")
        text.fail("the format is ascii, binary_little_endian or binary_big_endian");
    } else if (words[0] == "element" && words.size() == 3) {
      Element element;
      element.name = std::string(words[1]);
      if (!parse_number(words[2], element.count) || element.count < 0)
        text.fail("the number of a PLY element must be a whole number from 0 on");
      header.elements.push_back(std::move(element));
    } else if (words[0] == "property") {
      add_property(words, header, text);
    } else {
      text.fail("a PLY header has no line '" + std::string(words[0].substr(0, 40)) + "'");
    }
  }
  text.fail("the header has no line 'end_header'");
}

// one value at a time, in text or bytes
class Body {
 public:
  Body(const PlyHeader& header, std::string_view bytes, TextScanner& text, std::string who)
      : header_(header), bytes_(bytes), text_(text), who_(std::move(who)), at_(text.byte()) {}

  double number(NumberType type, const char* what) {
    if (header_.ascii) return text_.number(what);
    const size_t size = bytes_of(type);
    need(size, what);
    at_ += size;
    return read_number(bytes_.data() + at_ - size, type, header_.swap);
  }

  // a list's numbers; each needs at least one byte, so a small file claims no huge list
  std::vector<double> list(const Property& property) {
    const double length = number(property.length, "the length of a list");
    const auto left = static_cast<double>(bytes_.size() - (header_.ascii ? text_.byte() : at_));
    SERPENTINE_CHECK(length >= 0 && length <= left, place(), "a list of ", length,
                     " numbers does not fit into the file");
    std::vector<double> values(static_cast<size_t>(length));
    for (auto& value : values) value = number(property.type, "a list's number");
    return values;
  }

  /// The bytes of `count` rows, which are then behind.
  const char* rows(int64_t count, size_t row, const char* what) {
    const auto all = static_cast<size_t>(count);
    SERPENTINE_CHECK(row == 0 || all <= (bytes_.size() - at_) / row, place(), all, " ", what,
                     " of ", row, " bytes were expected, but the file ends at byte ",
                     bytes_.size());
    at_ += all * row;
    return bytes_.data() + at_ - all * row;
  }

  std::string place() const {
    return header_.ascii ? who_ + ":" + std::to_string(text_.line_number())
                         : who_ + ": byte " + std::to_string(at_);
  }
  size_t left() const { return bytes_.size() - at_; }

 private:
  void need(size_t size, const char* what) const {
    SERPENTINE_CHECK(size <= bytes_.size() - at_, place(), "the file ends where ", what,
                     " was expected");
  }
  const PlyHeader& header_;
  std::string_view bytes_;
  TextScanner& text_;
  std::string who_;
  size_t at_;
};

std::vector<at::Tensor> columns_of(const Element& element, const PlyHeader& header, Body& body,
                                   size_t bytes) {
  std::vector<at::Tensor> columns;
  if (!header.ascii) {
    const size_t row = element.row_bytes();
    const char* at = body.rows(element.count, row, "vertices");
    for (const auto& property : element.properties) {
      columns.push_back(read_column(at, row, element.count, property.type, header.swap));
      at += bytes_of(property.type);
    }
    return columns;
  }
  const auto width = element.properties.size();
  SERPENTINE_CHECK(width == 0 || static_cast<size_t>(element.count) <= bytes / width, body.place(),
                   element.count, " vertices do not fit into a file of ", bytes, " bytes");
  const at::Tensor all = at::empty({static_cast<int64_t>(width), element.count}, at::kDouble);
  auto* to = all.mutable_data_ptr<double>();
  for (int64_t i = 0; i < element.count; ++i) {
    for (size_t p = 0; p < width; ++p)
      to[p * element.count + i] =
          body.number(element.properties[p].type, element.properties[p].name.c_str());
  }
  for (size_t p = 0; p < width; ++p) {
    const NumberType type = element.properties[p].type;
    const auto row = all[static_cast<int64_t>(p)].contiguous();
    std::string stored(element.count * bytes_of(type), '\0');
    write_column(row, stored.data(), bytes_of(type), type, false);
    columns.push_back(read_column(stored.data(), bytes_of(type), element.count, type, false));
  }
  return columns;
}

void add_vertices(const Element& element, const PlyHeader& header, Body& body, size_t bytes,
                  PointCloud& cloud) {
  SERPENTINE_CHECK(!element.properties.empty(), body.place(), "the vertices have no properties");
  SERPENTINE_CHECK(!element.has_list(), body.place(),
                   "vertices with lists are not read; write the lists to elements of their own");
  const auto columns = columns_of(element, header, body, bytes);
  std::array<at::Tensor, 3> axes;
  constexpr std::array<const char*, 3> kAxes = {"x", "y", "z"};
  for (size_t p = 0; p < columns.size(); ++p) {
    const Property& property = element.properties[p];
    const auto* axis = std::find(kAxes.begin(), kAxes.end(), property.name);
    if (axis == kAxes.end()) {
      cloud.set(property.name, columns[p], property.type);
    } else {
      axes[axis - kAxes.begin()] = columns[p].to(at::kDouble);
      cloud.stored = property.type;
    }
  }
  for (size_t axis = 0; axis < axes.size(); ++axis)
    SERPENTINE_CHECK(axes[axis].defined(), body.place(), "the vertices have no property '",
                     kAxes[axis], "'");
  cloud.points = at::stack({axes[0], axes[1], axes[2]}, 1);
}

void add_other(const Element& element, Body& body, std::vector<int64_t>& faces) {
  for (int64_t i = 0; i < element.count; ++i) {
    // an element without properties takes no bytes: its number must not cost time
    if (element.properties.empty()) return;
    for (const auto& property : element.properties) {
      if (!property.list) {
        body.number(property.type, property.name.c_str());
        continue;
      }
      const auto values = body.list(property);
      const bool face = element.name == "face" && property.name.starts_with("vertex_ind");
      for (size_t corner = 2; face && corner < values.size(); ++corner) {
        for (const double vertex : {values[0], values[corner - 1], values[corner]})
          faces.push_back(std::abs(vertex) < 9e15 ? static_cast<int64_t>(vertex) : -1);
      }
    }
  }
}

}  // namespace

PointCloud parse_ply(std::string_view bytes, const std::string& who) {
  TextScanner text(bytes, who);
  const PlyHeader header = read_ply_header(text);
  Body body(header, bytes, text, who);
  PointCloud cloud;
  std::vector<int64_t> faces;
  for (const auto& element : header.elements) {
    if (element.name == "vertex") {
      SERPENTINE_CHECK(!cloud.points.defined(), who, "the file has two elements 'vertex'");
      add_vertices(element, header, body, bytes.size(), cloud);
    } else {
      add_other(element, body, faces);
    }
  }
  SERPENTINE_CHECK(cloud.points.defined(), who, "the file has no element 'vertex'");
  if (!faces.empty()) {
    cloud.faces = at::tensor(faces, at::kLong).view({-1, 3});
    const auto least = cloud.faces.min().item<int64_t>(), most = cloud.faces.max().item<int64_t>();
    SERPENTINE_CHECK(least >= 0 && most < cloud.size(), body.place(), "a face before here names ",
                     "vertex ", least < 0 ? least : most, ", but there are ", cloud.size());
  }
  const bool more = header.ascii ? !text.at_end() : body.left() > 0;
  SERPENTINE_CHECK(!more, body.place(), "the file goes on after the last element of its header");
  return cloud;
}

}  // namespace serpentine
