#include "timeseries/splits.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace serpentine {
namespace {

Borders months(int64_t rows_a_month, int64_t rows, int64_t seq_len, const std::string& split,
               const std::string& path) {
  const int64_t train = 12 * rows_a_month, validation = 4 * rows_a_month, test = 4 * rows_a_month;
  if (rows < train + validation + test) {
    throw std::runtime_error(path + ": data.split " + split + " needs " +
                             std::to_string(train + validation + test) + " rows, the file has " +
                             std::to_string(rows));
  }
  return {{0, train},
          {train - seq_len, train + validation},
          {train + validation - seq_len, train + validation + test}};
}

}  // namespace

Borders split_rows(const std::string& path, const std::string& split, int64_t rows, int64_t seq_len,
                   const std::vector<double>& ratios) {
  if (split == "etth") return months(30 * 24, rows, seq_len, split, path);
  if (split == "ettm") return months(30 * 24 * 4, rows, seq_len, split, path);
  const bool valid =
      ratios.size() == 3 &&
      std::all_of(ratios.begin(), ratios.end(), [](double r) { return r >= 0 && r <= 1; }) &&
      std::accumulate(ratios.begin(), ratios.end(), 0.0) <= 1 + 1e-9 && ratios[0] > 0;
  if (!valid)
    throw std::runtime_error(
        path +
        ": data.ratios must be three numbers (train, validation, test) that add up to at most 1");
  const auto part = [&](double ratio) {
    return static_cast<int64_t>(static_cast<double>(rows) * ratio);
  };
  const int64_t train = part(ratios[0]);
  if (split == "pems") {
    const int64_t both = part(ratios[0] + ratios[1]);
    return {{0, train}, {train, both}, {both, rows}};
  }
  if (split != "ratio" && split != "solar")
    throw std::runtime_error(path + ": data.split must be etth, ettm, ratio, solar or pems, got '" +
                             split + "'");
  const int64_t test = part(ratios[2]);
  const bool rest = split == "ratio" && ratios[1] > 0;
  const int64_t validation = rest ? rows - train - test : part(ratios[1]);
  const auto early = [&](int64_t begin) { return std::max<int64_t>(0, begin - seq_len); };
  return {{0, train}, {early(train), train + validation}, {early(rows - test), rows}};
}

}  // namespace serpentine
