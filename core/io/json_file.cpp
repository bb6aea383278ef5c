#include "core/io/json_file.h"

#include <fstream>

#include <nlohmann/json.hpp>

namespace serpentine {

nlohmann::json read_json(const std::string& path) {
  std::ifstream file(path);
  return file ? nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false) : nlohmann::json();
}

}  // namespace serpentine
