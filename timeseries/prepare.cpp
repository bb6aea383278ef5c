// Lays a series out as a schema says.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <torch/torch.h>

#include "timeseries/windows.h"

namespace serpentine {
namespace {

struct Scaled {
  torch::Tensor values, mask;  // float32 [T, C]
};

// picks columns, standardises them, and fills missing values with 0, their mean
Scaled scaled(const Series& series, const std::vector<std::string>& names,
              const SeriesSchema& schema, int64_t first) {
  std::vector<int64_t> columns;
  for (const auto& name : names) columns.push_back(series.column(name));
  const auto count = static_cast<int64_t>(names.size());
  const auto part = [&](const std::vector<double>& all) {
    return torch::tensor(std::vector<double>(all.begin() + first, all.begin() + first + count),
                         torch::kFloat64);
  };
  const torch::Tensor raw = series.values.index_select(1, torch::tensor(columns, torch::kInt64));
  const torch::Tensor values = (raw - part(schema.mean)) / part(schema.std);
  return {values.nan_to_num(0).to(torch::kFloat32).contiguous(),
          raw.isnan().logical_not().to(torch::kFloat32)};
}

// one indicator a level; a level that training did not know is all zeros
torch::Tensor indicators(const Series& series, const std::string& name,
                         const std::vector<std::string>& levels) {
  torch::Tensor out = torch::zeros({series.rows(), static_cast<int64_t>(levels.size())});
  const auto texts = series.texts.find(name);
  if (texts == series.texts.end())
    throw std::runtime_error(series.path + ": there is no categorical column '" + name + "'");
  auto cells = out.accessor<float, 2>();
  for (int64_t row = 0; row < series.rows(); ++row) {
    for (size_t level = 0; level < levels.size(); ++level) {
      cells[row][static_cast<int64_t>(level)] = texts->second[row] == levels[level] ? 1.0f : 0.0f;
    }
  }
  return out;
}

// log of each step in median steps: 0 for a regular row, that of a thousandth for a kept duplicate
torch::Tensor elapsed_steps(const Series& series, const SeriesSchema& schema) {
  if (series.times.empty()) {
    throw std::runtime_error(
        series.path + ": the model reads the time between rows, so the file needs a date column");
  }
  const Frequency step = parse_frequency(schema.frequency);
  torch::Tensor out = torch::zeros({series.rows(), 1});
  float* cells = out.data_ptr<float>();
  for (size_t i = 1; i < series.times.size(); ++i) {
    const auto usual =
        static_cast<double>(step.after(series.times[i - 1], 1) - series.times[i - 1]);
    const double steps = static_cast<double>(series.times[i] - series.times[i - 1]) / usual;
    cells[i] = static_cast<float>(std::log(std::max(steps, 1e-3)));
  }
  return out;
}

torch::Tensor joined(const std::vector<torch::Tensor>& parts, int64_t rows) {
  if (parts.empty()) return {};
  const torch::Tensor all = torch::cat(parts, 1);
  return torch::constant_pad_nd(all, {0, 0, 0, rows - all.size(0)}).contiguous();
}

void check_step(const SeriesSchema& schema, const Series& series) {
  const std::string step = series.frequency.known() ? series.frequency.text() : "";
  if (schema.marks != "none" && series.times.empty()) {
    throw std::runtime_error(series.path +
                             ": the model reads the calendar, so the file needs a date column");
  }
  if (schema.irregular || !series.regular || step.empty() || schema.frequency.empty() ||
      series.times.size() < 2)
    return;
  if (step != schema.frequency) {
    throw std::runtime_error(series.path + ": its rows are " + step +
                             " apart, the model was trained on " + schema.frequency);
  }
}

}  // namespace

PreparedSeries prepare(const SeriesSchema& schema, const Series& series, int64_t ahead) {
  check_step(schema, series);
  PreparedSeries out;
  out.rows = series.rows();
  const auto targets = static_cast<int64_t>(schema.targets.size());
  std::vector<std::string> inputs = schema.targets;
  inputs.insert(inputs.end(), schema.past.begin(), schema.past.end());
  const Scaled all = scaled(series, inputs, schema, 0);
  out.values = all.values;
  out.targets = schema.past.empty() ? all.values : all.values.slice(1, 0, targets).contiguous();
  if (schema.masked || all.mask.min().item<float>() == 0) {
    out.mask = all.mask.contiguous();
    out.target_mask = all.mask.slice(1, 0, targets).contiguous();
  }
  if (schema.marks != "none") {
    std::vector<Time> times = series.times;
    const Frequency step =
        schema.frequency.empty() ? series.frequency : parse_frequency(schema.frequency);
    for (int64_t i = 1; i <= ahead; ++i) times.push_back(step.after(series.times.back(), i));
    out.marks = time_marks(times, schema.marks).to(torch::kFloat32);
  }
  if (schema.irregular) out.elapsed = elapsed_steps(series, schema);

  std::vector<torch::Tensor> extra, future;
  if (!schema.statics.empty()) {
    std::vector<int64_t> columns;
    for (const auto& name : schema.statics) columns.push_back(series.column(name));
    extra.push_back(series.values.index_select(1, torch::tensor(columns, torch::kInt64))
                        .nan_to_num(0)
                        .to(torch::kFloat32));
  }
  if (!schema.future.empty())
    future.push_back(
        scaled(series, schema.future, schema, static_cast<int64_t>(inputs.size())).values);
  for (const auto& [name, levels] : schema.levels) {
    const bool known = std::find(schema.future_categories.begin(), schema.future_categories.end(),
                                 name) != schema.future_categories.end();
    (known ? future : extra).push_back(indicators(series, name, levels));
  }
  out.extra = joined(extra, out.rows);
  out.future = joined(future, out.rows + ahead);
  out.scale = torch::stack({torch::tensor(schema.mean, torch::kFloat64).slice(0, 0, targets),
                            torch::tensor(schema.std, torch::kFloat64).slice(0, 0, targets),
                            torch::tensor(schema.naive_error, torch::kFloat64)})
                  .to(torch::kFloat32);
  return out;
}

}  // namespace serpentine
