#include "segmentation/dicom_seg.h"

#include <cmath>

#include <torch/torch.h>

#include "segmentation/dicom.h"
#include "segmentation/draw.h"
#include "segmentation/file_error.h"
#include "segmentation/seg_file.h"

namespace serpentine {

void write_dicom_seg(const std::filesystem::path& file, const torch::Tensor& labels,
                     const Volume& image, const std::vector<LabelClass>& classes) {
  check_dicom_seg();
  if (!is_dicom_path(image.name))
    fail_file(image.name, "is no DICOM file or series, and a DICOM-SEG refers to one");
  TORCH_CHECK(!classes.empty(), file.string(), ": there is no class but the background");
  const DicomStack stack = dicom_stack(image.name);
  const auto voxels = to_file_axes(labels.to(torch::kCPU), image);  // [slices, rows, columns]
  const auto& first = stack.slices[0];
  TORCH_CHECK(voxels.size(0) == static_cast<int64_t>(stack.slices.size()) &&
                  voxels.size(1) == first.rows && voxels.size(2) == first.columns,
              image.name, ": its labels are ", voxels.sizes(), " where the series is ",
              stack.slices.size(), " x ", first.rows, " x ", first.columns);
  SegContents contents;
  for (const auto& slice : stack.slices) contents.sources.push_back(slice.file);
  contents.rows = first.rows;
  contents.columns = first.columns;
  const auto& step = stack.step;
  if (stack.slices.size() > 1)
    contents.between = std::sqrt(step[0] * step[0] + step[1] * step[1] + step[2] * step[2]);
  for (const auto& one : classes)
    contents.segments.push_back({one.name, label_colour(one.values.at(0))});
  contents.frame = [&](size_t segment, size_t slice, uint8_t* pixels) {
    const auto& values = classes[segment].values;
    const auto plane = voxels[static_cast<int64_t>(slice)];
    auto mask = plane.eq(values[0]);
    for (size_t i = 1; i < values.size(); ++i) mask.logical_or_(plane.eq(values[i]));
    if (!mask.any().item<bool>()) return false;
    const auto* from = mask.const_data_ptr<bool>();
    std::copy(from, from + mask.numel(), pixels);
    return true;
  };
  write_seg_file(file.string(), contents);
}

}  // namespace serpentine
