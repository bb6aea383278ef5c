// A folder of photographs: one subfolder a class, or train, val and test folders of such.
#include <algorithm>
#include <filesystem>
#include <map>

#include "core/check.h"
#include "vision/image_source.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

struct FolderOptions : ImageDataOptions {
  std::vector<std::string> classes;
  void fields(Fields& f) {
    ImageDataOptions::fields(f);
    f("classes", classes, "class folders to take, in this sequence; empty: all, by name");
  }
};

std::vector<fs::path> sorted(const fs::path& folder, bool folders) {
  std::vector<fs::path> found;
  const auto skip = fs::directory_options::skip_permission_denied;
  for (const auto& entry : fs::directory_iterator(folder, skip)) {
    const std::string name = entry.path().filename().string();
    if (name.front() != '.' && (folders ? entry.is_directory() : entry.is_regular_file()))
      found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

struct Found {
  std::string path, category, split;
};

/// Pictures below a class folder, at any depth, sorted.
void add_class(const fs::path& folder, const std::string& split, std::vector<Found>& found,
               std::map<std::string, int64_t>& counts, int64_t& others) {
  const std::string category = folder.filename().string();
  counts[category];  // an empty class is known, too
  std::vector<std::string> paths;
  const auto skip = fs::directory_options::skip_permission_denied;
  for (const auto& entry : fs::recursive_directory_iterator(folder, skip)) {
    if (!entry.is_regular_file()) continue;
    const std::string path = entry.path().string();
    has_picture_extension(path) ? paths.push_back(path) : static_cast<void>(++others);
  }
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) found.push_back({path, category, split});
  counts[category] += static_cast<int64_t>(paths.size());
}

LabelledImages read_folder(const FolderOptions& options) {
  SERPENTINE_CHECK(fs::is_directory(options.path), options.path, "is not a folder");
  std::vector<Found> found;
  std::map<std::string, int64_t> counts;
  int64_t others = 0;
  bool has_splits = false;
  for (const auto& folder : sorted(options.path, true))
    has_splits = has_splits || split_name(folder.filename().string()) == "train";
  for (const auto& folder : sorted(options.path, true)) {
    const std::string split = has_splits ? split_name(folder.filename().string()) : "";
    if (!has_splits) add_class(folder, "", found, counts, others);
    for (const auto& inner : split.empty() ? std::vector<fs::path>{} : sorted(folder, true))
      add_class(inner, split, found, counts, others);
  }
  SERPENTINE_CHECK(!counts.empty(), options.path,
                   "holds no class folders; put the pictures of each class into a folder of its "
                   "name");
  LabelledImages all;
  for (const auto& [category, count] : counts) {
    if (count == 0) {
      all.notes.push_back("class folder '" + category + "' holds no picture and is left out");
    } else if (options.classes.empty()) {
      all.classes.push_back(category);
    }
  }
  for (const auto& category : options.classes) {
    SERPENTINE_CHECK(counts.count(category) > 0, options.path, "there is no class folder '",
                     category, "'");
    all.classes.push_back(category);
  }
  ImageFaults faults;
  std::vector<std::string> paths;
  for (const auto& one : found) {
    const auto at = std::find(all.classes.begin(), all.classes.end(), one.category);
    if (at == all.classes.end()) continue;
    if (const std::string why = fault_of_file(one.path); !why.empty()) {
      faults.report(one.path, why);
      continue;
    }
    paths.push_back(one.path);
    all.labels.push_back(at - all.classes.begin());
    all.splits.push_back(one.split);
  }
  if (const std::string note = faults.note(); !note.empty()) all.notes.push_back(note);
  if (others > 0)
    all.notes.push_back(std::to_string(others) +
                        " files do not end as pictures do and are ignored");
  all.store = std::make_shared<FileImages>(std::move(paths), options.channels == 1 ? 1 : 3);
  return all;
}

}  // namespace

void add_image_folder(Registry<DataSource>& all) {
  all.add<FolderOptions>("image_folder", [](const FolderOptions& options) {
    return std::make_shared<ImageSource>(options, read_folder(options));
  });
}

}  // namespace serpentine
