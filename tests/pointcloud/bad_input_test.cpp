// Files and clouds that are wrong, one by one: each gives a sentence with file and place, or is
// taken for what it is.
#include <filesystem>
#include <functional>
#include <random>

#include <gtest/gtest.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/atomic_file.h"
#include "core/io/hdf5.h"
#include "pointcloud/cloud_source.h"
#include "pointcloud/geometry.h"
#include "pointcloud/las.h"
#include "pointcloud/pointcloud.h"
#include "pointcloud/sampling.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;
using torch::Tensor;

class BadInput : public ::testing::Test {
 protected:
  fs::path folder_ = fs::temp_directory_path() / ("serpentine_bad_" + std::to_string(getpid()));
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  std::string at(const std::string& name) const { return (folder_ / name).string(); }
  std::string file(const std::string& name, const std::string& bytes) const {
    write_atomically(at(name), bytes);
    return at(name);
  }
};

std::string sentence_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "(no error)";
}

struct Wrong {
  const char *name, *bytes, *sentence;
};

// text formats: what is wrong, and the sentence behind the file's name
const Wrong kWrongTexts[] = {
    {"a.ply", "", ":1: a PLY file begins with the line 'ply'"},
    {"a.ply",
     "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nend_header\n1 "
     "2\n",
     ":7: the vertices have no property 'z'"},
    {"a.ply", "ply\nelement vertex 0\nend_header\n", ":3: the header has no line 'format'"},
    {"a.ply", "ply\nformat ascii 1.0\nelement vertex -1\n",
     ":3: the number of a PLY element must be a whole number from 0 on"},
    {"a.ply",  // two points are declared, three follow
     "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float "
     "z\n"
     "end_header\n1 2 3\n4 5 6\n7 8 9\n",
     ":10: the file goes on after the last element of its header"},
    {"a.ply",  // three are declared, two follow
     "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float "
     "z\n"
     "end_header\n1 2 3\n4 5 6\n",
     ":10: the file ends where x was expected"},
    {"a.ply",
     "ply\nformat binary_big_endian 1.0\nelement vertex 2\nproperty float x\nproperty float y\n"
     "property float z\nend_header\nABCDABCDABCD",
     ": byte 112: 2 vertices of 12 bytes were expected, but the file ends at byte 124"},
    {"a.pcd", "", ":1: the PCD header has no line 'DATA'"},
    {"a.pcd", "FIELDS x y z\nSIZE 4 4\n", ":2: SIZE has 2 values for the 3 FIELDS"},
    {"a.pcd",
     "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 2\nHEIGHT 2\nPOINTS 3\nDATA ascii\n",
     ":8: WIDTH times HEIGHT is 4, but POINTS is 3"},
    {"a.pcd",
     "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 1\nHEIGHT 1\nDATA ascii\n1 2\n",
     ":9: the file ends where z was expected"},
    {"a.pcd",
     "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 1\nHEIGHT 1\nDATA ascii\n1 2 3\n4 5 "
     "6\n",
     ":9: the file goes on after its 1 points"},
    {"a.pcd",
     "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 3\nHEIGHT 1\nDATA "
     "binary\nABCDABCDABCD",
     ": byte 76: 3 points of 12 bytes were expected, but the file ends at byte 88"},
    {"a.off", "", ":1: an OFF file begins with 'OFF'"},
    {"a.off", "OFF\n2 0 0\n0 0 0\n1 1\n", ":5: the file ends where a coordinate was expected"},
    {"a.off", "OFF\n1 0 0\n0 0 0\n1 1 1\n", ":4: the file goes on after its last face"},
    {"a.off", "OFF\n999999999 0 0\n",
     ":2: 999999999 vertices and 0 faces do not fit into a file of 18 bytes"},
    {"a.off", "OFF\n3 1 0\n0 0 0\n1 1 1\n2 2 2\n3 0 1\n",
     ":7: the file ends where a face's vertex was expected"},
    {"a.xyz", "1 2\n", ":1: a line must have at least 3 numbers, got 2"},
    {"a.xyz", "1 2 3\n4 5 6\n7 8\n", ":3: the line has 2 values, the first one has 3"},
    {"a.csv", "x,y,w\n1,2,3\n", ":1: the first line names no column 'z'"},
    {"a.csv", "x,y,z\n1,2,three\n", ":2: 'three' is not a number"},
    {"a.bin", "0123456789abcdef01234567",
     ": a KITTI scan has 16 bytes a point (x y z intensity, float32), but 8 bytes are left over at "
     "byte 16"},
    {"a.npy", "", ": is not an npy file"},
    {"a.npz", "PK", ""},
    {"a.las", "", ": byte 0: a LAS header has 227 bytes at least"},
};

