// NIfTI files: what is written is read, other orders and types, orientations come back.
#include "segmentation/nifti.h"

#include <algorithm>

#include "segmentation/files.h"
#include "segmentation/volume.h"
#include "support/close.h"

namespace serpentine::testing {
namespace {

TEST(Nifti, WritesWhatItReads) {
  const TemporaryFolder folder;
  const auto voxels = torch::arange(2 * 3 * 4, torch::kShort).view({2, 3, 4});
  const Affine affine = {{{0.5, 0, 0, -3}, {0, 2, 0, 4}, {0, 0, 1.5, 7}}};
  for (const char* name : {"a.nii", "a.nii.gz"}) {
    save(folder / name, voxels, {0.5, 2, 1.5}, &affine);
    NiftiHeader header;
    const auto read = read_nifti(folder / name, &header);
    expect_equal(read[0], voxels.to(torch::kFloat));
    EXPECT_EQ(header.affine, affine);
    EXPECT_EQ(header.spacing, (std::array<double, 3>{0.5, 2, 1.5}));
    EXPECT_EQ(header.size, (std::array<int64_t, 4>{4, 3, 2, 1}));
  }
}

/// A header as another byte order's machine writes it, with slope and intercept.
TEST(Nifti, ReadsTheOtherByteOrderAndScales) {
  const TemporaryFolder folder;
  auto header = new_nifti_header({3, 1, 1}, {1, 2, 3});
  std::string raw = header.raw;
  const auto put = [&](size_t at, auto value) {
    std::memcpy(raw.data() + at, &value, sizeof value);
  };
  put(40, int16_t{3});
  for (size_t axis = 4; axis <= 7; ++axis) put(40 + 2 * axis, int16_t{1});
  put(70, int16_t{4});
  put(72, int16_t{16});
  put(108, 352.F);
  put(112, 2.F);
  put(116, -1.F);
  const std::vector<std::tuple<size_t, size_t, size_t>> runs = {
      {0, 4, 1}, {40, 2, 8}, {70, 2, 2}, {76, 4, 8}, {108, 4, 3}, {252, 2, 2}, {256, 4, 18}};
  for (const auto& [at, width, count] : runs) {
    for (size_t i = 0; i < count; ++i)
      std::reverse(raw.begin() + static_cast<std::ptrdiff_t>(at + i * width),
                   raw.begin() + static_cast<std::ptrdiff_t>(at + (i + 1) * width));
  }
  raw.resize(352, '\0');
  for (const char value : {char{1}, char{2}, char{3}}) raw += std::string{char{0}, value};
  std::ofstream(folder / "b.nii", std::ios::binary) << raw;
  NiftiHeader read;
  expect_equal(read_nifti(folder / "b.nii", &read).flatten(), torch::tensor({1.F, 3.F, 5.F}));
  EXPECT_EQ(read.spacing, (std::array<double, 3>{1, 2, 3}));
}

TEST(Nifti, ReadsTheBundledCases) {
  NiftiHeader header;
  const auto voxels = read_nifti(kSamples + "/imagesTr/hippocampus_001.nii.gz", &header);
  EXPECT_EQ(voxels.sizes(), (at::IntArrayRef{1, 35, 51, 35}));
  EXPECT_EQ(header.spacing, (std::array<double, 3>{1, 1, 1}));
}

class Orientation : public ::testing::TestWithParam<Affine> {};

TEST_P(Orientation, ComesBackWhereItWas) {
  const TemporaryFolder folder;
  const auto voxels = torch::arange(2 * 3 * 4, torch::kByte).view({2, 3, 4});
  save(folder / "in.nii.gz", voxels, {1, 2, 3}, &GetParam());
  const Volume volume = read_volume(folder / "in.nii.gz");
  write_labels(folder / "out.nii.gz", volume.data[0].to(torch::kInt), volume);
  NiftiHeader in, out;
  expect_equal(read_nifti(folder / "in.nii.gz", &in), read_nifti(folder / "out.nii.gz", &out));
  EXPECT_EQ(in.affine, out.affine);
  EXPECT_EQ(in.spacing, out.spacing);
  // the voxel at the right, front and top end is the last of the canonical volume
  const auto place = [&](int64_t i, int64_t j, int64_t k) {
    double sum = 0;
    for (const auto& row : in.affine) {
      sum += row[0] * static_cast<double>(i) + row[1] * static_cast<double>(j) +
             row[2] * static_cast<double>(k);
    }
    return sum;
  };
  double most = -1e9;
  int64_t value = 0;
  for (int64_t k = 0; k < 2; ++k) {
    for (int64_t j = 0; j < 3; ++j) {
      for (int64_t i = 0; i < 4; ++i) {
        if (place(i, j, k) <= most) continue;
        most = place(i, j, k);
        value = (k * 3 + j) * 4 + i;
      }
    }
  }
  EXPECT_EQ(volume.data.flatten()[-1].item<int64_t>(), value);
}

INSTANTIATE_TEST_SUITE_P(Axes, Orientation,
                         ::testing::Values(Affine{{{1, 0, 0, 0}, {0, 2, 0, 0}, {0, 0, 3, 0}}},
                                           Affine{{{-1, 0, 0, 5}, {0, -2, 0, 5}, {0, 0, 3, 0}}},
                                           Affine{{{0, 0, 3, 1}, {-1, 0, 0, 2}, {0, -2, 0, 3}}},
                                           Affine{{{0, 2, 0, 0}, {0, 0, -3, 0}, {1, 0, 0, 0}}}));

}  // namespace
}  // namespace serpentine::testing
