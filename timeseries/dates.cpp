#include "timeseries/dates.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <sstream>
#include <stdexcept>

#include <date/date.h>
#include <torch/torch.h>

namespace serpentine {
namespace {

using Micros = std::chrono::microseconds;
constexpr Time kSecond = 1'000'000, kMinute = 60 * kSecond, kHour = 60 * kMinute, kDay = 24 * kHour;

date::sys_time<Micros> at(Time time) { return date::sys_time<Micros>(Micros(time)); }

// whole, four-digit years first; %T takes fractions of a second
const std::array<const char*, 17> kForms = {
    "%F %T",          "%F %H:%M", "%FT%TZ",        "%FT%T%Ez", "%FT%T%z", "%FT%T",
    "%FT%H:%MZ",      "%FT%H:%M", "%F %T%Ez",      "%F %T%z",  "%F",      "%Y/%m/%d %T",
    "%Y/%m/%d %H:%M", "%Y/%m/%d", "%Y%m%dT%H%M%S", "%Y-%m",    "%Y%m%d"};

std::optional<Time> parse_as(const std::string& text, const std::string& form) {
  // a month alone has no day, which a time point needs
  if (form == "%Y-%m") return parse_as(text + "-01", "%F");
  std::istringstream stream(text);
  date::sys_time<Micros> time;
  stream >> date::parse(form, time);
  if (stream.fail()) return std::nullopt;
  if (stream.peek() != std::char_traits<char>::eof()) return std::nullopt;
  return time.time_since_epoch().count();
}

// YYYY-MM-DD HH:MM:SS, the commonest form by far, without a stream
std::optional<Time> parse_plain(std::string_view text) {
  if (text.size() != 19) return std::nullopt;
  const auto number = [&](size_t from, size_t count) {
    int value = 0;
    for (size_t i = from; i < from + count; ++i) {
      if (text[i] < '0' || text[i] > '9') return -1;
      value = value * 10 + (text[i] - '0');
    }
    return value;
  };
  if (text[4] != '-' || text[7] != '-' || text[10] != ' ' || text[13] != ':' || text[16] != ':')
    return std::nullopt;
  const int year = number(0, 4), month = number(5, 2), day = number(8, 2);
  const int hour = number(11, 2), minute = number(14, 2), second = number(17, 2);
  if (year < 0 || month < 0 || day < 0 || hour < 0 || minute < 0 || second < 0) return std::nullopt;
  const date::year_month_day ymd{date::year(year), date::month(static_cast<unsigned>(month)),
                                 date::day(static_cast<unsigned>(day))};
  if (!ymd.ok() || hour > 23 || minute > 59 || second > 59) return std::nullopt;
  return Time{date::sys_days(ymd).time_since_epoch().count()} * kDay + hour * kHour +
         minute * kMinute + second * kSecond;
}

}  // namespace

std::optional<Time> DateParser::parse(std::string_view view) {
  if (format_.empty() || format_ == "%F %T") {
    if (const auto time = parse_plain(view)) {
      format_ = "%F %T";
      return time;
    }
  }
  const std::string text(view);
  if (!format_.empty()) return parse_as(text, format_);
  if (text.size() < 6) return std::nullopt;  // shorter is a number, not a date
  for (const char* form : kForms) {
    if (const auto time = parse_as(text, form)) {
      format_ = form;
      return time;
    }
  }
  return std::nullopt;
}

std::string format_time(Time time) {
  const bool whole = time % kSecond == 0;
  return whole ? date::format("%F %T", date::floor<std::chrono::seconds>(at(time)))
               : date::format("%F %T", at(time));
}

Time Frequency::after(Time time, int64_t steps) const {
  if (months == 0) return time + micros * steps;
  const auto day = date::floor<date::days>(at(time));
  date::year_month_day ymd =
      date::year_month_day(day) + date::months(static_cast<int>(months * steps));
  if (!ymd.ok()) ymd = ymd.year() / ymd.month() / date::last;
  return (date::sys_days(ymd) + (at(time) - day)).time_since_epoch().count();
}

int64_t Frequency::period() const {
  if (months > 0) return std::max<int64_t>(1, 12 / months);
  if (micros <= 0) return 1;
  if (micros < kDay) return std::max<int64_t>(1, kDay / micros);
  if (micros == kDay) return 7;
  if (micros == 7 * kDay) return 52;
  return 1;
}

std::string Frequency::text() const {
  if (months > 0)
    return months % 12 == 0 ? std::to_string(months / 12) + "y" : std::to_string(months) + "M";
  const std::array<std::pair<Time, const char*>, 5> units = {
      {{7 * kDay, "w"}, {kDay, "d"}, {kHour, "h"}, {kMinute, "min"}, {kSecond, "s"}}};
  for (const auto& [unit, name] : units) {
    if (micros > 0 && micros % unit == 0) return std::to_string(micros / unit) + name;
  }
  return std::to_string(micros) + "us";
}

Frequency parse_frequency(const std::string& text) {
  static const std::map<std::string, Frequency> units = {
      {"us", {1, 0}},      {"ms", {1000, 0}}, {"s", {kSecond, 0}}, {"min", {kMinute, 0}},
      {"t", {kMinute, 0}}, {"h", {kHour, 0}}, {"d", {kDay, 0}},    {"w", {7 * kDay, 0}},
      {"M", {0, 1}},       {"m", {0, 1}},     {"q", {0, 3}},       {"y", {0, 12}}};
  size_t digits = 0;
  while (digits < text.size() && digits < 9 &&
         std::isdigit(static_cast<unsigned char>(text[digits])))
    ++digits;
  const int64_t count = digits ? std::stoll(text.substr(0, digits)) : 1;
  std::string unit = text.substr(digits);
  if (unit.size() == 1 && unit != "M")
    unit[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(unit[0])));
  const auto found = units.find(unit);
  if (found == units.end() || count < 1) {
    throw std::runtime_error(
        "frequency must be a number and one of us, ms, s, min, h, d, w, M (months), q, y, as in "
        "15min; got '" +
        text + "'");
  }
  return {found->second.micros * count, found->second.months * count};
}

