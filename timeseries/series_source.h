// The data section of a forecasting run: a file, the roles of its columns, and how it is cut.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/data/source.h"
#include "timeseries/schema.h"
#include "timeseries/splits.h"
#include "timeseries/windows.h"

namespace serpentine {

struct SeriesOptions {
  std::string path;
  FileOptions file;
  int64_t seq_len = 96, pred_len = 96, stride = 1;
  std::vector<std::string> targets, past, future, statics;
  std::string move_last;
  std::string split = "ratio";
  std::vector<double> ratios = {0.7, 0.1, 0.2};
  bool scale = true;
  std::string marks = "h", elapsed = "auto";
  int64_t period = 0;
  void fields(Fields& f);
};

class SeriesSource : public DataSource {
 public:
  explicit SeriesSource(const SeriesOptions& options);
  SeriesSource(const SeriesOptions& options, Series series);  // a series that is already in memory

  std::shared_ptr<const Dataset> part(Part which) const override;
  void fill_model(Config& model, const Config& task) override;
  nlohmann::json description() const override;
  std::vector<std::string> notes() const override { return notes_; }

  const Series& series() const { return series_; }
  const SeriesSchema& schema() const { return schema_; }
  const Borders& borders() const { return borders_; }

 private:
  void check_rows() const;

  SeriesOptions options_;
  Series series_;
  Borders borders_;
  SeriesSchema schema_;
  std::vector<std::string> notes_;
  std::shared_ptr<const PreparedSeries> prepared_;
};

/// The columns' roles, and their scaling from the rows of `train`. Appends to `notes`.
SeriesSchema make_schema(const SeriesOptions& options, const Series& series, RowRange train,
                         std::vector<std::string>& notes);

}  // namespace serpentine
