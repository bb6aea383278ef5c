#include "segmentation/cases.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "segmentation/dicom.h"
#include "segmentation/file_error.h"
#include "segmentation/volume.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

std::vector<fs::path> images_in(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto name = entry.path().filename().string();
    if (!name.starts_with('.') && is_image_path(entry.path())) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

/// {name, channel} of NAME_0001.nii.gz; channel -1 without a number.
std::pair<std::string, int64_t> channel_of(const fs::path& file) {
  const auto name = case_name(file);
  const bool numbered =
      name.size() > 5 && name[name.size() - 5] == '_' &&
      std::all_of(name.end() - 4, name.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  if (!numbered) return {name, -1};
  return {name.substr(0, name.size() - 5), std::stoll(name.substr(name.size() - 4))};
}

Json read_json(const fs::path& file) {
  std::ifstream stream(file);
  Json json = Json::parse(stream, nullptr, false);
  if (!json.is_object()) fail_file(file, "is not a JSON object");
  return json;
}

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](unsigned char c) { return std::isdigit(c) != 0; });
}

/// nnU-Net: names to values, regions to lists of values; the Decathlon: values to names.
void read_classes(const std::string& file, CaseList& list) {
  std::ifstream stream(file);
  const auto json = nlohmann::ordered_json::parse(stream);  // regions are written in their sequence
  if (!json.contains("labels") || !json["labels"].is_object())
    fail_file(file, "has no object `labels`");
  for (const auto& [key, value] : json["labels"].items()) {
    LabelClass found;
    if (value.is_array()) {
      list.regions = true;
      found = {key, value.get<std::vector<int64_t>>()};
    } else if (value.is_number_integer()) {
      found = {key, {value.get<int64_t>()}};
    } else if (value.is_string() && is_number(key)) {
      found = {value.get<std::string>(), {std::stoll(key)}};
    } else {
      fail_file(file, "label '" + key + "' is neither a name with a value nor a value with a name");
    }
    if (found.name == "ignore") {
      list.ignore = found.values.at(0);
    } else {
      list.classes.push_back(std::move(found));
    }
  }
  if (!list.regions) {
    std::sort(list.classes.begin(), list.classes.end(),
              [](const auto& a, const auto& b) { return a.values < b.values; });
    return;
  }
  std::erase_if(list.classes,
                [](const auto& one) { return one.values == std::vector<int64_t>{0}; });
  if (!json.contains("regions_class_order"))
    fail_file(file, "has regions but no `regions_class_order`");
  list.region_order = json["regions_class_order"].get<std::vector<int64_t>>();
  if (list.region_order.size() != list.classes.size())
    fail_file(file, "`regions_class_order` needs one value a region");
}

void read_channels_of(const Json& json, CaseList& list) {
  for (const char* key : {"channel_names", "modality"}) {
    if (!json.contains(key) || !json[key].is_object()) continue;
    std::map<int64_t, std::string> names;
    for (const auto& [number, name] : json[key].items()) names[std::stoll(number)] = name;
    for (const auto& [number, name] : names) list.channels.push_back(name);
    return;
  }
}

