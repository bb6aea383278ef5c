// The fingerprint of a data set: one reading of every case.
#include <cmath>
#include <numeric>
#include <stdexcept>

#include <torch/torch.h>

#include "core/io/progress.h"
#include "segmentation/order_statistics.h"
#include "segmentation/plan.h"
#include "segmentation/prepare.h"

namespace serpentine {
namespace {

constexpr int64_t kSamplesACase = 10000;  // voxels of the foreground, for percentiles

// Both go slice by slice: sorted values and indices of a large volume take many times its memory.

/// Adds the voxels of each value; returns how many are above 0.
int64_t count_values(const torch::Tensor& labels, std::map<int64_t, int64_t>& voxels) {
  int64_t labelled = 0;
  for (int64_t z = 0; z < labels.size(0); ++z) {
    const auto counted = torch::_unique2(labels[z], true, false, true);
    const auto &values = std::get<0>(counted), &counts = std::get<2>(counted);
    for (int64_t i = 0; i < values.numel(); ++i) {
      const auto value = values[i].item<int64_t>(), count = counts[i].item<int64_t>();
      voxels[value] += count;
      if (value > 0) labelled += count;
    }
  }
  return labelled;
}

/// Adds every n-th labelled voxel's intensity to each channel's samples.
void take_samples(const torch::Tensor& data, const torch::Tensor& labels, int64_t labelled,
                  std::vector<std::vector<double>>& samples) {
  const int64_t step = std::max<int64_t>(1, labelled / kSamplesACase);
  int64_t seen = 0;
  for (int64_t z = 0; z < labels.size(0); ++z) {
    const auto where = labels[z].gt(0).flatten().nonzero().flatten();
    const int64_t count = where.numel(), first = (step - seen % step) % step;
    seen += count;
    if (first >= count) continue;
    const auto rows = where.slice(0, first, count, step);
    for (int64_t c = 0; c < data.size(0); ++c) {
      const auto picked = data[c][z].flatten().index_select(0, rows).to(torch::kDouble);
      const auto* begin = picked.const_data_ptr<double>();
      auto& all = samples[static_cast<size_t>(c)];
      all.insert(all.end(), begin, begin + picked.numel());
    }
  }
}

}  // namespace

Fingerprint take_fingerprint(CaseList& list) {
  Fingerprint found;
  std::vector<CaseFiles> usable;
  std::vector<double> kept;
  std::vector<std::vector<double>> foreground;
  Progress progress("reading", static_cast<int64_t>(list.cases.size()));
  for (const auto& files : list.cases) {
    try {
      const Volume volume = read_channels(files.images);
      check_finite(volume);
      const auto labels = read_labels(files.label, volume);
      const int64_t channels = volume.data.size(0);
      if (usable.empty()) {
        found.channels = channels;
        found.pictures = volume.picture;
        found.flat = true;
        foreground.resize(static_cast<size_t>(channels));
      }
      if (channels != found.channels) {
        throw std::runtime_error(volume.name + ": has " + std::to_string(channels) +
                                 " channels, the first case " + std::to_string(found.channels));
      }
      found.flat = found.flat && volume.data.size(1) == 1;
      const Box box = nonzero_box(volume.data);
      found.spacings.push_back(volume.spacing);
      found.sizes.push_back(box.size());
      const auto inside = cropped(volume.data, box).numel();
      kept.push_back(static_cast<double>(inside) / static_cast<double>(volume.data.numel()));
      const int64_t labelled = count_values(labels, found.voxels);
      if (labelled == 0) found.notes.push_back(files.name + ": its label is empty");
      take_samples(volume.data, labels, labelled, foreground);
      usable.push_back(files);
    } catch (const std::exception& error) {
      const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
      const std::string why = torch_error ? torch_error->what_without_backtrace() : error.what();
      found.notes.push_back(files.name + ": left out; " + why);
    }
    progress.update(static_cast<int64_t>(usable.size()));
  }
  progress.finish();
  TORCH_CHECK(!usable.empty(), list.path, ": none of its ", list.cases.size(),
              " cases can be used; the first: ", found.notes.empty() ? "" : found.notes[0]);
  list.cases = std::move(usable);
  found.kept = median(kept);

  // masks of 0 and 255 are 0 and 1
  if (list.classes.empty() && found.voxels.size() == 2 && found.voxels.count(0) == 1 &&
      found.voxels.count(255) == 1) {
    list.label_scale = 255;
    found.voxels[1] = found.voxels[255];
    found.voxels.erase(255);
  }
  TORCH_CHECK(found.voxels.size() <= 256, list.path, ": the labels hold ", found.voxels.size(),
              " different values; are these label files?");
  for (auto& values : foreground) {
    if (values.empty()) values.push_back(0);
    const double count = static_cast<double>(values.size());
    const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
    double square = 0;
    for (const double value : values) square += (value - mean) * (value - mean);
    found.foreground.push_back(
        {mean, std::sqrt(square / count), percentile(values, 0.005), percentile(values, 0.995)});
  }
  return found;
}

}  // namespace serpentine
