// JSON files that a program reads back.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

namespace serpentine {

/// null where there is no such file, a discarded value (is_discarded()) where it is damaged.
nlohmann::json read_json(const std::string& path);

}  // namespace serpentine