TEST_F(BadInput, IsOneSentenceWithFileAndPlace) {
  for (const auto& wrong : kWrongTexts) {
    const std::string path = file(wrong.name, wrong.bytes);
    const std::string sentence = sentence_of([&] { read_cloud(path); });
    EXPECT_EQ(sentence.rfind(path + wrong.sentence, 0), 0U) << sentence << "\n" << wrong.bytes;
    EXPECT_EQ(sentence.find('\n'), std::string::npos) << sentence;
  }
}

TEST_F(BadInput, EveryFormatCutAnywhereIsRefusedOrShorter) {
  torch::manual_seed(1);
  PointCloud cloud;
  cloud.points = torch::randn({6, 3}, torch::kDouble).to(torch::kFloat).to(torch::kDouble);
  for (const char* ending : {"off", "xyz", "csv", "bin", "npy", "npz", "ply", "pcd", "las"}) {
    const std::string name = std::string("whole.") + ending;
    if (std::string(ending) == "las") {
      write_las(at(name), cloud);
    } else {
      write_cloud(at(name), cloud);
    }
    const std::string whole = [&] {
      const InputFile in(at(name));
      return in.read_all();
    }();
    const bool text = std::string("off xyz csv bin").find(ending) != std::string::npos;
    for (size_t size = 0; size < whole.size(); ++size) {
      const std::string path = file(std::string("cut.") + ending, whole.substr(0, size));
      PointCloud read;
      const std::string sentence = sentence_of([&] { read = read_cloud(path); });
      if (sentence == "(no error)") {
        EXPECT_TRUE(text) << ending << " of " << size << " bytes";
        EXPECT_LE(read.size(), 6);
      } else {
        EXPECT_EQ(sentence.rfind(path, 0), 0U) << sentence;
        EXPECT_EQ(sentence.find('\n'), std::string::npos) << sentence;
      }
    }
  }
}

TEST_F(BadInput, PackedCloudsNameTheLine) {
  const std::string head = "id,class,split,first_point,points,ox,oy,oz,scale\n";
  file("a.i16", std::string(24, '\0'));
  const auto sentence = [&](const std::string& lines) {
    const std::string path = file("a.index.csv", lines);
    const std::string text =
        sentence_of([&] { each_labelled_cloud(path, 8, 0, [](const LabelledCloud&) {}); });
    EXPECT_EQ(text.rfind(path, 0), 0U) << text;
    return text.substr(std::min(text.size(), path.size()));
  };
  EXPECT_EQ(sentence("id,class\n").rfind(":1: the first line must be", 0), 0U);
  EXPECT_EQ(sentence(head + "1,car,all,0,2,0,0,0,1\n2,car,all,0,9,0,0,0,1\n")
                .rfind(":3: names points 0 to 9", 0),
            0U);
  EXPECT_EQ(sentence(head + "1,car,all,0,two,0,0,0,1\n").rfind(":2: a line is", 0), 0U);
}

