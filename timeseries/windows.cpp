#include "timeseries/windows.h"

#include <cstring>
#include <stdexcept>

#include <torch/torch.h>

namespace serpentine {
namespace {

// rows [start, start + length) of [T, C] for every start -> [B, length, C]; windows are contiguous
torch::Tensor cut(const torch::Tensor& rows, const std::vector<int64_t>& starts, int64_t shift,
                  int64_t length) {
  if (!rows.defined()) return {};
  const int64_t width = rows.size(1);
  torch::Tensor out =
      torch::empty({static_cast<int64_t>(starts.size()), length, width}, rows.options());
  const float* from = rows.data_ptr<float>();
  float* to = out.data_ptr<float>();
  const auto count = static_cast<size_t>(length * width);
  for (const int64_t start : starts) {
    TORCH_CHECK(start + shift >= 0 && start + shift + length <= rows.size(0), "windows: rows ",
                start + shift, " to ", start + shift + length, " are asked for, the series has ",
                rows.size(0));
    std::memcpy(to, from + (start + shift) * width, count * sizeof(float));
    to += count;
  }
  return out;
}

Batch inputs(const PreparedSeries& series, const std::vector<int64_t>& starts, int64_t seq_len,
             int64_t pred_len) {
  Batch batch;
  batch.input = cut(series.values, starts, 0, seq_len);
  const auto set = [&](const char* name, const torch::Tensor& rows, int64_t shift, int64_t length) {
    if (rows.defined()) batch.named[name] = cut(rows, starts, shift, length);
  };
  set("mask", series.mask, 0, seq_len);
  set("marks", series.marks, 0, seq_len);
  set("future_marks", series.marks, seq_len, pred_len);
  set("extra", series.extra, 0, seq_len);
  set("elapsed", series.elapsed, 0, seq_len);
  set("future", series.future, 0, seq_len + pred_len);
  batch.named["scale"] =
      series.scale.unsqueeze(0).expand({static_cast<int64_t>(starts.size()), -1, -1});
  return batch;
}

}  // namespace

WindowDataset::WindowDataset(std::shared_ptr<const PreparedSeries> series, RowRange range,
                             int64_t seq_len, int64_t pred_len, int64_t stride)
    : series_(std::move(series)),
      range_(range),
      seq_len_(seq_len),
      pred_len_(pred_len),
      stride_(stride) {
  count_ = (range.windows(seq_len + pred_len) + stride - 1) / stride;
}

Batch WindowDataset::get(int64_t index) const {
  Batch batch = get_batch(index);
  batch.input = batch.input.squeeze(0);
  batch.target = batch.target.squeeze(0);
  for (auto& [name, tensor] : batch.named) tensor = tensor.squeeze(0);
  return batch;
}

Batch WindowDataset::get_batch(at::ArrayRef<int64_t> indices) const {
  std::vector<int64_t> starts;
  for (const int64_t index : indices) {
    if (index < 0 || index >= count_) {
      throw std::out_of_range("windows: example " + std::to_string(index) + " of " +
                              std::to_string(count_));
    }
    starts.push_back(range_.begin + index * stride_);
  }
  Batch batch = inputs(*series_, starts, seq_len_, pred_len_);
  batch.target = cut(series_->targets, starts, seq_len_, pred_len_);
  if (series_->target_mask.defined())
    batch.named["target_mask"] = cut(series_->target_mask, starts, seq_len_, pred_len_);
  return batch;
}

Batch windows_before(const PreparedSeries& series, at::ArrayRef<int64_t> origins, int64_t seq_len,
                     int64_t pred_len) {
  std::vector<int64_t> starts;
  for (const int64_t origin : origins) starts.push_back(origin - seq_len);
  return inputs(series, starts, seq_len, pred_len);
}

}  // namespace serpentine
