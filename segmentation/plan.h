// The plan of a data set: what its cases are brought to, and the network that fits.
//
// Fingerprint, then rules, as nnU-Net (Isensee et al., Nature Methods 2021, supplementary note 3):
// median spacing, patch and batch from a memory budget, strides until an axis is short. Written as
// YAML that a person can read and change.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "core/config.h"
#include "segmentation/cases.h"

namespace serpentine {

struct SegmentationPlan {
  int64_t dims = 3, in_channels = 1, classes = 2;
  std::vector<std::string> class_names;
  std::vector<std::string> values;    // of each class: "1", or "1+2+3" of a region
  std::vector<int64_t> region_order;  // regions only: the value that each writes
  bool regions = false;
  int64_t ignore = -1;
  double label_scale = 0;
  std::vector<double> spacing;         // z, y, x in millimetres
  std::vector<std::string> normalize;  // of each channel: zscore, ct, unit or none
  std::vector<double> ct;              // of each channel: mean, deviation, 0.5 and 99.5 percent
  bool inside_mask = false;            // zscore over what is not zero
  std::vector<int64_t> patch;          // z, y, x; z is 1 in two dimensions
  int64_t batch = 2;
  std::vector<int64_t> features;
  std::vector<std::string> kernels, strides;
  double memory = 8;    // GB that the patch and batch were chosen for
  double estimate = 0;  // GB of a training step, estimated
  void fields(Fields& f);

  /// The classes without the background, with the values that their voxels have in label files.
  std::vector<LabelClass> foreground() const;
  /// The patch without the axis of one slice.
  std::vector<int64_t> network_patch() const;
  /// Sizes of patches must be multiples of these (z, y, x).
  std::array<int64_t, 3> multiple() const;
};

/// What the rules look at; over all labelled cases.
struct Fingerprint {
  std::vector<std::array<double, 3>> spacings;  // of each case
  std::vector<std::array<int64_t, 3>> sizes;    // cropped to what is not zero
  double kept = 1;                              // median share of voxels that cropping kept
  int64_t channels = 1;
  bool pictures = false;
  bool flat = false;                              // every case is one slice (axis z)
  std::map<int64_t, int64_t> voxels;              // of each label value
  std::vector<std::array<double, 4>> foreground;  // a channel: mean, deviation, percentiles
  std::vector<std::string> notes;
};

struct PlanOptions {
  int64_t dims = 0;           // 0: 2 for pictures and single slices, else 3
  double memory = 8;          // GB
  int64_t most_features = 0;  // 0: 320 in 3-D, 512 in 2-D
  int64_t first_features = 32;
  std::vector<int64_t> patch;  // instead of the rule
  int64_t batch = 0;
};

/// Reads every case once. Cases that cannot be used are left out of `list`, with a note.
Fingerprint take_fingerprint(CaseList& list);

SegmentationPlan make_plan(const CaseList& list, const Fingerprint& fingerprint,
                           const PlanOptions& options);

/// Throws a sentence where the plan contradicts itself.
void check_plan(const SegmentationPlan& plan, const std::string& where);

std::string plan_yaml(const SegmentationPlan& plan);
SegmentationPlan read_plan_file(const std::string& file);

/// GB of a training step of a U-Net of these widths: activations of forward and backward.
double step_memory(const std::vector<int64_t>& patch, int64_t batch,
                   const std::vector<int64_t>& features, const std::vector<std::string>& strides,
                   int64_t classes);

}  // namespace serpentine
