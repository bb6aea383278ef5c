// NRRD and MetaImage: what is written is read, in its place; files of other programs' making; and
// files that are wrong.
#include <algorithm>

#include "segmentation/cases.h"
#include "segmentation/files.h"
#include "segmentation/meta_image.h"
#include "segmentation/nrrd.h"
#include "segmentation/volume.h"
#include "segmentation/voxels.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

const Affine kTurned = {{{0, 0, 3, 1}, {-1.5, 0, 0, 2}, {0, -2, 0, 3}}};

void put(const std::string& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary) << bytes;
}
std::string get(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}
template <class T>
std::string bytes_of(const std::vector<T>& values, bool swapped = false) {
  std::string bytes;
  for (const T value : values) {
    std::string one(reinterpret_cast<const char*>(&value), sizeof value);
    if (swapped) std::reverse(one.begin(), one.end());
    bytes += one;
  }
  return bytes;
}
std::string nrrd(const std::string& more, const std::string& data,
                 const std::string& sizes = "2 3 1", const std::string& type = "short") {
  return "NRRD0005\n# a comment\ntype: " + type +
         "\ndimension: " + std::to_string(std::count(sizes.begin(), sizes.end(), ' ') + 1) +
         "\nsizes: " + sizes + "\n" + more + "\n" + data;
}
std::string mha(const std::string& more, const std::string& data,
                const std::string& sizes = "2 3 1", const std::string& where = "LOCAL") {
  return "ObjectType = Image\nDimSize = " + sizes + "\n" + more + "ElementDataFile = " + where +
         "\n" + data;
}
const std::vector<int16_t> kSix = {1, 2, 3, 4, 5, -6};

class VolumeFormats : public ::testing::Test {
 protected:
  void expect_six(const Volume& volume) {
    EXPECT_EQ(volume.data.sizes(), (at::IntArrayRef{1, 1, 3, 2}));
    expect_equal(volume.data.flatten(), torch::tensor({1, 2, 3, 4, 5, -6}, torch::kFloat));
  }
  void expect_says(const std::string& file, const std::string& part) {
    const auto said = error_of([&] { read_volume(file); });
    EXPECT_NE(said.find(part), std::string::npos) << "said: " << said;
    EXPECT_EQ(said.find(file.substr(0, file.rfind('.'))), 0U) << "said: " << said;
  }
  TemporaryFolder folder;
};

class WrittenFormats : public VolumeFormats, public ::testing::WithParamInterface<const char*> {};

TEST_P(WrittenFormats, ComeBackInTheirPlace) {
  const auto voxels = torch::arange(2 * 3 * 4, torch::kShort).view({2, 3, 4}) - 7;
  save(folder / "a.nii.gz", voxels, {1.5, 2, 3}, &kTurned);
  const Volume wanted = read_volume(folder / "a.nii.gz");
  const std::string file = folder / (std::string("b") + GetParam());
  write_values(file, wanted.data[0], wanted);
  const Volume found = read_volume(file);
  expect_equal(found.data, wanted.data);
  EXPECT_EQ(found.spacing, wanted.spacing);
  EXPECT_EQ(found.from, wanted.from);
  EXPECT_EQ(found.flipped, wanted.flipped);
  for (size_t row = 0; row < 3; ++row) {
    for (size_t column = 0; column < 4; ++column)
      EXPECT_NEAR(found.header->affine[row][column], kTurned[row][column], 1e-6);
  }
  write_labels(file, wanted.data[0].abs(), wanted);
  expect_equal(read_labels(file, wanted), wanted.data[0].abs().to(torch::kInt));
  EXPECT_EQ(case_name(file), "b");
  EXPECT_EQ(result_ending(file), GetParam());
}

TEST_P(WrittenFormats, WithoutOrientation) {
  save(folder / "a.nii.gz", torch::ones({2, 3, 4}), {1.5, 2, 3});
  const Volume wanted = read_volume(folder / "a.nii.gz");
  const std::string file = folder / (std::string("b") + GetParam());
  write_labels(file, wanted.data[0], wanted);
  const Volume found = read_volume(file);
  EXPECT_EQ(found.spacing, wanted.spacing);
  EXPECT_FALSE(found.header->oriented);
}

TEST_P(WrittenFormats, CutOff) {
  const auto image = torch::rand({8, 8, 8});
  save(folder / "a.nii.gz", image);
  const Volume whole = read_volume(folder / "a.nii.gz");
  const std::string file = folder / (std::string("b") + GetParam());
  write_values(file, whole.data[0], whole);
  const auto bytes = get(file);
  put(file, bytes.substr(0, bytes.size() - 300));
  expect_says(file, "of 512 voxels could be read");
  auto bad = bytes;
  for (size_t at = bad.size() - 600; at < bad.size() - 560; ++at) bad[at] = 'x';
  put(file, bad);
  const auto read = [&] { return read_volume(file).data; };
  if (error_of(read).empty()) {
    EXPECT_FALSE(read()[0].equal(whole.data[0]));  // what deflate cannot notice
  }
}

