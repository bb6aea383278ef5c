// DICOM-SEG: every voxel of every class is where the labels have it, in millimetres of the patient.
#include "segmentation/dicom_seg.h"

#include <cmath>

#include "segmentation/dicom.h"
#include "segmentation/dicom_files.h"
#include "segmentation/files.h"
#include "segmentation/seg_file.h"

#ifdef SERPENTINE_DCMTK
#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmseg/segdoc.h>
#endif

namespace serpentine::testing {
namespace {

#ifdef SERPENTINE_DCMTK

using Vector = std::array<double, 3>;

std::string decimals(const std::vector<double>& values) {
  std::string text;
  for (const double value : values) {
    char word[32];
    std::snprintf(word, sizeof word, "%.13g", value);
    text += (text.empty() ? "" : "\\") + std::string(word);
  }
  return text;
}

struct SeriesPlace {
  Vector row, column, step;  // step: from a file to the next
};

constexpr int kSlices = 6, kRows = 4, kColumns = 5;
const Vector kFirst = {-31.5, 12.25, 700};

/// The folder of the series.
std::string put_series(const TemporaryFolder& folder, const SeriesPlace& place) {
  std::filesystem::create_directories(folder / "series");
  for (int i = 0; i < kSlices; ++i) {
    SliceFile slice;
    slice.instance = "1.2.3.4." + std::to_string(100 + i);
    slice.rows = kRows;
    slice.columns = kColumns;
    slice.orientation = decimals({place.row[0], place.row[1], place.row[2], place.column[0],
                                  place.column[1], place.column[2]});
    slice.position = decimals({kFirst[0] + i * place.step[0], kFirst[1] + i * place.step[1],
                               kFirst[2] + i * place.step[2]});
    std::ofstream(folder / ("series/s" + std::to_string(i)), std::ios::binary)
        << dicom_bytes(slice);
  }
  return folder / "series";
}

const std::vector<LabelClass> kClasses = {
    {"liver", {1}}, {"whole tumour", {2, 3}}, {"core", {3}}, {"never seen", {9}}};

std::string text_of(DcmItem& item, const DcmTagKey& key) {
  OFString value;
  item.findAndGetOFStringArray(key, value);
  return value.c_str();
}

DcmItem& inside(DcmItem& item, const DcmTagKey& key, long at = 0) {
  DcmItem* found = nullptr;
  item.findAndGetSequenceItem(key, found, at);
  if (found == nullptr) throw std::runtime_error("there is no such sequence");
  return *found;
}

std::vector<double> doubles_of(DcmItem& item, const DcmTagKey& key, unsigned long count) {
  std::vector<double> values(count);
  for (unsigned long i = 0; i < count; ++i)
    EXPECT_TRUE(item.findAndGetFloat64(key, values[i], i).good());
  return values;
}

/// Voxel (k, j, i) of the NIfTI file where a point of DICOM's axes lies.
std::array<int64_t, 3> voxel_at(const NiftiHeader& header, const Vector& point) {
  const auto affine = torch::empty({4, 4}, torch::kDouble);
  for (int64_t r = 0; r < 4; ++r)
    for (int64_t c = 0; c < 4; ++c)
      affine[r][c] = r < 3 ? header.affine[static_cast<size_t>(r)][static_cast<size_t>(c)]
                           : (c == 3 ? 1. : 0.);
  const auto world =
      torch::tensor({-point[0], -point[1], point[2], 1.}, torch::kDouble);  // right, front, head
  const auto ijk = torch::linalg_solve(affine, world);
  std::array<int64_t, 3> voxel{};
  for (int64_t axis = 0; axis < 3; ++axis) {
    const double value = ijk[2 - axis].item<double>();
    EXPECT_NEAR(value, std::round(value), 1e-3);
    voxel[static_cast<size_t>(axis)] = std::llround(value);
  }
  return voxel;
}

class DicomSeg : public ::testing::TestWithParam<SeriesPlace> {};

TEST_P(DicomSeg, HoldsEveryVoxelInItsPlace) {
  if (!dicom_available()) GTEST_SKIP() << "built without GDCM";
  const TemporaryFolder folder;
  const Volume volume = read_volume(put_series(folder, GetParam()));
  torch::manual_seed(3);
  const auto labels = torch::randint(0, 4, volume.data.sizes().slice(1), torch::kByte);
  write_labels(folder / "labels.nii.gz", labels, volume);
  write_dicom_seg(folder / "labels.dcm", labels, volume, kClasses);

  NiftiHeader header;
  const auto wanted = read_nifti(folder / "labels.nii.gz", &header)[0].to(torch::kInt);
  DcmFileFormat file;
  ASSERT_TRUE(file.loadFile((folder / "labels.dcm").c_str()).good());
  auto& seg = *file.getDataset();
  const Uint8* bytes = nullptr;
  ASSERT_TRUE(seg.findAndGetUint8Array(DCM_PixelData, bytes).good());
  auto& shared = inside(seg, DCM_SharedFunctionalGroupsSequence);
  const auto direction =
      doubles_of(inside(shared, DCM_PlaneOrientationSequence), DCM_ImageOrientationPatient, 6);
  const auto spacing = doubles_of(inside(shared, DCM_PixelMeasuresSequence), DCM_PixelSpacing, 2);
  auto left = torch::zeros({static_cast<int64_t>(kClasses.size())}, torch::kLong);
  for (size_t k = 0; k < kClasses.size(); ++k) {
    for (const auto value : kClasses[k].values)
      left[static_cast<int64_t>(k)] += wanted.eq(value).sum();
  }
  const long frames = std::stol(text_of(seg, DCM_NumberOfFrames));
  size_t bit = 0;
  for (long f = 0; f < frames; ++f) {
    auto& groups = inside(seg, DCM_PerFrameFunctionalGroupsSequence, f);
    const auto position =
        doubles_of(inside(groups, DCM_PlanePositionSequence), DCM_ImagePositionPatient, 3);
    const auto number = std::stoul(
        text_of(inside(groups, DCM_SegmentIdentificationSequence), DCM_ReferencedSegmentNumber));
    ASSERT_TRUE(number >= 1 && number <= kClasses.size());
    // the slice it refers to has that place
    auto& source = inside(inside(groups, DCM_DerivationImageSequence), DCM_SourceImageSequence);
    const auto instance = text_of(source, DCM_ReferencedSOPInstanceUID);
    EXPECT_EQ(text_of(source, DCM_SpatialLocationsPreserved), "YES");
    const int slice = std::stoi(instance.substr(instance.rfind('.') + 1)) - 100;
    for (size_t axis = 0; axis < 3; ++axis)
      EXPECT_NEAR(position[axis], kFirst[axis] + slice * GetParam().step[axis], 1e-9);
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kColumns; ++c, ++bit) {
        const bool set = (bytes[bit / 8] >> (bit % 8) & 1) != 0;
        Vector point{};
        for (size_t axis = 0; axis < 3; ++axis)
          point[axis] = position[axis] + direction[axis] * spacing[1] * c +
                        direction[axis + 3] * spacing[0] * r;
        const auto [k, j, i] = voxel_at(header, point);
        const auto& values = kClasses[number - 1].values;
        const auto value = wanted[k][j][i].item<int64_t>();
        EXPECT_EQ(set, std::find(values.begin(), values.end(), value) != values.end());
        if (set) left[static_cast<int64_t>(number - 1)] -= 1;
      }
    }
  }
  EXPECT_EQ(left.abs().sum().item<int64_t>(), 0);  // no voxel is missing
}

