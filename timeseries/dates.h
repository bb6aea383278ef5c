// Dates of rows: parsing, the step between them, calendar features.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <torch/types.h>

namespace serpentine {

using Time = int64_t;  // microseconds since 1970-01-01 00:00 UTC

/// The step between rows: a length of time, or whole months.
struct Frequency {
  Time micros = 0;
  int64_t months = 0;

  bool known() const { return micros > 0 || months > 0; }
  Time after(Time time,
             int64_t steps) const;  // `steps` later; a month's missing day becomes its last
  int64_t period() const;           // steps of the usual season: 24 for hours, 7 for days, ...
  std::string text() const;         // "1h", "15min", "1M"
};

/// Reads "1h", "15min", "30s", "1d", "1w", "1M", "3M" (quarter), "1y"; throws with the known units.
Frequency parse_frequency(const std::string& text);

/// The median step, or whole months when every row falls on the same day and time of a month.
Frequency infer_frequency(const std::vector<Time>& times);

/// Reads dates of one form. The form is `format` (strptime) or, if empty, the known one that fits
/// the first date.
class DateParser {
 public:
  explicit DateParser(std::string format = "") : format_(std::move(format)) {}
  std::optional<Time> parse(std::string_view text);
  const std::string& format() const { return format_; }

 private:
  std::string format_;
};

std::string format_time(Time time);  // "2016-07-01 00:00:00"

/// Calendar features in [-0.5, 0.5], float64 [T, M]. `granularity` is the finest unit: s, min, h,
/// d, w, m.
torch::Tensor time_marks(const std::vector<Time>& times, const std::string& granularity);

}  // namespace serpentine
