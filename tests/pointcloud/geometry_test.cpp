// Voxels and normals against their definitions.
#include "pointcloud/geometry.h"

#include <cmath>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "pointcloud/sampling.h"
#include "support/close.h"

namespace serpentine {
namespace {

using torch::Tensor;

TEST(VoxelGrid, HoldsEveryPointOnce) {
  torch::manual_seed(0);
  for (const int64_t count : {1, 2, 500}) {
    for (const auto& [offset, side] : std::vector<std::pair<double, double>>{
             {0.0, 0.7}, {5e6, 0.7}, {5e6, 0.02}}) {  // as UTM coordinates; more cells than a table
      const Tensor points = torch::randn({count, 3}, torch::kDouble) + offset;
      const VoxelGrid grid = voxel_grid(points, side);
      std::map<std::tuple<int64_t, int64_t, int64_t>, std::vector<int64_t>> expected;
      const Tensor least = std::get<0>(points.min(0));
      for (int64_t i = 0; i < count; ++i) {
        const Tensor cell = ((points[i] - least) / side).floor().to(torch::kLong);
        expected[{cell[2].item<int64_t>(), cell[1].item<int64_t>(), cell[0].item<int64_t>()}]
            .push_back(i);
      }
      ASSERT_EQ(grid.count.size(0), static_cast<int64_t>(expected.size()));
      int64_t number = 0;
      for (const auto& [cell, members] : expected) {
        const Tensor index = torch::tensor(members);
        EXPECT_EQ(grid.count[number].item<int64_t>(), static_cast<int64_t>(members.size()));
        EXPECT_EQ(grid.first[number].item<int64_t>(), members.front());
        EXPECT_TRUE((grid.voxel.index_select(0, index) == number).all().item<bool>());
        const Tensor mean = (points - least).index_select(0, index).mean(0);
        EXPECT_TRUE(testing::is_close(grid.centroids[number] - least, mean, 1e-8));
        ++number;
      }
    }
  }
  EXPECT_EQ(voxel_grid(torch::empty({0, 3}), 1).count.size(0), 0);
}

TEST(VoxelGrid, IsThatOfExactPlacesWhateverTheType) {
  torch::manual_seed(2);
  const Tensor points = torch::randn({300, 3}).to(torch::kHalf);
  const VoxelGrid exact = voxel_grid(points.to(torch::kDouble), 0.3);
  for (const auto type : {torch::kHalf, torch::kFloat}) {
    const VoxelGrid grid = voxel_grid(points.to(type), 0.3);
    EXPECT_EQ(grid.centroids.scalar_type(), type);
    EXPECT_TRUE(grid.voxel.equal(exact.voxel) && grid.first.equal(exact.first));
    EXPECT_TRUE(grid.centroids.equal(exact.centroids.to(type)));
  }
  // rows that are not one after another
  const Tensor apart = points.to(torch::kFloat).t().contiguous().t();
  EXPECT_TRUE(voxel_grid(apart, 0.3).voxel.equal(exact.voxel));
}

TEST(VoxelGrid, RefusesTooManyCells) {
  EXPECT_THROW(voxel_grid(torch::tensor({{0.0, 0.0, 0.0}, {1e9, 0.0, 0.0}}), 0.1), c10::Error);
  EXPECT_THROW(voxel_grid(torch::full({3, 3}, NAN), 0.1), c10::Error);
  EXPECT_THROW(voxel_grid(torch::zeros({3, 3}), 0), c10::Error);
}

TEST(SurfaceNormals, StandOnASphereAndAPlane) {
  torch::manual_seed(1);
  for (const double offset : {0.0, 1e4}) {
    const Tensor radii = torch::nn::functional::normalize(
        torch::randn({2, 4000, 3}), torch::nn::functional::NormalizeFuncOptions().dim(2));
    const Tensor inside = torch::full({3}, offset);
    const SurfaceNormals found = surface_normals(radii + offset, 12, inside);
    const Tensor cosine = (found.direction * radii).sum(2);
    EXPECT_LT(cosine.max().item<float>(), 0);  // all turned to the centre
    EXPECT_LT(cosine.mean().item<float>(), -0.98);
    EXPECT_LT(found.curvature.mean().item<float>(), 0.02);
  }
  const Tensor plane = torch::rand({1, 300, 3}) * torch::tensor({1.0F, 1.0F, 0.0F});
  const SurfaceNormals flat = surface_normals(plane, 8);
  EXPECT_TRUE(testing::is_close(flat.direction,
                                torch::tensor({0.0F, 0.0F, 1.0F}).expand({1, 300, 3}), 1e-5));
  EXPECT_LT(flat.curvature.max().item<float>(), 1e-6);
}

TEST(SurfaceNormals, AreThoseOfTheEigenvectors) {
  torch::manual_seed(3);
  for (const auto type : {torch::kFloat, torch::kDouble}) {
    const Tensor points = torch::randn({2, 500, 3}, type) * torch::tensor({3.0, 1.0, 0.2}, type);
    const int64_t k = 10;
    const Tensor members =
        torch::stack(
            {points[0].index_select(0, nearest_points(points, points, k).index[0].flatten()),
             points[1].index_select(0, nearest_points(points, points, k).index[1].flatten())})
            .view({2, 500, k, 3});
    const Tensor apart = (members - members.mean(2, true)).to(torch::kDouble);
    const auto [variance, direction] = at::linalg_eigh(torch::matmul(apart.transpose(2, 3), apart));
    const SurfaceNormals found = surface_normals(points, k);
    const Tensor cosine = (direction.select(3, 0) * found.direction).sum(2).abs();
    EXPECT_GT(cosine.min().item<double>(), 1 - 1e-4);
    EXPECT_TRUE(testing::is_close(found.curvature,
                                  (variance.select(2, 0) / variance.sum(2)).to(type), 1e-4));
    EXPECT_TRUE(
        testing::is_close(found.direction.square().sum(2), torch::ones({2, 500}, type), 1e-5));
  }
}

TEST(SurfaceNormals, OfAPointDoNotDependOnOthers) {
  torch::manual_seed(4);
  const Tensor cloud = torch::randn({1, 64, 3}), away = torch::rand({1, 37, 3}) + 1000;
  const SurfaceNormals alone = surface_normals(cloud, 9),
                       beside = surface_normals(torch::cat({cloud, away}, 1), 9);
  EXPECT_TRUE(testing::is_close(alone.direction, beside.direction.narrow(1, 0, 64), 1e-6));
}

TEST(SurfaceNormals, OfEqualPointsAreNumbers) {
  const SurfaceNormals same = surface_normals(torch::ones({1, 5, 3}), 3);
  EXPECT_TRUE(same.direction.isfinite().all().item<bool>());
  EXPECT_TRUE((same.curvature == 0).all().item<bool>());
}

}  // namespace
}  // namespace serpentine
