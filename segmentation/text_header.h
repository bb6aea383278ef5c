// Headers of text that volumes begin with: lines, then the voxels.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <torch/types.h>

#include "segmentation/nifti.h"

namespace serpentine {

struct TextHeader {
  std::map<std::string, std::string> fields;
  int64_t end = 0;  // byte behind the header
};

/// Reads lines up to the first for which `last` is true; `keep` takes a line and stores its field.
/// Throws "FILE: why" for a file that cannot be opened or is no text.
TextHeader read_text_header(const std::filesystem::path& file,
                            const std::function<void(const std::string& line, TextHeader&)>& keep,
                            const std::function<bool(const std::string& line)>& last);

/// The numbers of "1 2 3"; commas and brackets are as good as blanks. Throws "FILE: FIELD has the
/// value ..., which is no list of numbers".
std::vector<double> numbers_in(const std::filesystem::path& file, const std::string& field,
                               const std::string& text);

/// Sizes, which must be whole and positive, and no more than 2^34 together.
std::vector<int64_t> sizes_in(const std::filesystem::path& file, const std::string& field,
                              const std::string& text);

std::string lower_case(std::string text);
std::string trimmed(const std::string& text);

/// The number of a type as NRRD, MetaImage and this project's writers name it.
struct NamedType {
  torch::ScalarType type;
  const char *nrrd, *meta;
};
/// Throws for what no label or value is written as.
NamedType named_type(const char* who, torch::ScalarType type);

}  // namespace serpentine
