// PCD 0.5 to 0.7: text, binary, binary_compressed. The format: pointclouds.org, "The PCD file
// format".
#include <algorithm>
#include <array>
#include <cstring>

#include <ATen/ATen.h>

#include "core/check.h"
#include "pointcloud/cloud.h"
#include "pointcloud/cloud_text.h"
#include "pointcloud/lzf.h"

namespace serpentine {
namespace {

constexpr int64_t kPcdMostColumns = 4096;  // of one field

struct Field {
  std::string name;
  int64_t size = 4, count = 1;
  char type = 'F';
  NumberType number = NumberType::kF32;
  size_t bytes() const { return bytes_of(number) * static_cast<size_t>(count); }
};

struct Header {
  std::vector<Field> fields;
  int64_t width = -1, height = -1, points = -1;
  std::string data;
  size_t row() const {
    size_t bytes = 0;
    for (const auto& field : fields) bytes += field.bytes();
    return bytes;
  }
};

bool number_type(const Field& field, NumberType& type) {
  struct Known {
    char letter;
    int64_t size;
    NumberType type;
  };
  constexpr std::array<Known, 10> kKnown = {{{'I', 1, NumberType::kI8},
                                             {'I', 2, NumberType::kI16},
                                             {'I', 4, NumberType::kI32},
                                             {'I', 8, NumberType::kI64},
                                             {'U', 1, NumberType::kU8},
                                             {'U', 2, NumberType::kU16},
                                             {'U', 4, NumberType::kU32},
                                             {'U', 8, NumberType::kU64},
                                             {'F', 4, NumberType::kF32},
                                             {'F', 8, NumberType::kF64}}};
  for (const auto& known : kKnown) {
    if (known.letter != field.type || known.size != field.size) continue;
    type = known.type;
    return true;
  }
  return false;
}

// one value a field
template <class Set>
void each_field(const std::vector<std::string_view>& words, Header& header, const TextScanner& text,
                const Set& set) {
  if (words.size() - 1 != header.fields.size())
    text.fail(std::string(words[0]) + " has " + std::to_string(words.size() - 1) +
              " values for the " + std::to_string(header.fields.size()) + " FIELDS");
  for (size_t i = 0; i < header.fields.size(); ++i) {
    if (!set(header.fields[i], words[i + 1]))
      text.fail(std::string(words[0]) + " cannot be '" + std::string(words[i + 1].substr(0, 40)) +
                "'");
  }
}

void read_entry(const std::vector<std::string_view>& words, Header& header,
                const TextScanner& text) {
  const auto whole = [&](int64_t least, int64_t& value) {
    if (words.size() != 2 || !parse_number(words[1], value) || value < least)
      text.fail(std::string(words[0]) + " must be one whole number from " + std::to_string(least) +
                " on");
  };
  if (words[0] == "FIELDS" || words[0] == "COLUMNS") {
    header.fields.resize(words.size() - 1);
    for (size_t i = 1; i < words.size(); ++i) header.fields[i - 1].name = std::string(words[i]);
  } else if (words[0] == "SIZE") {
    each_field(words, header, text,
               [](Field& field, std::string_view word) { return parse_number(word, field.size); });
  } else if (words[0] == "TYPE") {
    each_field(words, header, text, [](Field& field, std::string_view word) {
      field.type = word.empty() ? '?' : word[0];
      return word.size() == 1;
    });
  } else if (words[0] == "COUNT") {
    each_field(words, header, text, [](Field& field, std::string_view word) {
      return parse_number(word, field.count) && field.count >= 1 && field.count <= kPcdMostColumns;
    });
  } else if (words[0] == "WIDTH") {
    whole(0, header.width);
  } else if (words[0] == "HEIGHT") {
    whole(0, header.height);
  } else if (words[0] == "POINTS") {
    whole(0, header.points);
  } else if (words[0] == "DATA" && words.size() == 2) {
    header.data = std::string(words[1]);
  } else if (words[0] != "VERSION" && words[0] != "VIEWPOINT") {
    text.fail("a PCD header has no line '" + std::string(words[0].substr(0, 40)) + "'");
  }
}

Header read_header(TextScanner& text) {
  Header header;
  std::string_view line;
  while (header.data.empty()) {
    if (!text.line(line)) text.fail("the PCD header has no line 'DATA'");
    const auto words = words_of(line);
    if (!words.empty() && words[0][0] != '#') read_entry(words, header, text);
  }
  for (auto& field : header.fields) {
    if (!number_type(field, field.number))
      text.fail("the field '" + field.name + "' has the type " + field.type + " of " +
                std::to_string(field.size) + " bytes, which PCD does not know");
  }
  int64_t of_image = 0;
  const bool image = header.width >= 0 && header.height >= 0;
  if (image && __builtin_mul_overflow(header.width, header.height, &of_image))
    text.fail("WIDTH times HEIGHT is too large");
  if (header.points < 0) header.points = image ? of_image : header.width;
  if (header.points < 0) text.fail("the PCD header tells neither POINTS nor WIDTH");
  if (image && of_image != header.points)
    text.fail("WIDTH times HEIGHT is " + std::to_string(of_image) + ", but POINTS is " +
              std::to_string(header.points));
  return header;
}

// Rows of all fields, as the binary form has them, from text.
std::string rows_of_text(const Header& header, TextScanner& text, size_t bytes) {
  int64_t columns = 0;
  for (const auto& field : header.fields) columns += field.count;
  if (columns > 0 && header.points > static_cast<int64_t>(bytes) / columns)
    text.fail(std::to_string(header.points) + " points do not fit into a file of " +
              std::to_string(bytes) + " bytes");
  const size_t row = header.row();
  std::string rows(row * static_cast<size_t>(header.points), '\0');
  char* to = rows.data();
  for (int64_t i = 0; i < header.points && columns > 0; ++i) {
    for (const auto& field : header.fields) {
      const size_t size = bytes_of(field.number);
      for (int64_t c = 0; c < field.count; ++c, to += size) {
        const bool wide = field.number == NumberType::kI64 || field.number == NumberType::kU64;
        const auto value = wide ? at::scalar_tensor(text.whole(field.name.c_str()), at::kLong)
                                : at::scalar_tensor(text.number(field.name.c_str()), at::kDouble);
        write_column(value, to, size, field.number, false);
      }
    }
  }
  if (!text.at_end())
    text.fail("the file goes on after its " + std::to_string(header.points) + " points");
  return rows;
}

// Field after field becomes row after row.
std::string rows_of_fields(const Header& header, const std::string& by_field) {
  const size_t row = header.row();
  std::string rows(by_field.size(), '\0');
  size_t from = 0, column = 0;
  for (const auto& field : header.fields) {
    const size_t size = field.bytes();
    for (int64_t i = 0; i < header.points; ++i, from += size)
      std::memcpy(rows.data() + i * row + column, by_field.data() + from, size);
    column += size;
  }
  return rows;
}

std::string read_rows(const Header& header, TextScanner& text, std::string_view bytes,
                      const std::string& who) {
  if (header.data == "ascii") return rows_of_text(header, text, bytes.size());
  const std::string place = who + ": byte " + std::to_string(text.byte());
  const std::string_view body = bytes.substr(text.byte());
  size_t size = 0;
  SERPENTINE_CHECK(!__builtin_mul_overflow(header.row(), static_cast<size_t>(header.points), &size),
                   place, "the points do not fit into memory");
  if (header.data == "binary") {
    // some programs pad the data, so bytes may follow
    SERPENTINE_CHECK(size <= body.size(), place, header.points, " points of ", header.row(),
                     " bytes were expected, but the file ends at byte ", bytes.size());
    return std::string(body.substr(0, size));
  }
  if (header.data != "binary_compressed")
    text.fail("DATA is ascii, binary or binary_compressed, got '" + header.data.substr(0, 40) +
              "'");
  SERPENTINE_CHECK(body.size() >= 8, place, "the file ends where the compressed size was expected");
  const auto packed = static_cast<size_t>(read_number(&body[0], NumberType::kU32, false));
  const auto unpacked = static_cast<size_t>(read_number(&body[4], NumberType::kU32, false));
  SERPENTINE_CHECK(unpacked == size, place, "the compressed data unpack to ", unpacked,
                   " bytes, but ", header.points, " points have ", size);
  SERPENTINE_CHECK(packed <= body.size() - 8, place, packed,
                   " compressed bytes were expected, but the file ends at byte ", bytes.size());
  return rows_of_fields(header, lzf_unpack(body.substr(8, packed), size, place));
}

}  // namespace

PointCloud parse_pcd(std::string_view bytes, const std::string& who) {
  TextScanner text(bytes, who);
  const Header header = read_header(text);
  const std::string rows = read_rows(header, text, bytes, who);
  const size_t row = header.row();
  PointCloud cloud;
  std::array<at::Tensor, 3> axes;
  size_t at = 0;
  for (const auto& field : header.fields) {
    std::vector<at::Tensor> columns;
    for (int64_t c = 0; c < field.count; ++c) {
      columns.push_back(read_column(rows.data() + at, row, header.points, field.number, false));
      at += bytes_of(field.number);
    }
    const bool axis =
        field.count == 1 && (field.name == "x" || field.name == "y" || field.name == "z");
    if (axis) {
      axes[field.name[0] - 'x'] = columns[0].to(at::kDouble);
      cloud.stored = field.number;
    } else if (field.name != "_") {  // the format's name for padding
      cloud.set(field.name, columns.size() == 1 ? columns[0] : at::stack(columns, 1), field.number);
    }
  }
  for (size_t axis = 0; axis < axes.size(); ++axis)
    SERPENTINE_CHECK(axes[axis].defined(), who, "the file has no field '",
                     static_cast<char>('x' + axis), "'");
  cloud.points = at::stack({axes[0], axes[1], axes[2]}, 1);
  return cloud;
}

}  // namespace serpentine
