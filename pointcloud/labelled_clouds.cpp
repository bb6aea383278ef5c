// Finding labelled clouds: packed ones, HDF5 files, folders of classes.
#include <algorithm>
#include <array>
#include <filesystem>

#include <ATen/ATen.h>

#include "core/check.h"
#include "core/io/bytes.h"
#include "pointcloud/cloud_source.h"
#include "pointcloud/cloud_text.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndex = ".index.csv";
constexpr const char* kColumns = "id,class,split,first_point,points,ox,oy,oz,scale";

void each_packed(const std::string& path, const std::function<void(LabelledCloud)>& use) {
  const std::string table = InputFile(path).read_all();
  const InputFile packed(path.substr(0, path.size() - std::string(kIndex).size()) + ".i16");
  TextScanner text(table, path);
  std::string_view line;
  if (!text.line(line) || line != kColumns)
    text.fail(std::string("the first line must be '") + kColumns + "'");
  while (text.line(line)) {
    if (line.empty()) continue;
    const auto words = words_of(line, ',');
    int64_t first = 0, count = 0;
    std::array<double, 4> number{};  // origin, then the step
    bool good = words.size() == 9 && parse_number(words[3], first) &&
                parse_number(words[4], count) && first >= 0 && count >= 0;
    for (size_t i = 0; good && i < number.size(); ++i) good = parse_number(words[5 + i], number[i]);
    if (!good) text.fail("a line is '" + std::string(kColumns) + "'");
    constexpr uint64_t kRow = 6;
    const auto all = static_cast<int64_t>(packed.size() / kRow);
    if (first > all || count > all - first)
      text.fail("names points " + std::to_string(first) + " to " + std::to_string(first + count) +
                ", but " + packed.path() + " has " + std::to_string(all));
    const std::string rows =
        packed.read_text(static_cast<size_t>(count) * kRow, static_cast<uint64_t>(first) * kRow);
    std::vector<at::Tensor> axes;
    for (size_t axis = 0; axis < 3; ++axis) {
      axes.push_back(read_column(rows.data() + 2 * axis, kRow, count, NumberType::kI16, false)
                             .to(at::kDouble) *
                         number[3] +
                     number[axis]);
    }
    LabelledCloud found;
    found.name = path + ": " + std::string(words[0]);
    found.category = std::string(words[1]);
    found.split = words[2] == "all" ? "" : std::string(words[2]);
    found.cloud.points = at::stack(axes, 1);
    use(std::move(found));
  }
}

void each_in_hdf5(const std::string& path, const std::function<void(LabelledCloud)>& use) {
  const HdfClouds all = read_hdf5_clouds(path);
  const bool test = fs::path(path).filename().string().find("test") != std::string::npos;
  for (int64_t i = 0; i < all.points.size(0); ++i) {
    LabelledCloud found;
    found.name = path + ": cloud " + std::to_string(i);
    const auto label = all.labels[i].item<int64_t>();
    found.category = (label < 10 ? "class_0" : "class_") + std::to_string(label);
    found.split = test ? "test" : "train";
    found.cloud.points = all.points[i].to(at::kDouble);
    use(std::move(found));
  }
}

std::vector<fs::path> sorted_entries(const fs::path& folder) {
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().front() != '.') entries.push_back(entry.path());
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

void each_in_folder(const std::string& path, int64_t surface, int64_t seed,
                    const std::function<void(LabelledCloud)>& use) {
  int64_t number = 0;
  const auto give = [&](const fs::path& file, const std::string& category,
                        const std::string& split) {
    LabelledCloud found{read_cloud(file.string()), file.string(), category, split};
    if (found.cloud.faces.defined())
      found.cloud = sample_surface(found.cloud, surface, seed + number);
    ++number;
    use(std::move(found));
  };
  for (const auto& category : sorted_entries(path)) {
    if (!fs::is_directory(category)) continue;
    const std::string name = category.filename().string();
    for (const auto& entry : sorted_entries(category)) {
      if (!fs::is_directory(entry)) {
        give(entry, name, "");
        continue;
      }
      const std::string split = entry.filename().string();
      SERPENTINE_CHECK(split == "train" || split == "test", entry.string(),
                       "folders of a class must be called 'train' and 'test'");
      for (const auto& file : sorted_entries(entry)) give(file, name, split);
    }
  }
  SERPENTINE_CHECK(number > 0, path, "there is no file in it; a folder of clouds has one folder a ",
                   "class, in it files or the folders 'train' and 'test'");
}

}  // namespace

void each_labelled_cloud(const std::string& path, int64_t surface, int64_t seed,
                         const std::function<void(LabelledCloud)>& use) {
  SERPENTINE_CHECK(fs::exists(path), path, "there is no such file or folder");
  if (fs::is_directory(path)) {
    each_in_folder(path, surface, seed, use);
  } else if (path.ends_with(kIndex)) {
    each_packed(path, use);
  } else if (path.ends_with(".h5") || path.ends_with(".hdf5")) {
    each_in_hdf5(path, use);
  } else if (path.ends_with(".txt")) {
    const std::string list = InputFile(path).read_all();
    TextScanner text(list, path);
    std::string_view line;
    while (text.line(line)) {
      if (line.empty()) continue;
      const fs::path file{std::string(line)};
      each_in_hdf5((file.is_absolute() ? file : fs::path(path).parent_path() / file).string(), use);
    }
  } else {
    SERPENTINE_CHECK(false, path, "labelled clouds are a folder, NAME.index.csv, .h5, or a .txt ",
                     "that lists .h5 files");
  }
}

}  // namespace serpentine
