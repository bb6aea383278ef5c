// What a folder offers to the viewer.
#include <algorithm>
#include <filesystem>
#include <set>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "apps/viewer.h"
#include "core/io/json_file.h"

namespace serpentine {

namespace fs = std::filesystem;

std::vector<ViewedSlide> find_viewed(const std::string& folder) {
  if (!fs::exists(folder)) throw std::runtime_error(folder + ": there is no such file or folder");
  if (!fs::is_directory(folder)) open_slide(folder);  // throws for what is no slide
  std::vector<ViewedSlide> all;
  std::set<std::string> seen;
  const auto add = [&](const fs::path& path) {
    const auto json = read_json(path.string());
    if (!json.is_object() || !json.contains("slide_path")) return;
    const std::string slide = json["slide_path"];
    if (!fs::exists(slide)) return;
    all.push_back({json.value("slide", ""), slide, path.parent_path().string()});
    seen.insert(fs::weakly_canonical(slide).string());
  };
  if (fs::is_directory(folder)) {
    for (const auto& entry :
         fs::recursive_directory_iterator(folder, fs::directory_options::skip_permission_denied)) {
      if (entry.path().filename() == "prediction.json") add(entry.path());
    }
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return std::pair(a.name, a.folder) < std::pair(b.name, b.folder);
  });
  for (const auto& slide : find_slides(folder)) {
    // pictures inside a prediction's folder are its own
    const bool of_prediction = std::any_of(all.begin(), all.end(), [&](const ViewedSlide& viewed) {
      return !viewed.folder.empty() &&
             fs::path(slide.path).parent_path() == fs::path(viewed.folder);
    });
    if (!of_prediction && seen.insert(fs::weakly_canonical(slide.path).string()).second) {
      all.push_back({slide.name, slide.path, ""});
    }
  }
  return all;
}

}  // namespace serpentine
