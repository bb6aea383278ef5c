// Files of points: what is written is read again, and damage is one sentence with its place.
#include "pointcloud/cloud.h"

#include <filesystem>
#include <functional>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "support/close.h"

namespace serpentine {
namespace {

using torch::Tensor;

std::string scratch(const std::string& name) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("serpentine_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  return (folder / name).string();
}

// every number type that the format holds; UTM places in float64
PointCloud sample(int64_t count, bool wide) {
  torch::manual_seed(3);
  PointCloud cloud;
  cloud.stored = wide ? NumberType::kF64 : NumberType::kF32;
  cloud.points = torch::randn({count, 3}, torch::kDouble) + (wide ? 5e6 : 0);
  if (!wide) cloud.points = cloud.points.to(torch::kFloat).to(torch::kDouble);
  cloud.set("intensity", torch::rand({count}), NumberType::kF32);
  cloud.set("red", torch::randint(0, 256, {count}).to(torch::kByte), NumberType::kU8);
  cloud.set("tag", torch::randint(-128, 128, {count}).to(torch::kChar), NumberType::kI8);
  cloud.set("line", torch::randint(0, 65536, {count}).to(torch::kInt), NumberType::kU16);
  cloud.set("step", torch::randint(-32768, 32768, {count}).to(torch::kShort), NumberType::kI16);
  cloud.set("big", torch::randint(0, 4294967296, {count}, torch::kLong), NumberType::kU32);
  cloud.set("time", torch::rand({count}, torch::kDouble) * 1e9, NumberType::kF64);
  return cloud;
}

void expect_same(const PointCloud& actual, const PointCloud& expected, bool types = true) {
  ASSERT_EQ(actual.size(), expected.size());
  // text has the shortest number that is the same float32
  const auto as_stored = [&](const Tensor& values, NumberType type) {
    return !types && type == NumberType::kF32 ? values.to(torch::kFloat).to(torch::kDouble)
                                              : values.to(torch::kDouble);
  };
  EXPECT_TRUE(as_stored(actual.points, expected.stored).equal(expected.points));
  ASSERT_EQ(actual.fields.size(), expected.fields.size());
  for (const auto& field : expected.fields) {
    const CloudField* found = actual.find(field.name);
    ASSERT_NE(found, nullptr) << field.name;
    if (types) {
      EXPECT_EQ(found->type, field.type) << field.name;
    }
    EXPECT_TRUE(as_stored(found->values, field.type).equal(field.values.to(torch::kDouble)))
        << field.name;
  }
}

struct Format {
  const char* name;
  std::function<std::string(const PointCloud&)> write;
  std::function<PointCloud(std::string_view, const std::string&)> read;
  bool types;  // it keeps number types
};

std::vector<Format> formats() {
  return {
      {"ply_ascii", [](const auto& c) { return ply_text(c, PlyFormat::kAscii); }, parse_ply, true},
      {"ply_little", [](const auto& c) { return ply_text(c); }, parse_ply, true},
      {"ply_big", [](const auto& c) { return ply_text(c, PlyFormat::kBigEndian); }, parse_ply,
       true},
      {"pcd_ascii", [](const auto& c) { return pcd_text(c, PcdFormat::kAscii); }, parse_pcd, true},
      {"pcd_binary", [](const auto& c) { return pcd_text(c); }, parse_pcd, true},
      {"pcd_compressed", [](const auto& c) { return pcd_text(c, PcdFormat::kCompressed); },
       parse_pcd, true},
      {"csv", [](const auto& c) { return xyz_text(c, ',', true); }, parse_xyz, false},
  };
}

class CloudFormat : public ::testing::TestWithParam<Format> {};

TEST_P(CloudFormat, ReadsWhatItWrote) {
  for (const int64_t count : {0, 1, 7, 1000}) {
    for (const bool wide : {false, true}) {
      if (count == 0 && std::string(GetParam().name) == "csv") continue;  // tested on its own
      const PointCloud cloud = sample(count, wide);
      const PointCloud again = GetParam().read(GetParam().write(cloud), "it");
      expect_same(again, cloud, GetParam().types);
      if (GetParam().types) {
        EXPECT_EQ(again.stored, cloud.stored);
      }
    }
  }
}

TEST_P(CloudFormat, EveryTruncationIsRefusedOrShorter) {
  const std::string whole = GetParam().write(sample(5, false));
  for (size_t size = 0; size < whole.size(); ++size) {
    try {
      const PointCloud cloud = GetParam().read(std::string_view(whole).substr(0, size), "cut.file");
      // text may lose its last digits or lines, and padding may be missing
      EXPECT_LE(cloud.size(), 5);
      if (GetParam().types && std::string(GetParam().name).find("ascii") == std::string::npos)
        ADD_FAILURE() << size << " of " << whole.size() << " bytes were read";
    } catch (const c10::Error& error) {
      const std::string text = error.what_without_backtrace();
      EXPECT_EQ(text.rfind("cut.file", 0), 0U) << text;
    }
  }
}

TEST_P(CloudFormat, NoByteMakesItCrash) {
  const std::string whole = GetParam().write(sample(3, false));
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const char change : {'\0', '\xff', ' ', '9', '-'}) {
      std::string damaged = whole;
      damaged[at] = change;
      try {
        GetParam().read(damaged, "damaged");
      } catch (const c10::Error&) {
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, CloudFormat, ::testing::ValuesIn(formats()),
                         [](const auto& of) { return std::string(of.param.name); });

std::string error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "(no error)";
}

TEST(Clouds, MeshesKeepTheirFaces) {
  PointCloud mesh;
  mesh.points = torch::tensor({{0.0, 0.0, 0.0}, {1.0, 0.0, 0.0}, {1.0, 1.0, 0.0}, {0.0, 1.0, 0.0}},
                              torch::kDouble);
  mesh.faces = torch::tensor({{0, 1, 2}, {0, 2, 3}}, torch::kLong);
  for (const auto format : {PlyFormat::kAscii, PlyFormat::kLittleEndian, PlyFormat::kBigEndian}) {
    EXPECT_TRUE(parse_ply(ply_text(mesh, format), "it").faces.equal(mesh.faces));
  }
  EXPECT_TRUE(parse_off(off_text(mesh), "it").faces.equal(mesh.faces));

  // ModelNet's first line, a comment, a face of four corners and a colour
  const PointCloud glued =
      parse_off("OFF4 1 0\n0 0 0 # corner\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3 255 0 0\n", "it");
  EXPECT_TRUE(glued.points.equal(mesh.points));
  EXPECT_TRUE(glued.faces.equal(mesh.faces));
}

TEST(Clouds, SurfacePointsFollowTheArea) {
  PointCloud mesh;  // a small and a nine times larger triangle, apart along z
  mesh.points = torch::tensor({{0.0, 0.0, 0.0},
                               {1.0, 0.0, 0.0},
                               {0.0, 1.0, 0.0},
                               {0.0, 0.0, 5.0},
                               {3.0, 0.0, 5.0},
                               {0.0, 3.0, 5.0}},
                              torch::kDouble);
  mesh.faces = torch::tensor({{0, 1, 2}, {3, 4, 5}}, torch::kLong);
  const PointCloud points = sample_surface(mesh, 20000, 1);
  const double share = (points.points.select(1, 2) == 5).to(torch::kDouble).mean().item<double>();
  EXPECT_NEAR(share, 0.9, 0.01);
  const Tensor upper = points.points.index({points.points.select(1, 2) == 5});
  EXPECT_NEAR(upper.select(1, 0).mean().item<double>(), 1, 0.03);  // the centroid
  EXPECT_LE((upper.select(1, 0) + upper.select(1, 1)).max().item<double>(), 3 + 1e-12);
  EXPECT_TRUE((points.find("normal_z")->values == 1).all().item<bool>());
  EXPECT_TRUE(sample_surface(mesh, 50, 1).points.equal(sample_surface(mesh, 50, 1).points));
  EXPECT_FALSE(sample_surface(mesh, 50, 1).points.equal(sample_surface(mesh, 50, 2).points));
}

TEST(Clouds, ErrorsNameTheirPlace) {
  EXPECT_EQ(error_of([] { parse_xyz("1 2 3\n1 2\n", "a.xyz"); }),
            "a.xyz:2: the line has 2 values, the first one has 3");
  EXPECT_EQ(error_of([] { parse_xyz("1 2 3\n1 b 3\n", "a.xyz"); }), "a.xyz:2: 'b' is not a number");
  EXPECT_EQ(error_of([] { parse_kitti(std::string(33, 'a'), "a.bin"); }),
            "a.bin: a KITTI scan has 16 bytes a point (x y z intensity, float32), but 1 bytes are "
            "left over at byte 32");
  EXPECT_EQ(error_of([] { parse_off("OFF\n2 1 0\n0 0 0\n1 1 1\n3 0 1 2\n", "a.off"); }),
            "a.off:5: a face names vertex 2, but there are 2");
  EXPECT_EQ(error_of([] {
              parse_ply("ply\nformat ascii 1.0\nelement vertex 1\nproperty flot x\n", "a.ply");
            }).substr(0, 31),
            "a.ply:4: there is no PLY type '");
  EXPECT_NE(error_of([] {
              parse_pcd(
                  "FIELDS x y\nSIZE 4 4\nTYPE F F\nCOUNT 1 1\nWIDTH 0\nHEIGHT 1\nPOINTS "
                  "0\nDATA ascii\n",
                  "a.pcd");
            }).find("has no field 'z'"),
            std::string::npos);
  EXPECT_NE(error_of([] { read_cloud("/nowhere/a.ply"); }).find("/nowhere/a.ply"),
            std::string::npos);
  EXPECT_NE(error_of([] { read_cloud("/nowhere/a.e57"); }).find(".e57"), std::string::npos);
}

TEST(Clouds, TablesMayHaveNamesAndSeveralDelimiters) {
  const Tensor expected = torch::tensor({{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}}, torch::kDouble);
  for (const char* text : {"1 2 3 9\n4 5 6 8\n", "1,2,3,9\r\n4,5,6,8\r\n", "1;2;3;9\n4;5;6;8",
                           "# places\n1\t2\t3\t9\n\n4\t5\t6\t8\n"}) {
    const PointCloud cloud = parse_xyz(text, "it");
    EXPECT_TRUE(cloud.points.equal(expected)) << text;
    EXPECT_TRUE(cloud.find("field_3")->values.equal(torch::tensor({9.0, 8.0}, torch::kDouble)));
  }
  const PointCloud named = parse_xyz("Label,Z,\"Y\",X\n9,3,2,1\n8,6,5,4\n", "it");
  EXPECT_TRUE(named.points.equal(expected));
  EXPECT_TRUE(named.find("label")->values.equal(torch::tensor({9.0, 8.0}, torch::kDouble)));
  EXPECT_EQ(parse_xyz("", "it").size(), 0);
}

TEST(Clouds, FilesByTheirEnding) {
  PointCloud cloud = sample(20, false);
  for (const char* ending : {".ply", ".pcd", ".csv", ".npz"}) {
    const std::string path = scratch(std::string("cloud") + ending);
    write_cloud(path, cloud);
    expect_same(read_cloud(path), cloud, ending[1] == 'p');
  }
  PointCloud bare;
  bare.points = cloud.points;
  for (const char* ending : {".xyz", ".bin", ".npy", ".off"}) {
    const std::string path = scratch(std::string("cloud") + ending);
    write_cloud(path, bare);
    EXPECT_TRUE(read_cloud(path).points.to(torch::kFloat).equal(cloud.points.to(torch::kFloat)))
        << ending;
  }
  EXPECT_THROW(write_cloud(scratch("cloud.bin"), cloud), c10::Error);  // fields it cannot hold
}

TEST(Clouds, ColoursAndPointsThatAreNone) {
  PointCloud cloud;
  cloud.points = torch::tensor(
      {{0.0, 0.0, 0.0}, {double{NAN}, 0.0, 0.0}, {1.0, double{INFINITY}, 0.0}}, torch::kDouble);
  cloud.set("rgb", torch::tensor({0x336699, 0, 0}, torch::kInt).view(torch::kFloat),
            NumberType::kF32);
  EXPECT_TRUE(testing::is_close(colours_of(cloud)[0], torch::tensor({0.2F, 0.4F, 0.6F}), 1e-6));
  const PointCloud finite = finite_points(cloud);
  EXPECT_EQ(finite.size(), 1);
  EXPECT_EQ(finite.find("rgb")->values.size(0), 1);
}

}  // namespace
}  // namespace serpentine
