// Distances and components against their definitions.
#include "segmentation/distance.h"

#include "support/close.h"

namespace serpentine::testing {
namespace {

/// From every voxel to every true one.
torch::Tensor by_search(const torch::Tensor& mask, const Spacing& spacing) {
  auto far = torch::full(mask.sizes(), std::numeric_limits<float>::infinity());
  const auto places = mask.nonzero().to(torch::kDouble) *
                      torch::tensor({spacing[0], spacing[1], spacing[2]}, torch::kDouble);
  for (int64_t z = 0; z < mask.size(0); ++z) {
    for (int64_t y = 0; y < mask.size(1); ++y) {
      for (int64_t x = 0; x < mask.size(2); ++x) {
        const auto here =
            torch::tensor({static_cast<double>(z) * spacing[0], static_cast<double>(y) * spacing[1],
                           static_cast<double>(x) * spacing[2]},
                          torch::kDouble);
        if (places.size(0) > 0)
          far[z][y][x] = (places - here).square().sum(1).min().sqrt().item<double>();
      }
    }
  }
  return far;
}

TEST(Distance, EqualsTheSearch) {
  torch::manual_seed(3);
  for (const auto& spacing : {Spacing{1, 1, 1}, Spacing{5, 0.7, 0.3}}) {
    for (const double density : {0.02, 0.3}) {
      const auto mask = torch::rand({5, 9, 11}).lt(density);
      expect_close(distance_to(mask, spacing), by_search(mask, spacing), 1e-6);
    }
  }
}

TEST(Distance, IsInfiniteWithoutAVoxelAndZeroWithAll) {
  const auto none = torch::zeros({2, 3, 4}, torch::kBool);
  EXPECT_TRUE(distance_to(none, {1, 1, 1}).isinf().all().item<bool>());
  EXPECT_EQ(distance_to(~none, {1, 1, 1}).max().item<double>(), 0);
}

TEST(Surface, IsTheSkin) {
  auto mask = torch::zeros({7, 7, 7}, torch::kBool);
  mask.slice(0, 1, 6).slice(1, 1, 6).slice(2, 1, 6).fill_(true);
  EXPECT_EQ(surface_of(mask).sum().item<int64_t>(), 125 - 27);
}

TEST(Components, SeparateAndNumberInOrder) {
  auto mask = torch::zeros({1, 4, 6}, torch::kBool);
  mask[0][0].slice(0, 0, 2).fill_(true);
  mask[0][1][2] = true;  // touches the first over a corner
  mask[0][3].slice(0, 3, 6).fill_(true);
  int64_t count = 0;
  const auto faces = components_of(mask, false, &count);
  EXPECT_EQ(count, 3);
  EXPECT_EQ(faces[0][0][0].item<int64_t>(), 1);
  EXPECT_EQ(faces[0][3][5].item<int64_t>(), 3);
  components_of(mask, true, &count);
  EXPECT_EQ(count, 2);
  EXPECT_EQ(largest_component(mask).sum().item<int64_t>(), 3);
}

TEST(Components, JoinBranchesThatMeetLate) {
  auto mask = torch::zeros({1, 5, 5}, torch::kBool);
  mask[0].select(1, 0).fill_(true);
  mask[0].select(1, 4).fill_(true);
  mask[0][4].fill_(true);  // a U
  int64_t count = 0;
  components_of(mask, false, &count);
  EXPECT_EQ(count, 1);
}

/// By their definition, from numbered components.
torch::Tensor largest_by_numbers(const torch::Tensor& mask) {
  int64_t count = 0, best = 0, most = 0;
  const auto numbers = components_of(mask, false, &count);
  for (int64_t k = 1; k <= count; ++k) {
    const auto voxels = numbers.eq(k).sum().item<int64_t>();
    if (voxels > most) best = k;
    most = std::max(most, voxels);
  }
  return best > 0 ? numbers.eq(best) : mask;
}

torch::Tensor holes_by_numbers(const torch::Tensor& mask) {
  int64_t count = 0;
  const auto numbers = components_of(mask.logical_not(), false, &count);
  auto whole = mask.clone();
  for (int64_t k = 1; k <= count; ++k) {
    const auto part = numbers.eq(k);
    bool open = false;
    for (int64_t axis = 0; axis < 3; ++axis) {
      if (mask.size(axis) == 1) continue;
      open = open || part.select(axis, 0).any().item<bool>() ||
             part.select(axis, mask.size(axis) - 1).any().item<bool>();
    }
    if (!open) whole.logical_or_(part);
  }
  return whole;
}

TEST(Components, LargestAndHolesAreThoseOfTheNumbers) {
  torch::manual_seed(11);
  for (const auto& size : {std::vector<int64_t>{1, 17, 23}, {9, 8, 7}, {6, 1, 30}, {1, 1, 1}}) {
    for (const double share : {0., 0.2, 0.4, 0.6, 0.8, 1.}) {
      const auto mask = torch::rand(size).lt(share);
      expect_equal(largest_component(mask), largest_by_numbers(mask));
      expect_equal(without_holes(mask), holes_by_numbers(mask));
    }
  }
  const auto turned = torch::rand({5, 9, 7}).lt(0.5).transpose(0, 2);  // not contiguous
  expect_equal(largest_component(turned), largest_by_numbers(turned));
  expect_equal(without_holes(turned), holes_by_numbers(turned));
}

TEST(Holes, AreFilledUnlessOpen) {
  auto ring = torch::zeros({1, 5, 5}, torch::kBool);
  ring[0].slice(0, 1, 4).slice(1, 1, 4).fill_(true);
  ring[0][2][2] = false;
  EXPECT_EQ(without_holes(ring).sum().item<int64_t>(), 9);
  ring[0][1][2] = false;
  EXPECT_EQ(without_holes(ring).sum().item<int64_t>(), ring.sum().item<int64_t>());
}

}  // namespace
}  // namespace serpentine::testing
