// LAS: every field is kept, classes are written back, and headers that lie are refused.
#include "pointcloud/las.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "core/io/atomic_file.h"
#include "pointcloud/las_layout.h"

namespace serpentine {
namespace {

using torch::Tensor;

std::string las_scratch(const std::string& name) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("serpentine_las_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  return (folder / name).string();
}

std::string bytes_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <class Number>
void put(std::string& bytes, size_t at, Number value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

constexpr size_t kPoints = 9, kPadding = 5;

/// A file of any version and point format whose records are pseudo-random bytes, with a record of
/// its own before the points, padding behind it, and bytes behind the points.
std::string las_bytes(int minor, int format, size_t extra) {
  const size_t header = minor == 4 ? las::kHeader14 : minor == 3 ? las::kHeader13 : las::kHeader12;
  std::string bytes(header, '\0');
  bytes.replace(0, 4, "LASF");
  bytes[las::kMajor] = 1;
  bytes[las::kMinor] = static_cast<char>(minor);
  std::string record(las::kVlrHeader + 10, 'v');
  put(record, las::kVlrSize, uint16_t{10});
  const size_t size = las::kRecordBytes[format] + extra;
  put(bytes, las::kHeaderSize, static_cast<uint16_t>(header));
  put(bytes, las::kDataAt, static_cast<uint32_t>(header + record.size() + kPadding));
  put(bytes, las::kVlrs, uint32_t{1});
  bytes[las::kFormat] = static_cast<char>(format);
  put(bytes, las::kRecord, static_cast<uint16_t>(size));
  put(bytes, minor == 4 ? las::kCount : las::kLegacyCount, static_cast<uint32_t>(kPoints));
  for (size_t axis = 0; axis < 3; ++axis) {
    put(bytes, las::kScale + 8 * axis, 0.01);
    put(bytes, las::kOffset + 8 * axis, 5e6);
  }
  bytes += record + std::string(kPadding, 'p');
  uint32_t state = 12345;
  for (size_t i = 0; i < kPoints * size; ++i) {
    state = state * 1664525U + 1013904223U;
    bytes += static_cast<char>(state >> 24U);
  }
  if (minor == 4) put(bytes, las::kEvlrsAt, static_cast<uint64_t>(bytes.size()));
  return bytes + "behind the points";
}

struct Case {
  int minor, format;
  size_t extra;
};

class LasFormat : public ::testing::TestWithParam<Case> {
 protected:
  std::string path_ = las_scratch("in.las");
  void SetUp() override {
    write_atomically(path_, las_bytes(GetParam().minor, GetParam().format, GetParam().extra));
  }
  static Tensor classes(int64_t first, int64_t n) { return torch::arange(first, first + n) * 3; }
};

TEST_P(LasFormat, FieldsLieWhereTheSpecificationSays) {
  const LasFile file(path_);
  ASSERT_EQ(file.size(), static_cast<int64_t>(kPoints));
  const std::string bytes = bytes_of_file(path_);
  const size_t size = las::kRecordBytes[GetParam().format] + GetParam().extra;
  const size_t first = bytes.size() - 17 - kPoints * size;
  const PointCloud cloud = read_las(path_);
  for (size_t i = 0; i < kPoints; ++i) {
    const char* row = bytes.data() + first + i * size;
    const auto byte = [&](size_t at) { return static_cast<unsigned char>(row[at]); };
    const auto value = [&](const char* name) {
      return cloud.find(name)->values[static_cast<int64_t>(i)].item<double>();
    };
    for (int64_t axis = 0; axis < 3; ++axis) {
      EXPECT_EQ(cloud.points[static_cast<int64_t>(i)][axis].item<double>(),
                load_little<int32_t>(row + 4 * axis) * 0.01 + 5e6);
    }
    const bool late = GetParam().format >= 6;
    EXPECT_EQ(value("intensity"), load_little<uint16_t>(row + 12));
    EXPECT_EQ(value("return_number"), byte(14) & (late ? 15 : 7));
    EXPECT_EQ(value("number_of_returns"), late ? byte(14) >> 4 : byte(14) >> 3 & 7);
    EXPECT_EQ(value("classification"), late ? byte(16) : byte(15) & 31);
    EXPECT_EQ(value("edge_of_flight_line"), late ? byte(15) >> 7 : byte(14) >> 7);
    EXPECT_EQ(value("point_source_id"), load_little<uint16_t>(row + (late ? 20 : 18)));
    EXPECT_EQ(cloud.find("overlap") != nullptr, late);
  }
}

TEST_P(LasFormat, NewClassesChangeNothingElse) {
  const std::string out = las_scratch("out.las");
  const LasFile file(path_);
  file.write_classes(out, classes);
  const std::string before = bytes_of_file(path_), after = bytes_of_file(out);
  ASSERT_EQ(after.size(), before.size());
  const size_t size = las::kRecordBytes[GetParam().format] + GetParam().extra;
  const size_t first = before.size() - 17 - kPoints * size;
  const size_t at = GetParam().format >= 6 ? 16 : 15;
  const unsigned mask = GetParam().format >= 6 ? 255 : 31;
  for (size_t i = 0; i < before.size(); ++i) {
    const bool label = i >= first && i < first + kPoints * size && (i - first) % size == at;
    const auto expected = label ? (static_cast<unsigned char>(before[i]) & ~mask) |
                                      static_cast<unsigned>((i - first) / size * 3)
                                : static_cast<unsigned char>(before[i]);
    ASSERT_EQ(static_cast<unsigned char>(after[i]), expected) << "byte " << i;
  }
  EXPECT_TRUE(
      read_las(out).find("classification")->values.to(torch::kLong).equal(classes(0, kPoints)));
}

TEST_P(LasFormat, ANewFieldStandsBesideTheOldOnes) {
  const std::string out = las_scratch("wide.las"), twice = las_scratch("wider.las");
  LasFile(path_).write_new_field(out, "predicted", classes);
  LasFile(out).write_new_field(twice, "again", [](int64_t first, int64_t n) {
    return torch::arange(first, first + n) + 100;
  });
  const PointCloud before = read_las(path_), after = read_las(twice);
  EXPECT_TRUE(after.points.equal(before.points));
  for (const auto& field : before.fields) {
    EXPECT_TRUE(after.find(field.name)->values.equal(field.values) ||
                field.values.isnan().any().item<bool>())
        << field.name;
  }
  EXPECT_TRUE(after.find("predicted")->values.to(torch::kLong).equal(classes(0, kPoints)));
  EXPECT_TRUE(after.find("again")->values.to(torch::kLong).equal(torch::arange(100, 109)));
  const std::string bytes = bytes_of_file(twice);
  EXPECT_EQ(bytes.substr(bytes.size() - 17), "behind the points");
  EXPECT_NE(bytes.find(std::string(las::kVlrHeader, 'v').substr(0, 18)), std::string::npos);
  if (GetParam().minor == 4) {
    EXPECT_EQ(load_little<uint64_t>(bytes.data() + las::kEvlrsAt), bytes.size() - 17);
  }
  EXPECT_THROW(LasFile(out).write_new_field(twice, "predicted", classes), c10::Error);
}

INSTANTIATE_TEST_SUITE_P(, LasFormat,
                         ::testing::Values(Case{2, 0, 0}, Case{2, 1, 0}, Case{2, 2, 3},
                                           Case{2, 3, 0}, Case{3, 4, 0}, Case{3, 5, 0},
                                           Case{4, 6, 0}, Case{4, 7, 2}, Case{4, 8, 0},
                                           Case{4, 9, 0}, Case{4, 10, 300}),
                         [](const auto& of) {
                           return "v1_" + std::to_string(of.param.minor) + "_format" +
                                  std::to_string(of.param.format);
                         });

TEST(Las, WritesWhatItReads) {
  torch::manual_seed(0);
  PointCloud cloud;
  cloud.points = (torch::randn({50, 3}, torch::kDouble) * 1000).round() / 100 + 4e5;
  cloud.set("classification", torch::arange(50).to(torch::kByte), NumberType::kU8);
  cloud.set("return_number", torch::arange(50).remainder(15).to(torch::kByte), NumberType::kU8);
  cloud.set("gps_time", torch::rand({50}, torch::kDouble), NumberType::kF64);
  for (const char* colour : {"red", "green", "blue"})
    cloud.set(colour, torch::randint(0, 65536, {50}).to(torch::kInt), NumberType::kU16);
  cloud.set("height", torch::rand({50}), NumberType::kF32);
  const std::string path = las_scratch("made.las");
  write_las(path, cloud, 0.01);
  const PointCloud again = read_cloud(path);
  EXPECT_LT((again.points - cloud.points).abs().max().item<double>(), 1e-8);
  for (const auto& field : cloud.fields) {
    EXPECT_TRUE(again.find(field.name)->values.equal(field.values)) << field.name;
  }
  const LasFile file(path);
  EXPECT_EQ(file.format(), 7);
  EXPECT_THROW(file.write_classes(las_scratch("x.las"),
                                  [](int64_t, int64_t n) { return torch::full({n}, 256); }),
               c10::Error);
}

std::string error_of(const std::string& bytes) {
  const std::string path = las_scratch("bad.las");
  write_atomically(path, bytes);
  try {
    read_las(path);
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "(no error)";
}

TEST(Las, DamageIsOneSentence) {
  const std::string good = las_bytes(4, 6, 0);
  const auto with = [&](size_t at, auto value) {
    std::string bytes = good;
    put(bytes, at, value);
    return error_of(bytes);
  };
  EXPECT_EQ(error_of(good), "(no error)");
  EXPECT_NE(error_of("LASF").find("byte 4: a LAS header has 227 bytes"), std::string::npos);
  EXPECT_NE(with(0, 'l').find("begins with 'LASF'"), std::string::npos);
  EXPECT_NE(with(las::kFormat, uint8_t{11}).find("0 to 10, got 11"), std::string::npos);
  EXPECT_NE(with(las::kFormat, uint8_t{134}).find("pdal translate"), std::string::npos);
  EXPECT_NE(with(las::kCount, uint64_t{1000}).find("1000 points of 30 bytes were expected"),
            std::string::npos);
  EXPECT_NE(with(las::kCount, ~uint64_t{0}).find("the file ends at byte"), std::string::npos);
  EXPECT_NE(with(las::kDataAt, uint32_t{10}).find("the points begin at byte 10"),
            std::string::npos);
  EXPECT_NE(with(las::kVlrs, uint32_t{7}).find("variable length record"), std::string::npos);
  EXPECT_NE(with(las::kScale, 0.0).find("scale"), std::string::npos);
  for (size_t size = 0; size + 17 < good.size(); size += 3) {
    EXPECT_NE(error_of(good.substr(0, size)), "(no error)") << size;
  }
}

}  // namespace
}  // namespace serpentine
