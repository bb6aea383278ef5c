// One part of an image source as examples.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/data/dataset.h"
#include "vision/augment.h"
#include "vision/image_store.h"
#include "vision/transform.h"

namespace serpentine {

/// `get` and `get_batch` give the evaluation view with the example's number in `index`; `draw` the
/// augmented one. A picture that cannot be read is reported once and left out of its batch; `get`
/// throws for it.
class ImageDataset : public Dataset {
 public:
  struct Parts {
    std::shared_ptr<const ImageStore> store;
    std::shared_ptr<ImageFaults> faults;
    std::vector<int64_t> rows, labels;  // of each example: where in the store, and its class
    std::vector<double> class_weights;  // empty: no `weight` in batches
    int64_t classes = 0;
    ImageView view;
    std::optional<ImageAugmentOptions> augment;
  };
  explicit ImageDataset(Parts parts) : parts_(std::move(parts)) {}

  int64_t size() const override { return static_cast<int64_t>(parts_.rows.size()); }
  Batch get(int64_t index) const override;
  Batch get_batch(at::ArrayRef<int64_t> indices) const override;
  Batch draw(at::ArrayRef<int64_t> indices, const Draw& how) const override;

  std::string name(int64_t index) const;
  int64_t label(int64_t index) const { return parts_.labels[static_cast<size_t>(index)]; }
  /// The picture as it is stored, uint8 [H, W, C].
  torch::Tensor picture(int64_t index) const;
  const ImageView& view() const { return parts_.view; }
  std::string faults() const { return parts_.faults->note(); }

 private:
  int64_t row(int64_t index) const;
  template <class Make>
  Batch collect(at::ArrayRef<int64_t> indices, int64_t least_side, const Make& make) const;

  Parts parts_;
};

}  // namespace serpentine