TEST_F(BadInput, Hdf5NamesTheFile) {
  if (!hdf5_available()) GTEST_SKIP() << "no HDF5";
  const auto sentence = [&](const std::function<void(Hdf5Writer&)>& fill) {
    const std::string path = at("a.h5");
    Hdf5Writer writer(path);
    fill(writer);
    writer.finish();
    const std::string text = sentence_of([&] { read_hdf5_clouds(path); });
    EXPECT_NE(text.find(path), std::string::npos) << text;
    return text;
  };
  const Tensor far = torch::rand({2, 5, 3}, torch::kDouble) + 1e9;
  EXPECT_NE(sentence([&](Hdf5Writer& w) { w.write("data", far); }).find("label"),
            std::string::npos);
  EXPECT_NE(sentence([&](Hdf5Writer& w) {
              w.write("data", far);
              w.write("label", torch::zeros({3}, torch::kLong));
            }).find("there are 2 clouds, but 3 labels"),
            std::string::npos);
  EXPECT_NE(sentence([&](Hdf5Writer& w) {
              w.write("data", far.flatten());
              w.write("label", torch::zeros({2}, torch::kLong));
            }).find("must be [clouds, points, 3]"),
            std::string::npos);
  EXPECT_NE(
      sentence_of([&] { read_hdf5_clouds(file("cut.h5", "\x89HDF\r\n\x1a\n")); }).find("cut.h5"),
      std::string::npos);
  Hdf5Writer writer(at("far.h5"));
  writer.write("data", far);
  writer.write("label", torch::zeros({2}, torch::kLong));
  writer.finish();
  EXPECT_TRUE(
      read_hdf5_clouds(at("far.h5")).points.equal(far));  // in float32 all would be one place
}

TEST_F(BadInput, FarCoordinatesKeepTheirDigits) {
  torch::manual_seed(2);
  // a cloud of some metres, 10^9 away, on a grid of 2^-10, which float64 holds there and float32
  // not
  const Tensor near = (torch::rand({400, 3}, torch::kDouble) * 4096).round() / 1024;
  PointCloud cloud;
  cloud.points = near + 1e9;
  cloud.stored = NumberType::kF64;
  for (const char* ending : {"ply", "pcd", "xyz", "csv", "off", "npy", "npz"}) {
    write_cloud(at(std::string("far.") + ending), cloud);
    EXPECT_TRUE(read_cloud(at(std::string("far.") + ending)).points.equal(cloud.points)) << ending;
  }
  write_las(at("far.las"), cloud, 1.0 / 1024);
  EXPECT_LT((read_cloud(at("far.las")).points - cloud.points).abs().max().item<double>(), 1e-6);
  const std::string sentence = sentence_of([&] { write_cloud(at("far.bin"), cloud); });
  EXPECT_NE(sentence.find("would move points by"), std::string::npos) << sentence;
  EXPECT_FALSE(fs::exists(at("far.bin")));

  const Tensor unit = in_unit_sphere(near);
  EXPECT_LT((in_unit_sphere(cloud.points) - unit).abs().max().item<float>(), 1e-6);
  EXPECT_TRUE(voxel_grid(cloud.points, 0.5)
                  .count.equal(voxel_grid(near - std::get<0>(near.min(0)), 0.5).count));
  const auto there = surface_normals(cloud.points.unsqueeze(0), 8),
             here = surface_normals(near.unsqueeze(0), 8);
  EXPECT_GT((there.direction * here.direction).sum(2).abs().min().item<double>(), 1 - 1e-6);
}

struct SourceOf {
  std::shared_ptr<DataSource> source;
  std::string sentence;
};

SourceOf clouds_under(const std::string& path, const std::string& more = "") {
  SourceOf out;
  out.sentence = sentence_of([&] {
    Registry<DataSource> sources("data");
    add_point_sources(sources);
    out.source =
        sources.build(Config::parse("type: clouds\npoints: 8\npath: " + path + "\n" + more));
  });
  return out;
}

