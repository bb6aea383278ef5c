#include "segmentation/dicom.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <stdexcept>

#include <torch/torch.h>

#include "segmentation/file_error.h"

namespace serpentine {
namespace {

using Point = std::array<double, 3>;

constexpr double kSameDirection = 1e-3;  // of a direction's cosines
constexpr double kUneven = 0.02;         // of the distance between slices; positions are rounded

bool has_dicom_mark(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  char head[132] = {};
  stream.read(head, sizeof head);
  return stream.gcount() == sizeof head && std::string(head + 128, 4) == "DICM";
}

Point cross(const Point& a, const Point& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}
double dot(const Point& a, const Point& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
Point minus(const Point& a, const Point& b) { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }
Point along_row(const DicomSlice& slice) {
  const auto& o = *slice.orientation;
  return {o[0], o[1], o[2]};
}
Point along_column(const DicomSlice& slice) {
  const auto& o = *slice.orientation;
  return {o[3], o[4], o[5]};
}

std::string base_name(const DicomSlice& slice) {
  return std::filesystem::path(slice.file).filename().string();
}

std::string millimetres(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g mm", value);
  return text;
}

std::vector<DicomSlice> slices_in(const std::filesystem::path& path) {
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_regular_file(path)) {
    files.push_back(path);
  } else {
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      if (entry.is_regular_file() && has_dicom_mark(entry.path())) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
  }
  std::vector<DicomSlice> slices;
  for (const auto& file : files) {
    if (auto slice = read_dicom_slice(file)) slices.push_back(std::move(*slice));
  }
  if (slices.empty()) fail_file(path, "holds no DICOM image");
  return slices;
}

void check_one_series(const std::string& path, const std::vector<DicomSlice>& slices) {
  std::map<std::string, std::pair<std::string, int64_t>> series;
  for (const auto& slice : slices) {
    auto& [modality, count] = series[slice.series];
    modality = slice.modality;
    ++count;
  }
  if (series.size() == 1) return;
  std::string list;
  for (const auto& [name, what] : series) {
    list += (list.empty() ? "" : ", ") + name + " (" + what.first + ", " +
            std::to_string(what.second) + (what.second == 1 ? " image)" : " images)");
  }
  fail_file(path, "holds " + std::to_string(series.size()) + " series: " + list +
                      "; give each a folder of its own");
}

/// Slices of one size, grey, each with its place; all in the first one's direction.
void check_alike(const std::vector<DicomSlice>& slices) {
  const auto& first = slices[0];
  for (const auto& slice : slices) {
    if (slice.frames != 1)
      fail_file(slice.file, "holds " + std::to_string(slice.frames) +
                                " frames; one image a file is understood");
    if (slice.samples != 1) fail_file(slice.file, "is in colours; a volume is grey");
    if (!slice.spacing || !((*slice.spacing)[0] > 0) || !((*slice.spacing)[1] > 0))
      fail_file(slice.file, "has no PixelSpacing");
    if (!slice.position || !slice.orientation)
      fail_file(slice.file,
                "does not say where its slice lies (ImagePositionPatient, "
                "ImageOrientationPatient)");
    if (slice.rows != first.rows || slice.columns != first.columns) {
      fail_file(slice.file, "has " + std::to_string(slice.rows) + " x " +
                                std::to_string(slice.columns) + " pixels where " +
                                base_name(first) + " has " + std::to_string(first.rows) + " x " +
                                std::to_string(first.columns));
    }
    for (size_t i = 0; i < 6; ++i) {
      if (std::abs((*slice.orientation)[i] - (*first.orientation)[i]) > kSameDirection)
        fail_file(slice.file, "lies in another direction than " + base_name(first));
    }
    for (size_t i = 0; i < 2; ++i) {
      if (std::abs((*slice.spacing)[i] - (*first.spacing)[i]) > 1e-3 * (*first.spacing)[i])
        fail_file(slice.file, "has another PixelSpacing than " + base_name(first));
    }
  }
}

/// Sorts the slices along their normal; returns the step from one to the next.
Point stack_slices(const std::string& path, std::vector<DicomSlice>& slices) {
  const Point normal = cross(along_row(slices[0]), along_column(slices[0]));
  const auto height = [&](const DicomSlice& slice) { return dot(*slice.position, normal); };
  std::stable_sort(slices.begin(), slices.end(),
                   [&](const auto& a, const auto& b) { return height(a) < height(b); });
  if (slices.size() == 1) {
    const double thick = slices[0].thickness > 0 ? slices[0].thickness : 1;
    return {normal[0] * thick, normal[1] * thick, normal[2] * thick};
  }
  std::vector<double> gaps;
  for (size_t i = 1; i < slices.size(); ++i)
    gaps.push_back(height(slices[i]) - height(slices[i - 1]));
  auto sorted = gaps;
  std::sort(sorted.begin(), sorted.end());
  const double usual = sorted[sorted.size() / 2];
  for (size_t i = 0; i < gaps.size(); ++i) {
    const std::string pair = base_name(slices[i]) + " and " + base_name(slices[i + 1]);
    if (gaps[i] < 0.01 * usual || usual < 1e-4)
      fail_file(path, pair + " lie at one place; a series over time is not one volume");
    const double times = gaps[i] / usual;
    if (std::abs(times - 1) <= kUneven) continue;
    const auto missing = std::llround(times) - 1;
    if (missing >= 1 && std::abs(times - static_cast<double>(missing + 1)) < 0.1) {
      fail_file(path, std::to_string(missing) + (missing == 1 ? " slice is" : " slices are") +
                          " missing between " + pair + ", which are " + millimetres(gaps[i]) +
                          " apart; the others " + millimetres(usual));
    }
    fail_file(path, "its slices are not evenly spaced: " + pair + " are " + millimetres(gaps[i]) +
                        " apart, the others " + millimetres(usual));
  }
  const auto steps = static_cast<double>(slices.size() - 1);
  Point step = minus(*slices.back().position, *slices.front().position);
  for (double& part : step) part /= steps;
  const double length = std::sqrt(dot(step, step));
  if (std::abs(dot(step, normal)) < 0.9998 * length)  // more than one degree
    fail_file(path, "its slices are stacked askew (a tilted gantry); resample it first");
  return step;
}

}  // namespace

bool is_dicom_path(const std::filesystem::path& path) {
  if (std::filesystem::is_regular_file(path)) return has_dicom_mark(path);
  if (!std::filesystem::is_directory(path)) return false;
  const std::filesystem::directory_iterator entries(path);
  return std::any_of(begin(entries), end(entries), [](const auto& entry) {
    return entry.is_regular_file() && has_dicom_mark(entry.path());
  });
}

DicomStack dicom_stack(const std::filesystem::path& path) {
  DicomStack stack;
  stack.slices = slices_in(path);
  check_one_series(path.string(), stack.slices);
  check_alike(stack.slices);
  stack.step = stack_slices(path.string(), stack.slices);
  return stack;
}

torch::Tensor read_dicom(const std::filesystem::path& path, NiftiHeader* place) {
  const auto [slices, step] = dicom_stack(path);
  const auto& first = slices[0];
  const auto depth = static_cast<int64_t>(slices.size());
  auto voxels = torch::empty({1, depth, first.rows, first.columns});
  auto* values = voxels.mutable_data_ptr<float>();
  for (const auto& slice : slices) {
    read_dicom_pixels(slice, values);
    values += first.rows * first.columns;
  }
  if (place == nullptr) return voxels;
  const Point row = along_row(first), column = along_column(first);
  const auto [between_rows, between_columns] = *first.spacing;
  Affine affine = {};
  for (size_t axis = 0; axis < 3; ++axis) {
    const double sign = axis < 2 ? -1 : 1;  // left and back become right and front
    affine[axis] = {sign * row[axis] * between_columns, sign * column[axis] * between_rows,
                    sign * step[axis], sign * (*first.position)[axis]};
  }
  *place = new_nifti_header({first.columns, first.rows, depth},
                            {between_columns, between_rows, std::sqrt(dot(step, step))}, &affine);
  return voxels;
}

}  // namespace serpentine
