#include "pathology/memory_budget.h"

#include <cstdio>
#include <cstdlib>
#include <map>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "core/check.h"

namespace serpentine {
namespace {

std::string gibibytes(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GiB", bytes / static_cast<double>(int64_t{1} << 30));
  return text;
}

}  // namespace

int64_t parse_bytes(const std::string& who, const std::string& text) {
  if (text.empty()) return 0;
  const std::map<std::string, double> units = {
      {"", 1},      {"B", 1},        {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9},
      {"TB", 1e12}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
  size_t end = 0;
  double number = -1;
  try {
    number = std::stod(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  while (end < text.size() && text[end] == ' ') ++end;
  const auto unit = units.find(text.substr(end));
  const bool good = number > 0 && unit != units.end() && number * unit->second < 0x1p60;
  SERPENTINE_CHECK(good, who, "memory_budget must be a size such as 8GiB or 500MB, got '", text,
                   "'");
  return static_cast<int64_t>(number * unit->second);
}

MemoryBudget::MemoryBudget(std::string who, const std::string& budget)
    : who_(std::move(who)), budget_(parse_bytes(who_, budget)) {
#ifdef __GLIBC__
  if (budget_ == 0) return;
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  mallopt(M_TRIM_THRESHOLD, 16 << 20);
#endif
}

int64_t MemoryBudget::parts(int64_t tiles, int64_t whole, int64_t apart, int64_t most) {
  if (budget_ == 0) return 1;
  const auto total = [&](int64_t parts) {
    return static_cast<double>(tiles) *
           (static_cast<double>(whole) + static_cast<double>(apart) / static_cast<double>(parts));
  };
  const auto budget = static_cast<double>(budget_);
  if (total(1) <= budget) return 1;
  int64_t parts = 1;
  while (parts < most && total(parts) > budget) parts = std::min(2 * parts, most);
  SERPENTINE_CHECK(total(parts) <= budget, who_, "a bag of ", tiles, " tiles takes ",
                   gibibytes(total(parts)), " even in ", parts, " parts; the memory_budget of ",
                   gibibytes(budget), " cannot be kept");
  if (tiles >= 2 * told_) {
    told_ = tiles;
    std::fprintf(stderr,
                 "%s: %lld tiles would take about %s; in %lld parts %s, for computing them twice. "
                 "Not counted: other bags in memory (data.keep, loader.prefetch), weights and the "
                 "optimizer, the program\n",
                 who_.c_str(), static_cast<long long>(tiles), gibibytes(total(1)).c_str(),
                 static_cast<long long>(parts), gibibytes(total(parts)).c_str());
  }
  return parts;
}

int64_t MemoryBudget::rows(int64_t tiles, int64_t whole, int64_t apart) {
  constexpr int64_t kMostParts = 4096;
  const int64_t count = parts(tiles, whole, apart, std::min(kMostParts, tiles));
  return count == 1 ? 0 : (tiles + count - 1) / count;
}

}  // namespace serpentine