INSTANTIATE_TEST_SUITE_P(
    Series, DicomSeg,
    ::testing::Values(SeriesPlace{{1, 0, 0}, {0, 1, 0}, {0, 0, 3}},   // axial
                      SeriesPlace{{1, 0, 0}, {0, 1, 0}, {0, 0, -3}},  // from the head down
                      SeriesPlace{{0, 1, 0}, {0, 0, -1}, {3, 0, 0}},  // sagittal, turned round
                      SeriesPlace{{2. / 3, 2. / 3, 1. / 3},           // oblique
                                  {-2. / 3, 1. / 3, 2. / 3},
                                  {1, -2, 2}},
                      SeriesPlace{{2. / 3, 2. / 3, 1. / 3},  // oblique, turned round
                                  {-2. / 3, 1. / 3, 2. / 3},
                                  {-1, 2, -2}}));

TEST(DicomSegFile, SaysWhatItIsOf) {
  if (!dicom_available()) GTEST_SKIP() << "built without GDCM";
  const TemporaryFolder folder;
  const Volume volume = read_volume(put_series(folder, {{1, 0, 0}, {0, 1, 0}, {0, 0, 3}}));
  const auto labels = torch::ones(volume.data.sizes().slice(1), torch::kByte);
  write_dicom_seg(folder / "a.dcm", labels, volume, kClasses);
  EXPECT_FALSE(std::filesystem::exists(folder / "a.dcm.partial"));
  DcmFileFormat file;
  ASSERT_TRUE(file.loadFile((folder / "a.dcm").c_str()).good());
  auto& seg = *file.getDataset();
  EXPECT_EQ(text_of(seg, DCM_SOPClassUID), UID_SegmentationStorage);
  EXPECT_EQ(text_of(seg, DCM_Modality), "SEG");
  EXPECT_EQ(text_of(seg, DCM_SegmentationType), "BINARY");
  EXPECT_EQ(text_of(seg, DCM_PatientName), "Snake^Sam");
  EXPECT_EQ(text_of(seg, DCM_PatientID), "P 7");
  EXPECT_EQ(text_of(seg, DCM_StudyInstanceUID), "1.2.3");
  EXPECT_EQ(text_of(seg, DCM_FrameOfReferenceUID), "1.2.3.52");
  EXPECT_NE(text_of(seg, DCM_SeriesInstanceUID), "1.2.3.4");
  EXPECT_EQ(text_of(seg, DCM_ContentDate).size(), 8U);
  auto& series = inside(seg, DCM_ReferencedSeriesSequence);
  EXPECT_EQ(text_of(series, DCM_SeriesInstanceUID), "1.2.3.4");
  for (int i = 0; i < kSlices; ++i)
    EXPECT_EQ(
        text_of(inside(series, DCM_ReferencedInstanceSequence, i), DCM_ReferencedSOPInstanceUID),
        "1.2.3.4." + std::to_string(100 + i));
  for (size_t k = 0; k < kClasses.size(); ++k)
    EXPECT_EQ(text_of(inside(seg, DCM_SegmentSequence, static_cast<long>(k)), DCM_SegmentLabel),
              kClasses[k].name);
  DcmSegmentation* read = nullptr;  // and DCMTK's own checks take it
  ASSERT_TRUE(DcmSegmentation::loadFile((folder / "a.dcm").c_str(), read).good());
  EXPECT_EQ(read->getNumberOfSegments(), kClasses.size());
  EXPECT_EQ(read->getNumberOfFrames(), static_cast<size_t>(kSlices));
  delete read;
}

