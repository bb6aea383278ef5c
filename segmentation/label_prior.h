// The baseline that looks at no image: the label that is most frequent at each relative place.
#pragma once

#include <array>
#include <vector>

#include <torch/types.h>

namespace serpentine {

/// Every label volume [D, H, W] is brought to `size`; each voxel gets the value that most of them
/// have there (of equal ones the smallest). int32.
torch::Tensor label_prior(const std::vector<torch::Tensor>& labels,
                          const std::array<int64_t, 3>& size);

}  // namespace serpentine
