// Which files of a folder are one case: channels by number, labels by name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <c10/util/ArrayRef.h>

#include "segmentation/cases.h"

namespace serpentine {

/// What may stand behind an image's name in that of its label, in lower case: "", "_mask", ...
c10::ArrayRef<const char*> label_endings();

/// The label files of a folder, found by the name of their image, alone or with a usual ending
/// (_mask, _GT, ...) in any case.
class LabelFolder {
 public:
  /// Throws "FOLDER: there is no such folder".
  explicit LabelFolder(const std::filesystem::path& folder);

  /// The label of an image; of several with the same name all, empty where there is none.
  const std::vector<std::string>& of(const std::string& image) const;
  /// What no image was asked for.
  std::vector<std::string> unused() const;
  const std::filesystem::path& folder() const { return folder_; }
  /// "NAME, NAME_mask, ...": for errors.
  static std::string looked_for();

 private:
  std::filesystem::path folder_;
  std::map<std::string, std::map<size_t, std::vector<std::string>>> files_;  // image, ending
  mutable std::set<std::string> used_;
};

/// The cases of a folder. NAME_0001.ext is channel 1 of NAME where that fits: the label is called
/// NAME, or (without `labels`) some NAME has exactly the `channels`; else the number belongs to the
/// name. channels 0: not known. What is left out is noted.
std::vector<CaseFiles> group_images(const std::filesystem::path& folder, int64_t channels,
                                    const LabelFolder* labels, std::vector<std::string>& notes);

/// Names the cases that have none by their image, those of one name by the folders too (pat0_img);
/// then the groups. Throws "WHERE: A and B are both called 'x'" where names are given twice.
void name_cases(std::vector<CaseFiles>& cases, const std::string& where);

}  // namespace serpentine
