#include "timeseries/columns.h"

#include <algorithm>
#include <cctype>
#include <stdexcept>

namespace serpentine {

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

void no_column(const std::vector<std::string>& names, const std::string& name,
               const std::string& place, const std::string& what) {
  const std::string near = nearest(name, names);
  throw std::runtime_error(place + ": there is no " + what + " '" + name + "'" +
                           (near.empty() ? "" : "; did you mean '" + near + "'?"));
}

int64_t named_date_column(const std::vector<std::string>& names, const FileOptions& options,
                          const std::string& place) {
  if (options.date == "none") return -1;
  if (options.date != "auto") {
    const auto found = std::find(names.begin(), names.end(), options.date);
    if (found != names.end()) return found - names.begin();
    no_column(names, options.date, place, "date column");
  }
  const std::vector<std::string> usual = {"date",     "time",      "timestamp",
                                          "datetime", "date_time", "ds"};
  for (size_t i = 0; i < names.size(); ++i) {
    std::string lower = names[i];
    for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (holds(usual, lower)) return static_cast<int64_t>(i);
  }
  return -1;
}

void check_used_columns(const std::vector<std::string>& names, const FileOptions& options,
                        const std::string& place) {
  for (const auto& name : options.only) {
    if (!holds(names, name)) no_column(names, name, place);
  }
}

bool is_read(const std::string& name, const FileOptions& options) {
  return !holds(options.ignore, name) && (options.only.empty() || holds(options.only, name));
}

std::string order_error(const std::vector<Time>& above, Time time, const std::string& shown,
                        const std::string& duplicates) {
  if (above.empty()) return "";
  const bool repeats = time == above.back();
  if (repeats ? duplicates != "error" : time > above.back()) return "";
  return "the timestamp " + shown + (repeats ? " repeats" : " is before") + " the row above it (" +
         format_time(above.back()) + "); rows must be in time order" +
         (repeats ? ", or set data.duplicates to keep, first, last or mean" : "");
}

}  // namespace serpentine