INSTANTIATE_TEST_SUITE_P(Endings, WrittenFormats, ::testing::Values(".nrrd", ".mha"));

TEST_F(VolumeFormats, NrrdOfEveryKind) {
  const auto raw = bytes_of(kSix);
  put(folder / "a.nrrd", nrrd("encoding: raw\nendian: little\n", raw));
  expect_six(read_volume(folder / "a.nrrd"));
  put(folder / "b.nrrd", nrrd("encoding: gzip\nendian: big\nspacings: 0.5 2 3\n",
                              packed_bytes(bytes_of(kSix, true), Packing::kGzip)));
  const Volume big = read_volume(folder / "b.nrrd");
  expect_six(big);
  EXPECT_EQ(big.spacing, (std::array<double, 3>{3, 2, 0.5}));
  put(folder / "c.raw.gz", packed_bytes(raw, Packing::kGzip));
  put(folder / "c.nhdr", nrrd("encoding: gzip\nendian: little\ndata file: c.raw.gz\n", ""));
  expect_six(read_volume(folder / "c.nhdr"));
  put(folder / "d.nrrd", nrrd("encoding: raw\n", "\1\2\3\4\5\6", "2 3", "unsigned char"));
  EXPECT_EQ(read_volume(folder / "d.nrrd").data.sizes(), (at::IntArrayRef{1, 1, 3, 2}));
}

TEST_F(VolumeFormats, NrrdChannelsLieOnAnyAxis) {
  const std::string space =
      "encoding: raw\nendian: little\nspace: left-posterior-superior\nspace origin: (1,2,3)\n"
      "space directions: ";
  put(folder / "first.nrrd",
      nrrd(space + "none (2,0,0) (0,2,0) (0,0,5)\n", bytes_of(kSix), "2 3 1 1"));
  const Volume first = read_volume(folder / "first.nrrd");
  EXPECT_EQ(first.data.sizes(), (at::IntArrayRef{2, 1, 1, 3}));
  // LPS turns both axes of the plane
  expect_equal(first.data[1].flatten(), torch::tensor({-6, 4, 2}, torch::kFloat));
  EXPECT_EQ(first.spacing, (std::array<double, 3>{5, 2, 2}));
  EXPECT_EQ(first.header->affine[0][3], -1);
  EXPECT_EQ(first.header->affine[2][3], 3);
  put(folder / "last.nrrd",
      nrrd(space + "(2,0,0) (0,2,0) (0,0,5) none\n", bytes_of(kSix), "3 1 1 2"));
  const Volume last = read_volume(folder / "last.nrrd");
  expect_equal(last.data[1].flatten(), torch::tensor({-6, 5, 4}, torch::kFloat));
}

TEST_F(VolumeFormats, NrrdThatIsWrong) {
  const auto raw = bytes_of(kSix);
  const auto says = [&](const std::string& bytes, const std::string& part) {
    put(folder / "a.nrrd", bytes);
    expect_says(folder / "a.nrrd", part);
  };
  says("", "is not a NRRD file");
  says("NIFTI\n\n", "is not a NRRD file");
  says(std::string(100, '\0'), "has no header of text");
  says(nrrd("encoding: raw\nendian: little\n", raw.substr(0, 7)), "3 of 6 voxels could be read");
  says(nrrd("encoding: raw\n", raw, "2 3 100000"), "of 600000 voxels could be read");
  says(nrrd("encoding: raw\n", raw, "2 3 1000000000"), "of 6000000000 voxels could be read");
  says(nrrd("encoding: raw\n", raw, "2 3 10000000000"), "2^34 voxels at most");
  says(nrrd("encoding: raw\n", raw, "2 -3 1"), "sizes are whole numbers");
  says(nrrd("encoding: bzip2\n", raw), "is encoded as 'bzip2'");
  says(nrrd("encoding: raw\nbyte skip: -1\n", raw), "has a `byte skip`");
  says(nrrd("encoding: raw\n", raw, "2 3 1", "block"), "type 'block'");
  says(nrrd("encoding: raw\nspace directions: (1,0,0) (0,1,0)\n", raw), "2 directions for 3 axes");
  says(nrrd("encoding: raw\nspace: RAS\nspace directions: (0,0,0) (0,1,0) (0,0,1)\n", raw),
       "spacing 0");
  says(nrrd("encoding: raw\nspacings: 1 x 1\n", raw), "no list of numbers");
  says(nrrd("encoding: raw\n", raw, "1 2 3 1 1"), "5 axes");
  put(folder / "b.nhdr", nrrd("encoding: raw\ndata file: nowhere.raw\n", ""));
  EXPECT_NE(error_of([&] { read_volume(folder / "b.nhdr"); }).find("nowhere.raw: cannot be opened"),
            std::string::npos);
}