TEST_F(BadInput, LabelledCloudsOfEveryShape) {
  EXPECT_NE(clouds_under(at("nowhere")).sentence.find("nowhere: there is no such file or folder"),
            std::string::npos);
  EXPECT_NE(clouds_under(at("")).sentence.find("there is no file in it"), std::string::npos);
  for (const char* category : {"a", "b"}) fs::create_directories(folder_ / "set" / category);
  const std::string set = at("set");
  file("set/a/empty.xyz", "");
  EXPECT_EQ(clouds_under(set).sentence,
            set + "/a/empty.xyz: the cloud has no point with finite coordinates");
  file("set/a/empty.xyz", "nan 0 0\n");
  EXPECT_EQ(clouds_under(set).sentence,
            set + "/a/empty.xyz: the cloud has no point with finite coordinates");
  fs::remove(at("set/a/empty.xyz"));

  // one point; equal points; a point that is none; 10^9 away; more points than are asked for
  file("set/a/one.xyz", "5 6 7\n");
  file("set/a/same.xyz", "1 1 1\n1 1 1\n1 1 1\n");
  file("set/b/nan.xyz", "0 0 0\nnan 1 1\n1 inf 0\n0 2 0\n");
  file("set/b/far.xyz", "1000000000 1e9 1e9\n1000000001 1e9 1e9\n");
  std::string many;
  for (int i = 0; i < 30; ++i) many += std::to_string(i) + " 0 0\n";
  file("set/b/many.xyz", many);
  const SourceOf found = clouds_under(set, "validation: 0\nfolds: 2");
  ASSERT_EQ(found.sentence, "(no error)");
  std::vector<Tensor> all;
  for (const Part part : {Part::kTrain, Part::kTest}) {
    const auto clouds = found.source->part(part);
    for (int64_t i = 0; i < clouds->size(); ++i) all.push_back(clouds->get(i).input);
  }
  ASSERT_EQ(all.size(), 5U);
  for (const auto& points : all) {
    EXPECT_EQ(points.sizes(), (std::vector<int64_t>{8, 3}));
    EXPECT_TRUE(points.isfinite().all().item<bool>());
    EXPECT_LE(points.square().sum(1).max().item<float>(), 1.0001F);
  }
  const auto notes = found.source->notes();
  ASSERT_EQ(notes.size(), 2U);
  EXPECT_EQ(notes[0], "4 clouds have fewer than 8 points; theirs are repeated");
  EXPECT_EQ(notes[1], "2 points that are not finite were left out");
  EXPECT_NE(
      clouds_under(set, "features: [intensity]").sentence.find("there is no field 'intensity'"),
      std::string::npos);
}

TEST_F(BadInput, ScenesNameWhatIsMissing) {
  const auto scene = [&](const std::string& path, const std::string& more) {
    return sentence_of([&] {
      Registry<DataSource> sources("data");
      add_point_sources(sources);
      sources.build(Config::parse("type: scenes\ntrain: [" + path + "]\n" + more));
    });
  };
  const std::string path = file("s.csv", "x,y,z,label\n0,0,0,1\n1,1,1,2\n");
  EXPECT_EQ(scene(path, ""),
            path + ": there is no field 'classification' (data.label); the file has label");
  EXPECT_EQ(scene(path, "label: label"), "(no error)");
  EXPECT_NE(scene(path, "label: label\nvalues: [1]").find("two classes at least"),
            std::string::npos);
  EXPECT_NE(scene(path, "label: label\nnames: [ground]").find("a name for each of the 2 values"),
            std::string::npos);
  EXPECT_NE(scene(path, "label: label\nblock: 1.0e-8").find("are too small"), std::string::npos);
  EXPECT_NE(scene(file("e.csv", ""), "").find("e.csv: there is no point"), std::string::npos);
}

// every model, of clouds of one place, with points far fewer than it groups
TEST_F(BadInput, ModelsTakeEqualPoints) {
  for (const char* name : {"pcm_cls", "point_mamba", "mamba3d", "pointnet2"}) {
    Registry<Model> models("model");
    add_point_models(models);
    Config model = Config::load(std::string(SERPENTINE_SOURCE_DIR) + "/configs/test/pointcloud_" +
                                name + ".yaml")
                       .child("model");
    model.set_default("classes", 3);
    const auto built = models.build(model);
    built->eval();
    const torch::NoGradGuard no_grad;
    for (const double place : {0.0, 1.0}) {
      Batch batch;
      batch.input = torch::full({2, 64, 3}, place);
      EXPECT_TRUE(built->forward(batch).isfinite().all().item<bool>()) << name << " at " << place;
    }
  }
}

}  // namespace
}  // namespace serpentine