TEST(DicomSegFile, OfNothingHasOneEmptyFrame) {
  if (!dicom_available()) GTEST_SKIP() << "built without GDCM";
  const TemporaryFolder folder;
  const std::string series = put_series(folder, {{1, 0, 0}, {0, 1, 0}, {0, 0, 3}});
  const Volume volume = read_volume(series + "/s2");  // one slice
  write_dicom_seg(folder / "a.dcm", torch::zeros(volume.data.sizes().slice(1), torch::kByte),
                  volume, {{"L\xc3\xa9sion\\1", {1}}});
  DcmFileFormat file;
  ASSERT_TRUE(file.loadFile((folder / "a.dcm").c_str()).good());
  auto& seg = *file.getDataset();
  EXPECT_EQ(text_of(seg, DCM_NumberOfFrames), "1");
  EXPECT_EQ(text_of(inside(seg, DCM_SegmentSequence), DCM_SegmentLabel), "L__sion_1");
  const Uint8* bytes = nullptr;
  unsigned long count = 0;
  ASSERT_TRUE(seg.findAndGetUint8Array(DCM_PixelData, bytes, &count).good());
  EXPECT_TRUE(std::all_of(bytes, bytes + count, [](Uint8 byte) { return byte == 0; }));
}

TEST(DicomSegFile, NeedsAFrameOfReference) {
  if (!dicom_available()) GTEST_SKIP() << "built without GDCM";
  const TemporaryFolder folder;
  SliceFile slice;
  slice.reference = "";
  std::ofstream(folder / "s", std::ios::binary) << dicom_bytes(slice);
  const Volume volume = read_volume(folder / "s");
  const auto labels = torch::ones(volume.data.sizes().slice(1), torch::kByte);
  EXPECT_EQ(error_of([&] { write_dicom_seg(folder / "a.dcm", labels, volume, kClasses); }),
            (folder / "s") + ": has no FrameOfReferenceUID, which a DICOM-SEG refers to");
  EXPECT_FALSE(std::filesystem::exists(folder / "a.dcm"));
}

TEST(DicomSegFile, NeedsASeries) {
  const TemporaryFolder folder;
  save(folder / "a.nii.gz", torch::ones({2, 3, 4}));
  const Volume volume = read_volume(folder / "a.nii.gz");
  EXPECT_NE(error_of([&] {
              write_dicom_seg(folder / "a.dcm", volume.data[0], volume, kClasses);
            }).find("a.nii.gz: is no DICOM file or series"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder / "a.dcm"));
}

#else

TEST(DicomSegFile, SaysWhatIsMissing) {
  EXPECT_FALSE(dicom_seg_available());
  EXPECT_NE(error_of(check_dicom_seg).find("install libdcmtk-dev"), std::string::npos);
}

#endif

}  // namespace
}  // namespace serpentine::testing
