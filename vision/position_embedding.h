// Learned and rotary positions of Vim's tokens, at any image size.
#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

namespace serpentine {

/// Where the rows of class tokens lie in a table of positions.
enum class ExtraRows { kNone, kFirst, kMiddle, kEnds };

/// A table [1, extra + h w, C] for another grid: the patches' rows bicubically (corners not
/// aligned), the class tokens' as they are.
torch::Tensor resized_positions(const torch::Tensor& table, int64_t height, int64_t width,
                                int64_t new_height, int64_t new_width, ExtraRows extra);

/// What Vim's program does for fine-tuning, whatever the class token's place: row 0 is kept, the
/// others are resized as a square. Throws unless both grids are squares.
torch::Tensor resized_positions_published(const torch::Tensor& table, int64_t num_new,
                                          int64_t num_extra = 1);

/// Rotary embedding over rows and columns of a grid. Su et al., arXiv 2104.09864; Fang et al.,
/// "EVA-02", arXiv 2303.11331. Buffers freqs_cos, freqs_sin [side side, C].
class RotaryGridImpl : public torch::nn::Module {
 public:
  RotaryGridImpl(int64_t channels, int64_t side);
  /// x: [B, T, C]. As published, of h w + 1 tokens the first stays as it is, wherever the class
  /// token stands. Other grids than the buffers' cover the same span of angles.
  torch::Tensor forward(const torch::Tensor& x, int64_t height, int64_t width) const;

 private:
  torch::Tensor angles(int64_t height, int64_t width) const;
  int64_t channels_, side_;
  torch::Tensor freqs_cos_, freqs_sin_;
};
TORCH_MODULE(RotaryGrid);

}  // namespace serpentine