TEST_F(VolumeFormats, MetaImageOfEveryKind) {
  const auto raw = bytes_of(kSix);
  put(folder / "a.mha", mha("NDims = 3\nElementType = MET_SHORT\n", raw));
  expect_six(read_volume(folder / "a.mha"));
  put(folder / "b.mha", mha("ElementType = MET_SHORT\nBinaryDataByteOrderMSB = True\n"
                            "CompressedData = True\nElementSpacing = 0.5 2 3\n",
                            packed_bytes(bytes_of(kSix, true), Packing::kZlib)));
  const Volume big = read_volume(folder / "b.mha");
  expect_six(big);
  EXPECT_EQ(big.spacing, (std::array<double, 3>{3, 2, 0.5}));
  put(folder / "c.raw", raw);
  put(folder / "c.mhd", mha("ElementType = MET_SHORT\n", "", "2 3 1", "c.raw"));
  expect_six(read_volume(folder / "c.mhd"));
  put(folder / "d.mha", mha("ElementType = MET_SHORT\nElementNumberOfChannels = 2\n", raw, "3 1"));
  const Volume vectors = read_volume(folder / "d.mha");
  expect_equal(vectors.data.flatten(), torch::tensor({1, 3, 5, 2, 4, -6}, torch::kFloat));
  put(folder / "e.mha", mha("NDims = 4\nElementType = MET_SHORT\nElementSpacing = 1 1 2 1\n"
                            "TransformMatrix = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n"
                            "Offset = 1 2 3 0\n",
                            raw, "3 1 1 2"));
  const Volume times = read_volume(folder / "e.mha");
  EXPECT_EQ(times.data.sizes(), (at::IntArrayRef{2, 1, 1, 3}));
  expect_equal(times.data[1].flatten(), torch::tensor({-6, 5, 4}, torch::kFloat));
  EXPECT_EQ(times.header->affine[1][3], -2);
}

TEST_F(VolumeFormats, MetaImageThatIsWrong) {
  const auto raw = bytes_of(kSix);
  const auto says = [&](const std::string& bytes, const std::string& part) {
    put(folder / "a.mha", bytes);
    expect_says(folder / "a.mha", part);
  };
  const std::string type = "ElementType = MET_SHORT\n";
  says("", "is not a MetaImage file");
  says("hello\n", "is not a MetaImage file");
  says(mha(type, raw.substr(0, 5)), "2 of 6 voxels could be read");
  says(mha(type + "ElementNumberOfChannels = 2147483648\n", raw, "4294967296 1"),
       "more than 2^34 numbers");
  says(mha(type + "CompressedData = True\n", raw), "0 of 6 voxels could be read");
  says(mha(type + "CompressedData = True\n", packed_bytes(raw, Packing::kZlib).substr(0, 9)),
       "of 6 voxels could be read");
  says(mha(type, raw, "2 3 10000000000"), "2^34 voxels at most");
  says(mha(type, raw, "2"), "two to four are understood");
  says(mha(type + "NDims = 4\n", raw), "says NDims 4 and gives 3 sizes");
  says(mha("ElementType = MET_STRING\n", raw), "type 'MET_STRING'");
  says(mha(type + "ElementSpacing = 0 1 1\n", raw), "spacing 0");
  says(mha(type + "TransformMatrix = 1 0 0 1\n", raw), "of another length than NDims");
  says(mha(type + "HeaderSize = -1\n", raw), "has a HeaderSize");
  says(mha(type, raw, "2 3 1", "LIST"), "in several files");
}

TEST_F(VolumeFormats, CasesOfMixedFormats) {
  const auto one = ball(6, 7, 8, 2);
  save(folder / "plain/a.nii.gz", one.image);
  const Volume place = read_volume(folder / "plain/a.nii.gz");
  for (const char* sub : {"images", "labels"}) std::filesystem::create_directories(folder / sub);
  write_values(folder / "images/a.nrrd", place.data[0], place);
  write_labels(folder / "labels/a.mha", one.labels, place);
  const auto list = find_cases(folder.path());
  ASSERT_EQ(list.cases.size(), 1U);
  EXPECT_EQ(list.cases[0].name, "a");
  const auto labels = read_labels(list.cases[0].label, read_channels(list.cases[0].images));
  expect_equal(labels, one.labels.to(torch::kInt));
}

}  // namespace
}  // namespace serpentine::testing
