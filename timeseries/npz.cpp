#include "timeseries/npz.h"

#include <stdexcept>

#include <torch/torch.h>

namespace serpentine {

torch::Tensor read_npz_series(const std::string& path, const std::string& array, int64_t channel) {
  (void)array;
  (void)channel;
  throw std::runtime_error(path + ": npz files are not read yet");
}

}  // namespace serpentine
