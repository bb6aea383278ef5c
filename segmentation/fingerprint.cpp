// The fingerprint of a data set: one reading of every case.
#include <cmath>
#include <numeric>
#include <optional>
#include <set>
#include <stdexcept>

#include <torch/torch.h>

#include "core/io/progress.h"
#include "segmentation/file_error.h"
#include "segmentation/order_statistics.h"
#include "segmentation/plan.h"
#include "segmentation/prepare.h"
#include "segmentation/text_header.h"

namespace serpentine {
namespace {

constexpr int64_t kSamplesACase = 10000;  // voxels of the foreground, for percentiles
constexpr size_t kMostUnnamed = 64;       // values that are believed without names for them

/// What is kept of one case until it is known what most cases are.
struct ReadCase {
  CaseFiles files;
  int64_t channels = 0;
  bool picture = false, flat = false;
  std::array<double, 3> spacing{};
  std::array<int64_t, 3> size{};
  double kept = 1;
  std::map<int64_t, int64_t> voxels;         // of each label value
  std::vector<std::vector<double>> samples;  // of each channel
};

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

ReadCase read_case(const CaseFiles& files) {
  const Volume volume = read_channels(files.images);
  check_finite(volume);
  const auto labels = read_labels(files.label, volume);
  ReadCase one;
  one.files = files;
  one.channels = volume.data.size(0);
  one.picture = volume.picture;
  one.flat = volume.data.size(1) == 1;
  one.spacing = volume.spacing;
  const Box box = nonzero_box(volume.data);
  one.size = box.size();
  one.kept = static_cast<double>(cropped(volume.data, box).numel()) /
             static_cast<double>(volume.data.numel());
  const int64_t labelled = count_values(labels, one.voxels);
  one.samples.resize(static_cast<size_t>(one.channels));
  take_samples(volume.data, labels, labelled, one.samples);
  return one;
}

/// Throws for a value that dataset.json does not know.
void check_known(const std::set<int64_t>& known, const ReadCase& one) {
  for (const auto& [value, count] : one.voxels) {
    if (!known.empty() && known.count(value) == 0) {
      fail_file(one.files.label, "holds the value " + std::to_string(value) +
                                     ", which no class of dataset.json has");
    }
  }
}

std::set<int64_t> known_values(const CaseList& list) {
  std::set<int64_t> known;
  if (list.classes.empty()) return known;
  for (const auto& one : list.classes) known.insert(one.values.begin(), one.values.end());
  if (list.regions) known.insert(0);
  if (list.ignore >= 0) known.insert(list.ignore);
  return known;
}

/// The value that most cases have; of equally frequent ones that of the first case.
template <class Of>
auto most_frequent(const std::vector<ReadCase>& cases, const Of& of) {
  std::map<decltype(of(cases[0])), int64_t> counts;
  for (const auto& one : cases) ++counts[of(one)];
  auto best = of(cases.at(0));
  for (const auto& one : cases)
    if (counts[of(one)] > counts[best]) best = of(one);
  return best;
}

/// Leaves out cases of another kind than most; so one odd file does not decide for all others.
void keep_alike(const CaseList& list, std::vector<ReadCase>& cases, Fingerprint& found) {
  const auto drop = [&](const auto& odd, const auto& why) {
    std::erase_if(cases, [&](const ReadCase& one) {
      if (!odd(one)) return false;
      found.notes.push_back(one.files.name + ": left out; " + one.files.images[0] + ": " +
                            why(one));
      return true;
    });
  };
  found.pictures = most_frequent(cases, [](const ReadCase& one) { return one.picture; });
  drop([&](const ReadCase& one) { return one.picture != found.pictures; },
       [](const ReadCase& one) {
         return std::string(one.picture ? "is a picture, most cases are volumes"
                                        : "is a volume, most cases are pictures");
       });
  const auto declared = static_cast<int64_t>(list.channels.size());
  bool fits = false;
  for (const auto& one : cases) fits = fits || one.channels == declared;
  found.channels =
      fits ? declared : most_frequent(cases, [](const ReadCase& one) { return one.channels; });
  if (declared > 0 && !fits) {
    found.notes.push_back(list.path + ": dataset.json names " + std::to_string(declared) +
                          " channels, the images have " + std::to_string(found.channels));
  }
  drop([&](const ReadCase& one) { return one.channels != found.channels; },
       [&](const ReadCase& one) {
         return "has " + std::to_string(one.channels) + " channels, " +
                (fits ? "dataset.json names " : "most cases have ") +
                std::to_string(found.channels);
       });
}

void add_case(ReadCase& one, Fingerprint& found, std::vector<std::vector<double>>& foreground) {
  found.flat = found.flat && one.flat;
  found.spacings.push_back(one.spacing);
  found.sizes.push_back(one.size);
  int64_t labelled = 0;
  for (const auto& [value, count] : one.voxels) {
    found.voxels[value] += count;
    if (value > 0) labelled += count;
  }
  if (labelled == 0) found.notes.push_back(one.files.name + ": its label is empty");
  const auto ending = lower_case(std::filesystem::path(one.files.label).extension().string());
  if ((ending == ".jpg" || ending == ".jpeg") && one.voxels.size() > 2) {
    found.notes.push_back(one.files.label + ": holds " + std::to_string(one.voxels.size()) +
                          " values; JPEG changes values, so save masks as PNG");
  }
  for (size_t c = 0; c < foreground.size(); ++c)
    foreground[c].insert(foreground[c].end(), one.samples[c].begin(), one.samples[c].end());
  one.samples.clear();
}

/// Masks of many greys, which nobody named, are no classes.
void check_count(const CaseList& list, const std::vector<ReadCase>& cases,
                 const Fingerprint& found) {
  if (!list.classes.empty() || found.voxels.size() <= kMostUnnamed) return;
  const auto* worst = &cases.at(0);
  for (const auto& one : cases)
    if (one.voxels.size() > worst->voxels.size()) worst = &one;
  TORCH_CHECK(false, list.path, ": the labels hold ", found.voxels.size(), " different values, ",
              worst->files.label, " alone ", worst->voxels.size(),
              "; this looks like an anti-aliased or wrong mask (classes that are meant so need "
              "their names in a dataset.json)");
}

}  // namespace

Fingerprint take_fingerprint(CaseList& list) {
  Fingerprint found;
  std::vector<ReadCase> cases;
  const auto known = known_values(list);
  Progress progress("reading", static_cast<int64_t>(list.cases.size()));
  int64_t done = 0;
  for (const auto& files : list.cases) {
    std::optional<ReadCase> one;
    try {
      one = read_case(files);
      check_known(known, *one);
    } catch (const std::exception& error) {
      found.notes.push_back(files.name + ": left out; " + reason_of(error));
      one.reset();
    }
    progress.update(++done);
    if (!one) continue;
    const int64_t least = one->voxels.empty() ? 0 : one->voxels.begin()->first;
    TORCH_CHECK(least >= 0, files.label, ": holds the value ", least,
                "; values of labels must not be negative");
    cases.push_back(std::move(*one));
  }
  progress.finish();
  if (!cases.empty()) keep_alike(list, cases, found);
  TORCH_CHECK(!cases.empty(), list.path, ": none of its ", list.cases.size(), " cases can be used",
              first_notes(found.notes), first_notes(list.notes));
  found.flat = true;
  std::vector<std::vector<double>> foreground(static_cast<size_t>(found.channels));
  std::vector<double> kept;
  list.cases.clear();
  for (auto& one : cases) {
    add_case(one, found, foreground);
    kept.push_back(one.kept);
    list.cases.push_back(one.files);
  }
  found.kept = median(kept);

  // masks of 0 and 255 are 0 and 1
  if (list.classes.empty() && found.voxels.size() == 2 && found.voxels.count(0) == 1 &&
      found.voxels.count(255) == 1) {
    list.label_scale = 255;
    found.voxels[1] = found.voxels[255];
    found.voxels.erase(255);
  }
  check_count(list, cases, found);
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
