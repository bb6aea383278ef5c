// Slides below a folder, and what a CSV says of them.
#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>

#include "pathology/slide.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool slide_ending(const fs::path& path) {
  static constexpr std::array kEndings = {".svs", ".tif",  ".tiff", ".ndpi",    ".vms",
                                          ".vmu", ".scn",  ".mrxs", ".svslide", ".bif",
                                          ".jpg", ".jpeg", ".png",  ".btf",     ".czi"};
  const std::string end = lower(path.extension().string());
  return std::find(kEndings.begin(), kEndings.end(), end) != kEndings.end();
}

/// Files in the order of their paths; a folder that holds .dcm files is one entry.
std::vector<fs::path> slides_below(const fs::path& folder) {
  std::set<fs::path> found;
  const auto skip = fs::directory_options::skip_permission_denied;
  for (auto it = fs::recursive_directory_iterator(folder, skip);
       it != fs::recursive_directory_iterator(); ++it) {
    const fs::path& path = it->path();
    if (path.filename().string().starts_with('.')) {
      if (it->is_directory()) it.disable_recursion_pending();
      continue;
    }
    if (it->is_directory()) continue;
    if (path.extension() == ".dcm") {
      found.insert(path.parent_path());
    } else if (slide_ending(path)) {
      found.insert(path);
    }
  }
  return {found.begin(), found.end()};
}

std::string joined(const fs::path& relative) {
  std::string name;
  for (const auto& part : relative) {
    if (part == "." || part.empty()) continue;
    name += (name.empty() ? "" : "__") + part.string();
  }
  return name;
}

std::vector<std::string> cells(const std::string& line) {
  std::vector<std::string> all;
  std::istringstream in(line);
  std::string cell;
  while (std::getline(in, cell, ',')) {
    std::erase_if(cell, [](char c) { return c == '"' || c == '\r'; });
    all.push_back(cell);
  }
  return all;
}

}  // namespace

std::vector<SlideFile> find_slides(const std::string& folder) {
  const fs::path root(folder);
  if (!fs::exists(root)) throw std::runtime_error(folder + ": there is no such file or folder");
  if (!fs::is_directory(root)) return {{folder, root.stem().string()}};
  const auto files = slides_below(root);
  std::map<std::string, int> stems, paths;
  const auto stem = [&](const fs::path& file) {
    return fs::is_directory(file) ? file.filename().string() : file.stem().string();
  };
  const auto with_folders = [&](const fs::path& file) {
    return joined(fs::relative(file, root).replace_filename(stem(file)));
  };
  for (const auto& file : files) {
    ++stems[stem(file)];
    ++paths[with_folders(file)];
  }
  std::vector<SlideFile> all;
  for (const auto& file : files) {
    std::string name = stem(file);
    if (stems[name] > 1) name = with_folders(file);
    if (paths[with_folders(file)] > 1) name = joined(fs::relative(file, root));
    all.push_back({file.string(), name});
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return all;
}

std::map<std::string, double> read_mpp_csv(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be opened");
  std::string line;
  std::getline(file, line);
  if (line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);  // a byte-order mark, as Excel writes
  const auto header = cells(line);
  size_t slide = header.size(), mpp = header.size();
  for (size_t i = 0; i < header.size(); ++i) {
    const std::string name = lower(header[i]);
    if (name == "slide" || name == "wsi" || name == "filename" || name == "slide_id") slide = i;
    if (name == "mpp") mpp = i;
  }
  if (slide == header.size() || mpp == header.size()) {
    throw std::runtime_error(path + ":1: needs the columns slide and mpp, has '" + line + "'");
  }
  std::map<std::string, double> found;
  for (int64_t row = 2; std::getline(file, line); ++row) {
    const auto values = cells(line);
    if (values.size() <= std::max(slide, mpp) || values[mpp].empty()) continue;
    char* end = nullptr;
    const double value = std::strtod(values[mpp].c_str(), &end);
    if (*end != '\0' || !(value > 0)) {
      throw std::runtime_error(path + ":" + std::to_string(row) + ": mpp must be above 0, is '" +
                               values[mpp] + "'");
    }
    found[fs::path(values[slide]).filename().string()] = value;
  }
  return found;
}

}  // namespace serpentine
