#include "vision/image_dataset.h"

#include <algorithm>
#include <stdexcept>

#include <torch/torch.h>

namespace serpentine {

int64_t ImageDataset::row(int64_t index) const {
  if (index < 0 || index >= size()) throw std::out_of_range("ImageDataset");
  return parts_.rows[static_cast<size_t>(index)];
}

std::string ImageDataset::name(int64_t index) const { return parts_.store->name(row(index)); }

torch::Tensor ImageDataset::picture(int64_t index) const {
  return parts_.store->picture(row(index));
}

Batch ImageDataset::get(int64_t index) const {
  const auto& view = parts_.view;
  const auto picture = parts_.store->picture(row(index), std::max(view.height, view.width));
  Batch batch;
  batch.input = normalised(to_unit(centre_view(picture, view)), view);
  batch.target = torch::tensor(label(index), torch::kLong);
  batch.named["index"] = torch::tensor(index, torch::kLong);
  return batch;
}

/// The examples that `make` gives for (position, picture), stacked.
template <class Make>
Batch ImageDataset::collect(at::ArrayRef<int64_t> indices, int64_t least_side,
                            const Make& make) const {
  std::vector<torch::Tensor> inputs;
  std::vector<int64_t> targets, kept;
  std::vector<float> weights;
  for (size_t i = 0; i < indices.size(); ++i) {
    torch::Tensor picture;
    try {
      picture = parts_.store->picture(row(indices[i]), least_side);
    } catch (const std::out_of_range&) {
      throw;
    } catch (const std::runtime_error& error) {
      parts_.faults->report(name(indices[i]), error.what());
      continue;
    }
    inputs.push_back(make(i, picture));
    targets.push_back(label(indices[i]));
    kept.push_back(indices[i]);
    if (!parts_.class_weights.empty() && targets.back() >= 0)
      weights.push_back(
          static_cast<float>(parts_.class_weights[static_cast<size_t>(targets.back())]));
  }
  Batch batch;
  if (inputs.empty()) return batch;
  batch.input = torch::stack(inputs);
  batch.target = torch::tensor(targets, torch::kLong);
  batch.named["index"] = torch::tensor(kept, torch::kLong);
  if (weights.size() == targets.size()) batch.named["weight"] = torch::tensor(weights);
  return batch;
}

Batch ImageDataset::get_batch(at::ArrayRef<int64_t> indices) const {
  const auto& view = parts_.view;
  const auto shape = parts_.store->shape();
  const bool as_stored = shape.size() == 3 && shape[0] == view.height && shape[1] == view.width &&
                         shape[2] == view.channels && view.crop_ratio == 1;
  if (!as_stored) {
    return collect(indices, std::max(view.height, view.width),
                   [&](size_t, const torch::Tensor& picture) {
                     return normalised(to_unit(centre_view(picture, view)), view);
                   });
  }
  std::vector<int64_t> rows, targets;
  for (const int64_t index : indices) {
    rows.push_back(row(index));
    targets.push_back(label(index));
  }
  Batch batch;
  if (rows.empty()) return batch;
  batch.input =
      normalised(to_unit(parts_.store->pictures(rows).permute({0, 3, 1, 2}).contiguous()), view);
  batch.target = torch::tensor(targets, torch::kLong);
  batch.named["index"] = torch::tensor(indices, torch::kLong);
  return batch;
}

Batch ImageDataset::draw(at::ArrayRef<int64_t> indices, const Draw& how) const {
  if (!parts_.augment) return get_batch(indices);
  const ImageAugmentOptions& options = *parts_.augment;
  const auto& view = parts_.view;
  // a part of a picture is enlarged to the view: twice its size keeps the detail of most parts
  const int64_t side =
      std::max(view.height, view.width) * (options.crop == "random_resized" ? 2 : 1);
  Batch batch = collect(indices, side, [&](size_t i, const torch::Tensor& picture) {
    const int64_t copy = how.copies.empty() ? 0 : how.copies[i];
    Random random(how.seed, how.epoch, {indices[i], copy});
    return augmented(picture, view, options, random);
  });
  if (batch.size() == 0) return batch;
  Random random(how.seed, how.epoch, {indices[0], how.copies.empty() ? 0 : how.copies[0], -1});
  mix_batch(batch, parts_.classes, options, random);
  return batch;
}

}  // namespace serpentine
