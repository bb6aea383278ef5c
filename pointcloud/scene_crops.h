// Scenes with more points than fit, piece by piece.
#pragma once

#include <functional>

#include <torch/types.h>

namespace serpentine {

using OfPoints =
    std::function<torch::Tensor(const torch::Tensor& points,      // [1, n, 3]
                                const torch::Tensor& features)>;  // [1, n, C] or undefined

/// Cuts each scene along x and y into about N / most_points pieces (a grid out of Point Cloud
/// Mamba's table: 1 x 2, 2 x 2 ... 5 x 5, the finer side along the longer axis), moves each to its
/// own least coordinates, and puts the results back at their points. points: [B, N, 3]; features:
/// [B, N, C] or undefined -> [B, N, ...]. Waits for a GPU. Zhang et al., arXiv 2403.00762, BaseSeg.
torch::Tensor by_crops(const torch::Tensor& points, const torch::Tensor& features,
                       int64_t most_points, const OfPoints& of_points);

}  // namespace serpentine