Frequency infer_frequency(const std::vector<Time>& times) {
  if (times.size() < 2) return {};
  std::vector<Time> steps;
  for (size_t i = 1; i < times.size(); ++i) steps.push_back(times[i] - times[i - 1]);
  std::nth_element(steps.begin(), steps.begin() + static_cast<std::ptrdiff_t>(steps.size() / 2),
                   steps.end());
  const Time median = steps[steps.size() / 2];
  if (median < 28 * kDay) return {median, 0};
  const Frequency months{0,
                         std::max<int64_t>(1, (median + 15 * kDay) / (30 * kDay + kDay * 7 / 16))};
  const bool whole = months.after(times[0], 1) == times[1] &&
                     months.after(times[0], static_cast<int64_t>(times.size()) - 1) == times.back();
  return whole ? months : Frequency{median, 0};
}

torch::Tensor time_marks(const std::vector<Time>& times, const std::string& granularity) {
  // the finest unit of each granularity: features run from it to the day of the year
  static const std::map<std::string, int> first = {
      {"s", 0}, {"min", 1}, {"h", 2}, {"d", 3}, {"b", 3}};
  const bool weekly = granularity == "w", monthly = granularity == "m";
  const auto found = first.find(granularity);
  if (found == first.end() && !weekly && !monthly) {
    throw std::runtime_error("marks must be none, s, min, h, d, w or m, got '" + granularity + "'");
  }
  const int64_t count = weekly ? 2 : monthly ? 1 : 6 - found->second;
  torch::Tensor marks = torch::empty({static_cast<int64_t>(times.size()), count}, torch::kFloat64);
  double* out = marks.data_ptr<double>();
  for (const Time time : times) {
    const auto day = date::floor<date::days>(at(time));
    const date::year_month_day ymd(day);
    const auto seconds = std::chrono::floor<std::chrono::seconds>(at(time) - day).count();
    const auto of_year = (day - date::sys_days(ymd.year() / 1 / 1)).count();
    const unsigned month_day = static_cast<unsigned>(ymd.day());
    if (monthly) {
      *out++ = (static_cast<unsigned>(ymd.month()) - 1.0) / 11.0 - 0.5;
    } else if (weekly) {
      // ISO 8601: the week of a day is that of its Thursday
      const auto thursday =
          day + date::days(4 - static_cast<int>(date::weekday(day).iso_encoding()));
      const auto begin = date::sys_days(date::year_month_day(thursday).year() / 1 / 1);
      *out++ = (month_day - 1.0) / 30.0 - 0.5;
      *out++ = static_cast<double>((thursday - begin).count() / 7) / 52.0 - 0.5;
    } else {
      const std::array<double, 6> all = {static_cast<double>(seconds % 60) / 59.0 - 0.5,
                                         static_cast<double>(seconds / 60 % 60) / 59.0 - 0.5,
                                         static_cast<double>(seconds / 3600) / 23.0 - 0.5,
                                         (date::weekday(day).iso_encoding() - 1.0) / 6.0 - 0.5,
                                         (month_day - 1.0) / 30.0 - 0.5,
                                         static_cast<double>(of_year) / 365.0 - 0.5};
      out = std::copy(all.begin() + found->second, all.end(), out);
    }
  }
  return marks;
}

}  // namespace serpentine
