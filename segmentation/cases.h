// The cases of a data set: which images belong together, their labels, names of classes.
//
// Understood: nnU-Net's layout (dataset.json, imagesTr/NAME_0000.ext), the Medical Segmentation
// Decathlon's (dataset.json with a list `training`), a folder with images and labels, a CSV.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace serpentine {

struct CaseFiles {
  std::string name;
  std::vector<std::string> images;  // one a channel, or one file with several
  std::string label;                // "" where there is none
  std::string group;                // cases of a group (patient) stay in one fold; the name if none
  std::string split;                // "train", "validation", "test" or "" when the data do not say
};

/// A class to predict: one value of the label, or a region of several.
struct LabelClass {
  std::string name;
  std::vector<int64_t> values;
};

struct CaseList {
  std::string path;
  std::vector<CaseFiles> cases;       // with labels, sorted by name
  std::vector<CaseFiles> unlabelled;  // imagesTs
  std::vector<std::string> channels;  // names, such as "CT"; may be empty
  std::vector<LabelClass> classes;    // background first; empty: whatever the labels hold
  std::vector<int64_t> region_order;  // of regions: the value to write, later ones over earlier
  bool regions = false;
  int64_t ignore = -1;             // the value that is not trained on; -1: none
  double label_scale = 0;          // masks of 0 and 255: 255
  std::vector<std::string> notes;  // what was left out, and why
};

struct CaseOptions {
  std::string images = "", labels = "";  // sub-folders of a folder pair; "": the usual names
};

/// Throws "PATH: why" where nothing is understood.
CaseList find_cases(const std::string& path, const CaseOptions& options = {});

struct FoundImages {
  std::vector<CaseFiles> cases;    // sorted by name
  std::vector<std::string> notes;  // one for each case that was left out
};

/// The images of one file, DICOM series or folder to predict: NAME_0000.ext are channels of NAME
/// where some NAME has all `channels` of them.
FoundImages find_images(const std::string& path, int64_t channels);

/// "; NOTE; NOTE; NOTE; and 5 more", for the end of an error; "" without notes.
std::string first_notes(const std::vector<std::string>& notes);

}  // namespace serpentine
