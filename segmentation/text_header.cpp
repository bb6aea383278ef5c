#include "segmentation/text_header.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include <torch/torch.h>

#include "segmentation/file_error.h"

namespace serpentine {
namespace {

constexpr size_t kMostHeaderBytes = size_t{1} << 20;

}  // namespace

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

TextHeader read_text_header(const std::filesystem::path& file,
                            const std::function<void(const std::string&, TextHeader&)>& keep,
                            const std::function<bool(const std::string&)>& last) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) fail_file(file, "cannot be opened");
  TextHeader header;
  std::string line;
  for (char c = 0; stream.get(c);) {
    ++header.end;
    if (c != '\n') {
      line += c;
      if (line.size() > kMostHeaderBytes || c == '\0')
        fail_file(file, "has no header of text where one should begin");
      continue;
    }
    if (line.ends_with('\r')) line.pop_back();
    keep(line, header);
    if (last(line)) return header;
    line.clear();
    if (static_cast<size_t>(header.end) > kMostHeaderBytes) break;
  }
  if (!line.empty()) keep(line, header);
  return header;  // headers with their voxels elsewhere may end with the file
}

std::vector<double> numbers_in(const std::filesystem::path& file, const std::string& field,
                               const std::string& text) {
  std::string plain = text;
  for (char& c : plain)
    if (c == ',' || c == '(' || c == ')') c = ' ';
  std::vector<double> numbers;
  std::istringstream words(plain);
  for (std::string word; words >> word;) {
    char* end = nullptr;
    numbers.push_back(std::strtod(word.c_str(), &end));
    if (*end != '\0')
      fail_file(file, field + " is '" + text.substr(0, 80) + "', which is no list of numbers");
  }
  return numbers;
}

std::vector<int64_t> sizes_in(const std::filesystem::path& file, const std::string& field,
                              const std::string& text) {
  std::vector<int64_t> sizes;
  double total = 1;
  for (const double number : numbers_in(file, field, text)) {
    total *= number;
    if (!(number >= 1) || number != std::floor(number) || !(total <= 0x1p34)) {
      fail_file(file, field + " is '" + text.substr(0, 80) +
                          "'; sizes are whole numbers from 1, of 2^34 voxels at most");
    }
    sizes.push_back(static_cast<int64_t>(number));
  }
  return sizes;
}

NamedType named_type(const char* who, torch::ScalarType type) {
  for (const auto& known : {NamedType{torch::kByte, "uint8", "MET_UCHAR"},
                            {torch::kShort, "int16", "MET_SHORT"},
                            {torch::kInt, "int32", "MET_INT"},
                            {torch::kFloat, "float", "MET_FLOAT"}}) {
    if (known.type == type) return known;
  }
  TORCH_CHECK(false, who, ": uint8, int16, int32 or float32, got ", type);
}

}  // namespace serpentine
