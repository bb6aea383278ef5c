#include "segmentation/cases.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "segmentation/case_group.h"
#include "segmentation/case_lists.h"
#include "segmentation/dicom.h"
#include "segmentation/file_error.h"
#include "segmentation/text_header.h"
#include "segmentation/volume.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostUnused = 10;  // labels without images that are named

/// Cases of several splits whose names collide get the split's in front, all of them, so that
/// their order stays.
void part_names_of_splits(CaseList& list) {
  std::set<std::string> names;
  for (const auto& one : list.cases) names.insert(one.name);
  if (names.size() == list.cases.size()) return;
  for (auto& one : list.cases) one.group = one.name = one.split + "_" + one.name;
}

CaseList from_folders(const fs::path& root, const CaseOptions& options) {
  static const std::vector<std::pair<const char*, const char*>> usual = {
      // before mask/, which of DRIVE is the field of view
      {"images", "1st_manual"}, {"imagesTr", "labelsTr"}, {"images", "labels"}, {"image", "label"},
      {"images", "masks"},      {"image", "mask"},        {"img", "labelcol"},  {"images", "mask"}};
  CaseList list;
  std::vector<std::string> tried;  // notes of folders without one case
  bool found = false;
  const auto take = [&](const fs::path& base, const std::string& split) {
    auto pairs = usual;
    if (!options.images.empty()) pairs = {{options.images.c_str(), options.labels.c_str()}};
    for (const auto& [images, labels] : pairs) {
      if (!fs::is_directory(base / images) || !fs::is_directory(base / labels)) continue;
      CaseList part;
      add_pairs(part, base / images, base / labels, 0);
      for (auto& one : part.cases) one.split = split;
      found = true;
      auto& notes = part.cases.empty() ? tried : list.notes;
      notes.insert(notes.end(), part.notes.begin(), part.notes.end());
      list.cases.insert(list.cases.end(), part.cases.begin(), part.cases.end());
      if (!part.cases.empty()) return;  // else the next pair may fit
    }
  };
  take(root, "");
  if (!list.cases.empty()) return list;
  for (const auto& [folder, split] :
       std::vector<std::pair<const char*, const char*>>{{"train", "train"},
                                                        {"training", "train"},
                                                        {"val", "validation"},
                                                        {"validation", "validation"},
                                                        {"test", "test"}}) {
    if (fs::is_directory(root / folder)) take(root / folder, split);
  }
  if (!found) {
    fail_file(root,
              "holds neither dataset.json nor folders of images and labels (images/ and labels/, "
              "imagesTr/ and labelsTr/, also below train/ and test/)");
  }
  if (list.cases.empty()) list.notes = std::move(tried);
  part_names_of_splits(list);
  return list;
}

}  // namespace

void add_pairs(CaseList& list, const fs::path& images, const fs::path& labels, int64_t channels) {
  const LabelFolder folder(labels);
  const auto found = group_images(images, channels, &folder, list.notes);
  list.cases.insert(list.cases.end(), found.begin(), found.end());
  const auto unused = folder.unused();
  for (size_t i = 0; i < std::min(unused.size(), kMostUnused); ++i)
    list.notes.push_back(unused[i] + ": is not used, it has no image in " + images.string());
  if (unused.size() > kMostUnused) {
    list.notes.push_back(labels.string() + ": " + std::to_string(unused.size() - kMostUnused) +
                         " more labels have no image");
  }
}

std::string first_notes(const std::vector<std::string>& notes) {
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(notes.size(), 3); ++i) text += "; " + notes[i];
  if (notes.size() > 3) text += "; and " + std::to_string(notes.size() - 3) + " more";
  return text;
}

CaseList find_cases(const std::string& path, const CaseOptions& options) {
  if (!fs::exists(path)) fail_file(path, "there is no such file or folder");
  CaseList list;
  const bool file = fs::is_regular_file(path);
  if (file) {
    if (lower_case(fs::path(path).extension().string()) != ".csv")
      fail_file(path, "is neither a folder nor a CSV");
    list = cases_of_csv(path);
  } else if (fs::exists(fs::path(path) / "dataset.json")) {
    list = cases_of_json(path);
  } else {
    list = from_folders(path, options);
  }
  list.path = path;
  if (list.cases.empty()) {
    fail_file(path, "holds no case with an image and a label" +
                        (file ? ""
                              : "; the label of the image NAME may be called " +
                                    LabelFolder::looked_for()) +
                        first_notes(list.notes));
  }
  name_cases(list.cases, path);
  std::sort(list.cases.begin(), list.cases.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return list;
}

FoundImages find_images(const std::string& path, int64_t channels) {
  if (!fs::exists(path)) fail_file(path, "there is no such file or folder");
  if (fs::is_regular_file(path) || is_dicom_path(path)) {
    const auto name = case_name(path);
    return {{{name, {path}, "", name, ""}}, {}};
  }
  FoundImages found;
  found.cases = group_images(path, channels, nullptr, found.notes);
  if (found.cases.empty()) fail_file(path, "holds no images" + first_notes(found.notes));
  return found;
}

}  // namespace serpentine
