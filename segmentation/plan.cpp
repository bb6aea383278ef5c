#include "segmentation/plan.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include <torch/torch.h>

#include "core/check.h"
#include "segmentation/layers.h"
#include "segmentation/order_statistics.h"
#include "segmentation/resample.h"

namespace serpentine {
namespace {

constexpr int64_t kLeastEdge = 4;  // of the coarsest map

/// Of each axis, over cases: the median, or the tenth percentile where one axis is coarse and
/// short.
std::array<double, 3> chosen_spacing(const Fingerprint& fingerprint) {
  std::array<double, 3> spacing{};
  std::array<int64_t, 3> size{};
  const auto column = [&](size_t axis) {
    std::vector<double> values;
    for (const auto& one : fingerprint.spacings) values.push_back(one[axis]);
    return values;
  };
  for (size_t axis = 0; axis < 3; ++axis) {
    spacing[axis] = median(column(axis));
    std::vector<int64_t> sizes;
    for (const auto& one : fingerprint.sizes) sizes.push_back(one[axis]);
    size[axis] = median(sizes);
  }
  const int64_t coarse = coarse_axis(spacing);
  if (coarse < 0) return spacing;
  const auto at = static_cast<size_t>(coarse);
  bool is_short = true;
  double next = 0;
  for (size_t axis = 0; axis < 3; ++axis) {
    if (axis == at) continue;
    is_short = is_short && 3 * size[at] < size[axis];
    next = std::max(next, spacing[axis]);
  }
  if (is_short) spacing[at] = std::max(percentile(column(at), 0.1), next);
  return spacing;
}

std::array<int64_t, 3> median_size(const Fingerprint& fingerprint,
                                   const std::array<double, 3>& spacing) {
  std::array<std::vector<int64_t>, 3> sizes;
  for (size_t i = 0; i < fingerprint.sizes.size(); ++i) {
    const auto made = fingerprint.pictures
                          ? fingerprint.sizes[i]
                          : resampled_size(fingerprint.sizes[i], fingerprint.spacings[i], spacing);
    for (size_t axis = 0; axis < 3; ++axis) sizes[axis].push_back(made[axis]);
  }
  return {median(sizes[0]), median(sizes[1]), median(sizes[2])};
}

struct Topology {
  std::vector<int64_t> patch;
  std::vector<std::string> kernels, strides;
};

/// Halves axes while they are long, those of coarse spacing later; then rounds the patch up.
Topology topology_of(std::vector<int64_t> patch, std::vector<double> spacing) {
  const size_t dims = patch.size();
  Extent kernel(dims, 1), size = patch, multiple(dims, 1);
  Topology made;
  made.strides.push_back(extent_text(Extent(dims, 1)));
  for (;;) {
    std::vector<size_t> axes;
    for (size_t axis = 0; axis < dims; ++axis)
      if (size[axis] >= 2 * kLeastEdge) axes.push_back(axis);
    if (axes.empty()) break;
    double least = spacing[axes[0]];
    for (const size_t axis : axes) least = std::min(least, spacing[axis]);
    std::erase_if(axes, [&](size_t axis) { return spacing[axis] >= 2 * least; });
    if (axes.size() == 1 && size[axes[0]] < 3 * kLeastEdge) break;
    const double finest = *std::min_element(spacing.begin(), spacing.end());
    for (size_t axis = 0; axis < dims; ++axis)
      if (spacing[axis] < 2 * finest) kernel[axis] = 3;
    Extent stride(dims, 1);
    for (const size_t axis : axes) {
      stride[axis] = 2;
      spacing[axis] *= 2;
      size[axis] = (size[axis] + 1) / 2;
      multiple[axis] *= 2;
    }
    made.kernels.push_back(extent_text(kernel));
    made.strides.push_back(extent_text(stride));
  }
  made.kernels.push_back(extent_text(Extent(dims, 3)));
  for (size_t axis = 0; axis < dims; ++axis)
    made.patch.push_back((patch[axis] + multiple[axis] - 1) / multiple[axis] * multiple[axis]);
  return made;
}

std::vector<int64_t> widths(size_t stages, int64_t first, int64_t most) {
  std::vector<int64_t> features;
  for (size_t s = 0; s < stages; ++s)
    features.push_back(std::min(most, first << std::min<size_t>(s, 20)));
  return features;
}

/// Patches of equal length in millimetres, not above the median case.
std::vector<int64_t> first_patch(const std::vector<double>& spacing,
                                 const std::vector<int64_t>& most) {
  const double voxels = spacing.size() == 3 ? 256. * 256 * 256 : 2048. * 2048;
  double product = 1;
  for (const double side : spacing) product /= side;
  const double scale = std::pow(voxels / product, 1 / static_cast<double>(spacing.size()));
  std::vector<int64_t> patch;
  for (size_t axis = 0; axis < spacing.size(); ++axis)
    patch.push_back(std::clamp<int64_t>(std::llround(scale / spacing[axis]), 1, most[axis]));
  return patch;
}

void name_classes(const CaseList& list, const Fingerprint& fingerprint, SegmentationPlan& plan) {
  plan.regions = list.regions;
  plan.region_order = list.region_order;
  plan.ignore = list.ignore;
  plan.label_scale = list.label_scale;
  if (!list.classes.empty()) {
    for (const auto& one : list.classes) {
      plan.class_names.push_back(one.name);
      std::string values;
      for (const int64_t value : one.values)
        values += (values.empty() ? "" : "+") + std::to_string(value);
      plan.values.push_back(values);
    }
  } else {
    for (const auto& [value, count] : fingerprint.voxels) {
      plan.class_names.push_back(value == 0 ? "background" : "class " + std::to_string(value));
      plan.values.push_back(std::to_string(value));
    }
  }
  plan.classes = static_cast<int64_t>(plan.values.size());
}

}  // namespace

void SegmentationPlan::fields(Fields& f) {
  f("dims", dims, "2: slices or pictures, 3: volumes", {.least = 2, .most = 3});
  f("in_channels", in_channels, "channels (modalities) of the images", {.least = 1});
  f("classes", classes, "classes with the background, or regions without", {.least = 1});
  f("class_names", class_names, "their names");
  f("values", values, "of each class the value in the label files; of a region 1+2+3");
  f("region_order", region_order, "regions: the value that each writes, later over earlier");
  f("regions", regions, "classes may overlap: one yes or no for each");
  f("ignore", ignore, "label value that is not trained on; -1: none", {.least = -1});
  f("label_scale", label_scale, "pixels are divided by it: 255 for masks of 0 and 255",
    {.least = 0});
  f("spacing", spacing, "z, y, x in millimetres that volumes are resampled to", {.least = 1e-6});
  f("normalize", normalize,
    "of each channel: zscore (of the case), ct (of the data set, clipped), unit (0..1), none",
    {.choices = {"zscore", "ct", "unit", "none"}});
  f("ct", ct, "of each channel four numbers over the foreground: mean, deviation, 0.5 and 99.5 %");
  f("inside_mask", inside_mask, "zscore over the voxels that are not zero; the others stay zero");
  f("patch", patch, "z, y, x that the network sees at once; z is 1 in two dimensions",
    {.least = 1});
  f("batch", batch, "patches of a step", {.least = 1});
  f("features", features, "channels of each stage", {.least = 1});
  f("kernels", kernels, "kernel of each stage");
  f("strides", strides, "stride at each stage's begin");
  f("memory", memory, "GB that patch and batch were chosen for", {.least = 0});
  f("estimate", estimate, "GB of a training step, estimated", {.least = 0});
}

std::vector<LabelClass> SegmentationPlan::foreground() const {
  std::vector<LabelClass> found;
  for (size_t k = 0; k < values.size(); ++k) {
    LabelClass one{class_names[k], {}};
    std::stringstream list(values[k]);
    for (std::string part; std::getline(list, part, '+');) one.values.push_back(std::stoll(part));
    if (one.values != std::vector<int64_t>{0}) found.push_back(std::move(one));
  }
  return found;
}

std::vector<int64_t> SegmentationPlan::network_patch() const {
  return dims == 3 ? patch : std::vector<int64_t>(patch.begin() + 1, patch.end());
}

std::array<int64_t, 3> SegmentationPlan::multiple() const {
  std::array<int64_t, 3> product = {1, 1, 1};
  for (const auto& text : strides) {
    const auto stride = parse_extent("strides", text, dims);
    for (size_t axis = 0; axis < stride.size(); ++axis)
      product[axis + 3 - stride.size()] *= stride[axis];
  }
  return product;
}

double step_memory(const std::vector<int64_t>& patch, int64_t batch,
                   const std::vector<int64_t>& features, const std::vector<std::string>& strides,
                   int64_t classes) {
  double voxels = static_cast<double>(batch), total = 0;
  for (const int64_t side : patch) voxels *= static_cast<double>(side);
  total += voxels * 6 * static_cast<double>(classes);  // logits, their softmax, the loss
  for (size_t s = 0; s < features.size(); ++s) {
    for (const int64_t side :
         parse_extent("strides", strides[s], static_cast<int64_t>(patch.size())))
      voxels /= static_cast<double>(side);
    // two units in the encoder and two in the decoder keep two tensors each, one is joined
    total += voxels * static_cast<double>(features[s]) * 10;
  }
  return total * 4 * 1.3 / 1e9;
}

SegmentationPlan make_plan(const CaseList& list, const Fingerprint& fingerprint,
                           const PlanOptions& options) {
  SegmentationPlan plan;
  plan.dims = options.dims > 0 ? options.dims : fingerprint.pictures || fingerprint.flat ? 2 : 3;
  TORCH_CHECK(plan.dims == 2 || !fingerprint.pictures, list.path,
              ": pictures need a plan of 2 dimensions, not 3");
  plan.in_channels = fingerprint.channels;
  name_classes(list, fingerprint, plan);
  const auto spacing = chosen_spacing(fingerprint);
  plan.spacing.assign(spacing.begin(), spacing.end());
  plan.inside_mask = fingerprint.kept < 0.75;
  for (int64_t c = 0; c < plan.in_channels; ++c) {
    const auto at = static_cast<size_t>(c);
    const bool ct =
        at < list.channels.size() && (list.channels[at] == "CT" || list.channels[at] == "ct");
    plan.normalize.push_back(ct ? "ct" : "zscore");
    plan.ct.insert(plan.ct.end(), fingerprint.foreground[at].begin(),
                   fingerprint.foreground[at].end());
  }
  const auto middle = median_size(fingerprint, spacing);
  const auto skip = static_cast<size_t>(3 - plan.dims);
  const std::vector<double> sides(spacing.begin() + static_cast<std::ptrdiff_t>(skip),
                                  spacing.end());
  const std::vector<int64_t> most(middle.begin() + static_cast<std::ptrdiff_t>(skip), middle.end());
  auto patch = options.patch.empty() ? first_patch(sides, most) : options.patch;
  TORCH_CHECK(patch.size() == sides.size(), list.path, ": a patch of ", plan.dims,
              " dimensions has ", sides.size(), " numbers, got ", patch.size(), " (",
              extent_text(patch), "); data.dims (--dims of segment plan) chooses 2 or 3",
              options.dims > 0 ? "" : "; without it volumes of several slices get 3");
  const int64_t widest = options.most_features > 0 ? options.most_features
                         : plan.dims == 3          ? 320
                                                   : 512;
  const int64_t least_batch = options.batch > 0 ? options.batch : 2;
  plan.memory = options.memory;
  for (;;) {
    const auto made = topology_of(patch, sides);
    plan.features = widths(made.strides.size(), options.first_features, widest);
    plan.kernels = made.kernels;
    plan.strides = made.strides;
    plan.patch = made.patch;
    plan.estimate = step_memory(made.patch, least_batch, plan.features, plan.strides, plan.classes);
    if (plan.estimate <= plan.memory || !options.patch.empty()) break;
    size_t longest = 0;  // against the median case
    for (size_t axis = 1; axis < patch.size(); ++axis) {
      if (static_cast<double>(made.patch[axis]) * static_cast<double>(most[longest]) >
          static_cast<double>(made.patch[longest]) * static_cast<double>(most[axis]))
        longest = axis;
    }
    Extent multiple(patch.size(), 1);
    for (const auto& text : made.strides) {
      const auto stride = parse_extent("strides", text, plan.dims);
      for (size_t axis = 0; axis < stride.size(); ++axis) multiple[axis] *= stride[axis];
    }
    const int64_t shorter = made.patch[longest] - multiple[longest];
    TORCH_CHECK(shorter >= kLeastEdge, "plan: no patch fits ", plan.memory,
                " GB; give more memory or fewer first_features");
    patch = made.patch;
    patch[longest] = shorter;
  }
  if (plan.dims == 2) plan.patch.insert(plan.patch.begin(), 1);

  // more patches where memory is left, at most a twentieth of all voxels a step
  double all = static_cast<double>(fingerprint.sizes.size()), one = 1;
  for (const int64_t side : most) all *= static_cast<double>(side);
  if (plan.dims == 2) all *= static_cast<double>(middle[0]);
  for (const int64_t side : plan.patch) one *= static_cast<double>(side);
  const auto fits =
      static_cast<int64_t>(plan.memory / plan.estimate * static_cast<double>(least_batch));
  const auto share = static_cast<int64_t>(std::llround(all * 0.05 / one));
  plan.batch = options.batch > 0 ? options.batch : std::max<int64_t>(2, std::min(fits, share));
  plan.estimate =
      step_memory(plan.network_patch(), plan.batch, plan.features, plan.strides, plan.classes);
  check_plan(plan, list.path);
  return plan;
}

void check_plan(const SegmentationPlan& plan, const std::string& where) {
  const auto channels = static_cast<size_t>(plan.in_channels);
  TORCH_CHECK(static_cast<int64_t>(plan.values.size()) == plan.classes, where, ": the plan has ",
              plan.classes, " classes but ", plan.values.size(), " values");
  TORCH_CHECK(plan.classes >= (plan.regions ? 1 : 2), where,
              ": the labels hold one value only; there is nothing to tell apart");
  TORCH_CHECK(!plan.regions || plan.region_order.size() == plan.values.size(), where,
              ": region_order needs one value a region");
  TORCH_CHECK(!plan.regions || plan.classes <= 30, where, ": at most 30 regions, got ",
              plan.classes);
  TORCH_CHECK(plan.spacing.size() == 3 && plan.patch.size() == 3, where,
              ": spacing and patch need 3 numbers (z, y, x)");
  TORCH_CHECK(plan.dims == 3 || plan.patch[0] == 1, where,
              ": patches of two dimensions have one slice, got ", plan.patch[0]);
  TORCH_CHECK(plan.normalize.size() == channels && plan.ct.size() == 4 * channels, where,
              ": normalize needs one entry a channel and ct four numbers a channel");
  const auto multiple = plan.multiple();
  for (size_t axis = 0; axis < 3; ++axis) {
    TORCH_CHECK(plan.patch[axis] % multiple[axis] == 0, where,
                ": the patch must be a multiple of the strides' product ",
                extent_text(Extent(multiple.begin(), multiple.end())), ", got ",
                extent_text(plan.patch));
  }
}

std::string plan_yaml(const SegmentationPlan& plan) {
  const Config config = Config::parse("{}");
  config.read(plan);
  return "# A segmentation plan: what cases are brought to, and the network that fits them.\n"
         "# Change what you like, and train with data.plan=THIS_FILE.\n" +
         config.yaml();
}

SegmentationPlan read_plan_file(const std::string& file) {
  auto plan = Config::load(file).read<SegmentationPlan>();
  check_plan(plan, file);
  return plan;
}

}  // namespace serpentine