std::string label_beside(const fs::path& folder, const std::string& image) {
  // DRIVE: 21_training.png and 21_manual1.png
  std::string name = image;
  for (const std::string end : {"_training", "_test"})
    if (name.ends_with(end)) name.resize(name.size() - end.size());
  for (const char* end :
       {".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".tif", ".tiff", ".bmp"}) {
    for (const char* suffix : {"", "_mask", "_anno", "_segmentation", "_manual1", "_label"}) {
      if (fs::exists(folder / (name + suffix + end)))
        return (folder / (name + suffix + end)).string();
    }
  }
  return "";
}

/// Groups NAME_0000.ext; files without numbers are cases of their own.
std::vector<CaseFiles> group(const std::vector<fs::path>& files, int64_t channels,
                             std::vector<std::string>& notes) {
  const bool numbered =
      !files.empty() && std::all_of(files.begin(), files.end(),
                                    [](const auto& file) { return channel_of(file).second >= 0; });
  std::map<std::string, std::map<int64_t, std::string>> parts;
  for (const auto& file : files) {
    const auto [name, channel] = channel_of(file);
    if (numbered) {
      parts[name][channel] = file.string();
    } else {
      parts[case_name(file)][0] = file.string();
    }
  }
  std::vector<CaseFiles> found;
  for (const auto& [name, images] : parts) {
    CaseFiles files_of{name, {}, "", name, ""};
    for (const auto& [channel, file] : images) files_of.images.push_back(file);
    const auto count = static_cast<int64_t>(images.size());
    if (images.rbegin()->first != count - 1 || (channels > 1 && numbered && count != channels)) {
      notes.push_back(name + ": left out, channels are missing");
      continue;
    }
    found.push_back(std::move(files_of));
  }
  return found;
}

void add_pairs(CaseList& list, const fs::path& images, const fs::path& labels, int64_t channels) {
  for (auto& found : group(images_in(images), channels, list.notes)) {
    found.label = label_beside(labels, found.name);
    if (found.label.empty()) {
      list.notes.push_back(found.name + ": left out, there is no label in " + labels.string());
    } else {
      list.cases.push_back(std::move(found));
    }
  }
}

CaseList from_json(const fs::path& root) {
  CaseList list;
  const auto file = (root / "dataset.json").string();
  const Json json = read_json(file);
  read_classes(file, list);
  read_channels_of(json, list);
  const bool listed = json.contains("training") && json["training"].is_array() &&
                      !json["training"].empty() && json["training"][0].is_object();
  const auto channels = static_cast<int64_t>(list.channels.size());
  if (listed) {
    for (const auto& entry : json["training"]) {
      const auto image = (root / entry.at("image").get<std::string>()).lexically_normal(),
                 label = (root / entry.at("label").get<std::string>()).lexically_normal();
      const auto name = case_name(image);
      if (!fs::exists(image) || !fs::exists(label)) {
        list.notes.push_back(name + ": left out, " + (fs::exists(image) ? label : image).string() +
                             " is missing");
        continue;
      }
      list.cases.push_back({name, {image.string()}, label.string(), name, ""});
    }
  } else {
    add_pairs(list, root / "imagesTr", root / "labelsTr", channels);
  }
  if (fs::is_directory(root / "imagesTs"))
    list.unlabelled = group(images_in(root / "imagesTs"), listed ? 1 : channels, list.notes);
  return list;
}

CaseList from_folders(const fs::path& root, const CaseOptions& options) {
  static const std::vector<std::pair<const char*, const char*>> usual = {
      {"imagesTr", "labelsTr"}, {"images", "labels"}, {"image", "label"}, {"images", "masks"},
      {"image", "mask"},        {"img", "labelcol"},  {"images", "mask"}, {"images", "1st_manual"}};
  CaseList list;
  const auto take = [&](const fs::path& base, const std::string& split) {
    auto pairs = usual;
    if (!options.images.empty()) pairs = {{options.images.c_str(), options.labels.c_str()}};
    for (const auto& [images, labels] : pairs) {
      if (!fs::is_directory(base / images) || !fs::is_directory(base / labels)) continue;
      const size_t before = list.cases.size();
      add_pairs(list, base / images, base / labels, 0);
      for (size_t i = before; i < list.cases.size(); ++i) list.cases[i].split = split;
      return true;
    }
    return false;
  };
  if (take(root, "")) return list;
  bool found = false;
  for (const auto& [folder, split] :
       std::vector<std::pair<const char*, const char*>>{{"train", "train"},
                                                        {"training", "train"},
                                                        {"val", "validation"},
                                                        {"validation", "validation"},
                                                        {"test", "test"}}) {
    if (fs::is_directory(root / folder)) found |= take(root / folder, split);
  }
  if (!found) {
    fail_file(root,
              "holds neither dataset.json nor folders of images and labels (images/ and labels/, "
              "imagesTr/ and labelsTr/, also below train/ and test/)");
  }
  return list;
}

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  std::stringstream stream(line);
  for (std::string cell; std::getline(stream, cell, ',');) {
    while (!cell.empty() && (cell.back() == '\r' || cell.back() == ' ')) cell.pop_back();
    while (!cell.empty() && cell.front() == ' ') cell.erase(0, 1);
    cells.push_back(cell);
  }
  if (!line.empty() && line.back() == ',') cells.emplace_back();
  return cells;
}

CaseList from_csv(const fs::path& file) {
  std::ifstream stream(file);
  std::string line;
  if (!std::getline(stream, line)) fail_file(file, "is empty");
  const auto head = cells_of(line);
  CaseList list;
  if (std::none_of(head.begin(), head.end(),
                   [](const auto& c) { return c.starts_with("image"); }) ||
      std::find(head.begin(), head.end(), "label") == head.end())
    fail_file(file, "needs the columns image (image1, image2, ... for channels) and label");
  for (int64_t number = 2; std::getline(stream, line); ++number) {
    if (line.empty() || line == "\r") continue;
    const auto cells = cells_of(line);
    const auto place = file.string() + ":" + std::to_string(number);
    if (cells.size() != head.size())
      fail_file(place, "has " + std::to_string(cells.size()) + " cells, the header has " +
                           std::to_string(head.size()));
    CaseFiles found;
    for (size_t i = 0; i < head.size(); ++i) {
      const auto absolute = (file.parent_path() / cells[i]).lexically_normal().string();
      if (head[i].starts_with("image") && !cells[i].empty()) found.images.push_back(absolute);
      if (head[i] == "label" && !cells[i].empty()) found.label = absolute;
      if (head[i] == "name") found.name = cells[i];
      if (head[i] == "group" || head[i] == "patient") found.group = cells[i];
      if (head[i] == "split") found.split = cells[i] == "val" ? "validation" : cells[i];
    }
    if (found.images.empty()) fail_file(place, "names no image");
    if (found.name.empty()) found.name = case_name(found.images[0]);
    if (found.group.empty()) found.group = found.name;
    (found.label.empty() ? list.unlabelled : list.cases).push_back(std::move(found));
  }
  return list;
}

}  // namespace

CaseList find_cases(const std::string& path, const CaseOptions& options) {
  if (!fs::exists(path)) fail_file(path, "there is no such file or folder");
  CaseList list;
  if (fs::is_regular_file(path)) {
    if (fs::path(path).extension() != ".csv") fail_file(path, "is neither a folder nor a CSV");
    list = from_csv(path);
  } else if (fs::exists(fs::path(path) / "dataset.json")) {
    list = from_json(path);
  } else {
    list = from_folders(path, options);
  }
  list.path = path;
  if (list.cases.empty()) fail_file(path, "holds no case with an image and a label");
  std::sort(list.cases.begin(), list.cases.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return list;
}

std::vector<CaseFiles> find_images(const std::string& path, int64_t channels) {
  if (!fs::exists(path)) fail_file(path, "there is no such file or folder");
  if (fs::is_regular_file(path) || is_dicom_path(path)) {
    const auto name = case_name(path);
    return {{name, {path}, "", name, ""}};
  }
  std::vector<std::string> notes;
  auto found = group(images_in(path), channels, notes);
  if (found.empty()) fail_file(path, "holds no images" + (notes.empty() ? "" : "; " + notes[0]));
  return found;
}

}  // namespace serpentine
