#include "timeseries/npz.h"

#include <torch/torch.h>

#include "core/io/npy.h"

namespace serpentine {

torch::Tensor read_npz_series(const std::string& path, const std::string& array, int64_t channel) {
  const StateDict arrays = read_npz(path);
  std::string names;
  for (const auto& [name, values] : arrays) {
    names += (names.empty() ? "" : ", ") + name;
    if (name != array) continue;
    TORCH_CHECK(values.dim() == 2 || values.dim() == 3, path, ": array '", array,
                "' must be [T, N] or [T, N, channels], got ", values.sizes());
    TORCH_CHECK(values.numel() > 0, path, ": array '", array, "' is empty");
    if (values.dim() == 2) return values.to(torch::kDouble).contiguous();
    TORCH_CHECK(channel < values.size(2), path, ": array '", array, "' has ", values.size(2),
                " channels, channel ", channel, " is asked for (they count from 0)");
    return values.select(2, channel).to(torch::kDouble).contiguous();
  }
  TORCH_CHECK(false, path, ": holds no array '", array, "', only: ", names);
}

}  // namespace serpentine
