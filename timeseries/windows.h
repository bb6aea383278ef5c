// Sliding windows over a prepared series: the examples of forecasting.
#pragma once

#include <memory>

#include "core/data/dataset.h"
#include "timeseries/schema.h"
#include "timeseries/splits.h"

namespace serpentine {

/// A series in a schema's columns: float32, scaled, missing values 0. Undefined where there is
/// nothing.
struct PreparedSeries {
  int64_t rows = 0;           // T, rows that the file has
  torch::Tensor values;       // [T, N] targets, then past covariates
  torch::Tensor targets;      // [T, C]
  torch::Tensor mask;         // [T, N]; 1 where observed
  torch::Tensor target_mask;  // [T, C]
  torch::Tensor marks;        // [T + ahead, M]
  torch::Tensor extra;        // [T, E]
  torch::Tensor elapsed;      // [T, 1]
  torch::Tensor future;       // [T + ahead, F]
  torch::Tensor scale;        // [3, C]
};

/// Lays `series` out as `schema` says; calendar features go on for `ahead` steps (future covariates
/// as 0). Throws when a column is missing or the step is another.
PreparedSeries prepare(const SeriesSchema& schema, const Series& series, int64_t ahead = 0);

/// Windows of `seq_len` + `pred_len` rows that begin every `stride` rows within `range`.
class WindowDataset : public Dataset {
 public:
  WindowDataset(std::shared_ptr<const PreparedSeries> series, RowRange range, int64_t seq_len,
                int64_t pred_len, int64_t stride = 1);
  int64_t size() const override { return count_; }
  Batch get(int64_t index) const override;
  Batch get_batch(at::ArrayRef<int64_t> indices) const override;

 private:
  std::shared_ptr<const PreparedSeries> series_;
  RowRange range_;
  int64_t seq_len_, pred_len_, stride_, count_;
};

/// The inputs of windows whose first forecast row is `origins[i]`; the targets are absent.
Batch windows_before(const PreparedSeries& series, at::ArrayRef<int64_t> origins, int64_t seq_len,
                     int64_t pred_len);

}  // namespace serpentine
