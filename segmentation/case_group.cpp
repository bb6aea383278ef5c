#include "segmentation/case_group.h"

#include <algorithm>
#include <array>

#include "segmentation/file_error.h"
#include "segmentation/text_header.h"
#include "segmentation/volume.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

constexpr std::array kLabelEndings = {"",         "_mask",  "_anno",  "_segmentation",
                                      "_manual1", "_label", "_gt",    "_seg",
                                      "_labels",  "_masks", "_truth", "_annotation"};

std::vector<fs::path> images_in(const fs::path& folder) {
  if (!fs::is_directory(folder)) fail_file(folder, "there is no such folder");
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto name = entry.path().filename().string();
    if (!name.starts_with('.') && is_image_path(entry.path())) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

bool ends_in_channel(const std::string& name) {
  return name.size() > 5 && name[name.size() - 5] == '_' &&
         std::all_of(name.end() - 4, name.end(),
                     [](unsigned char c) { return std::isdigit(c) != 0; });
}

using Channels = std::map<int64_t, std::string>;  // files by number

std::string numbers_of(const Channels& files) {
  std::string text;
  for (const auto& [number, file] : files) {
    const auto digits = std::to_string(number);
    text += (text.empty() ? "" : ", ") + std::string(4 - digits.size(), '0') + digits;
  }
  return text;
}

bool channels_fit(const Channels& files, int64_t channels) {
  const auto count = static_cast<int64_t>(files.size());
  if (files.rbegin()->first != count - 1) return false;
  // one picture in colours has all of them
  return channels == 0 || count == channels || (count == 1 && is_picture_name(files.at(0)));
}

/// Sorts the files of a folder into cases.
class Grouping {
 public:
  Grouping(const fs::path& folder, int64_t channels, const LabelFolder* labels,
           std::vector<std::string>& notes)
      : channels_(channels), labels_(labels), notes_(notes) {
    for (const auto& file : images_in(folder)) {
      const auto name = case_name(file);
      const auto [at, added] = files_.emplace(name, file.string());
      if (!added) {
        notes_.push_back(file.string() + ": left out, its case has the same name as that of " +
                         at->second);
      }
    }
    for (const auto& [name, file] : files_) {
      if (ends_in_channel(name))
        stems_[name.substr(0, name.size() - 5)][std::stoll(name.substr(name.size() - 4))] = file;
    }
  }

  std::vector<CaseFiles> cases() {
    for (const auto& [stem, files] : stems_) {
      if (are_channels(stem, files)) take_channels(stem, files);
    }
    for (const auto& [name, file] : files_) {
      if (taken_.count(file) == 0) take(name, {file});
    }
    std::sort(found_.begin(), found_.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    return std::move(found_);
  }

 private:
  bool labelled(const std::string& name) const { return !labels_->of(name).empty(); }

  bool are_channels(const std::string& stem, const Channels& files) const {
    if (files_.count(stem) != 0) return false;  // NAME itself is an image
    if (labels_ == nullptr) {
      return std::any_of(stems_.begin(), stems_.end(), [&](const auto& one) {
        return files_.count(one.first) == 0 && channels_fit(one.second, channels_);
      });
    }
    for (const auto& [number, file] : files)
      if (labelled(case_name(file))) return false;
    return labelled(stem) || channels_fit(files, channels_);
  }

  void take_channels(const std::string& stem, const Channels& files) {
    std::vector<std::string> images;
    for (const auto& [number, file] : files) {
      images.push_back(file);
      taken_.insert(file);
    }
    if (channels_fit(files, channels_)) return take(stem, std::move(images));
    notes_.push_back(stem + ": left out, channels are missing or too many: there are " +
                     numbers_of(files) +
                     (channels_ > 0 ? " of " + std::to_string(channels_) : std::string()));
  }

  void take(const std::string& name, std::vector<std::string> images) {
    std::string label;
    if (labels_ != nullptr) {
      const auto& found = labels_->of(name);
      if (found.empty()) {
        notes_.push_back(name + ": left out, there is no label in " + labels_->folder().string());
        return;
      }
      if (found.size() > 1) {
        notes_.push_back(name + ": left out, " + found[0] + " and " + found[1] +
                         " could both be its label");
        return;
      }
      label = found[0];
    }
    found_.push_back({name, std::move(images), label, name, ""});
  }

  int64_t channels_;
  const LabelFolder* labels_;
  std::vector<std::string>& notes_;
  std::map<std::string, std::string> files_;  // by the name of a case
  std::map<std::string, Channels> stems_;
  std::set<std::string> taken_;
  std::vector<CaseFiles> found_;
};

/// What stands before equal names: one folder's name where that tells them apart, else several.
std::vector<std::string> prefixes(const std::vector<fs::path>& images) {
  const auto distinct = [](const std::vector<std::string>& names) {
    return std::set<std::string>(names.begin(), names.end()).size() == names.size();
  };
  std::vector<fs::path> folders;
  for (const auto& image : images) folders.push_back(fs::absolute(image).lexically_normal());
  std::vector<std::string> joined(images.size());
  for (;;) {
    std::vector<std::string> single;
    for (size_t i = 0; i < folders.size(); ++i) {
      folders[i] = folders[i].parent_path();
      single.push_back(folders[i].filename().string() + "_");
      joined[i] = single.back() + joined[i];
      if (!folders[i].has_filename()) return std::vector<std::string>(images.size());
    }
    if (distinct(single)) return single;
    if (distinct(joined)) return joined;
  }
}

}  // namespace

c10::ArrayRef<const char*> label_endings() { return kLabelEndings; }

LabelFolder::LabelFolder(const fs::path& folder) : folder_(folder) {
  for (const auto& file : images_in(folder)) {
    const auto name = case_name(file), lower = lower_case(name);
    for (size_t i = 0; i < kLabelEndings.size(); ++i) {
      const std::string ending = kLabelEndings[i];
      if (name.size() > ending.size() && lower.ends_with(ending))
        files_[name.substr(0, name.size() - ending.size())][i].push_back(file.string());
    }
  }
}

const std::vector<std::string>& LabelFolder::of(const std::string& image) const {
  static const std::vector<std::string> none;
  // DRIVE: 21_training.png and 21_manual1.png
  std::string name = image;
  auto found = files_.find(name);
  for (const std::string end : {"_training", "_test"}) {
    if (found != files_.end() || !name.ends_with(end)) continue;
    name.resize(name.size() - end.size());
    found = files_.find(name);
  }
  if (found == files_.end()) return none;
  const auto& files = found->second.begin()->second;
  used_.insert(files.begin(), files.end());
  return files;
}

std::vector<std::string> LabelFolder::unused() const {
  std::set<std::string> files;
  for (const auto& [name, by_ending] : files_)
    for (const auto& [ending, some] : by_ending) files.insert(some.begin(), some.end());
  std::vector<std::string> rest;
  std::set_difference(files.begin(), files.end(), used_.begin(), used_.end(),
                      std::back_inserter(rest));
  return rest;
}

std::string LabelFolder::looked_for() {
  std::string text;
  for (const char* ending : kLabelEndings)
    text += (text.empty() ? "NAME" : ", NAME") + std::string(ending);
  return text;
}

std::vector<CaseFiles> group_images(const fs::path& folder, int64_t channels,
                                    const LabelFolder* labels, std::vector<std::string>& notes) {
  return Grouping(folder, channels, labels, notes).cases();
}

void name_cases(std::vector<CaseFiles>& cases, const std::string& where) {
  std::map<std::string, std::vector<size_t>> unnamed;
  for (size_t i = 0; i < cases.size(); ++i)
    if (cases[i].name.empty()) unnamed[case_name(cases[i].images.at(0))].push_back(i);
  for (const auto& [name, same] : unnamed) {
    std::vector<fs::path> images;
    for (const size_t i : same) images.emplace_back(cases[i].images[0]);
    const auto before = same.size() > 1 ? prefixes(images) : std::vector<std::string>(1);
    for (size_t k = 0; k < same.size(); ++k) cases[same[k]].name = before[k] + name;
  }
  std::map<std::string, std::string> seen;
  for (auto& one : cases) {
    const auto [at, added] = seen.emplace(one.name, one.images.at(0));
    if (!added) {
      fail_file(where, at->second + " and " + one.images[0] + " are both called '" + one.name +
                           "'; give every case a name of its own (in a CSV by the column name)");
    }
    if (one.group.empty()) one.group = one.name;
  }
}

}  // namespace serpentine
