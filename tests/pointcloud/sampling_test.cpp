// Point operations against their definitions, written as loops; on a GPU also against the CPU.
#include "pointcloud/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "support/close.h"

namespace serpentine {
namespace {

using torch::Tensor;

struct SamplingCase {
  int64_t batch, points;
  const char* kind;
};

// "random"; "grid": many equal distances; "same": all points equal; "line": one axis only
Tensor cloud(const SamplingCase& of, int64_t seed = 0) {
  torch::manual_seed(seed);
  const std::string kind = of.kind;
  Tensor points = torch::randn({of.batch, of.points, 3});
  if (kind == "grid") points = torch::randint(0, 4, points.sizes()).to(torch::kFloat);
  if (kind == "same") points = torch::ones_like(points);
  if (kind == "line") points = points * torch::tensor({1.0F, 0.0F, 0.0F});
  if (kind == "far") points = points + 1e4;
  return points;
}

float squared(const float* a, const float* b) {
  const float x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
  const float xx = x * x, yy = y * y, zz = z * z;
  return (xx + yy) + zz;
}

std::vector<int64_t> farthest_by_definition(const Tensor& points, int64_t count, bool away) {
  const auto* p = points.const_data_ptr<float>();
  const int64_t all = points.size(0);
  const float zero[3] = {0, 0, 0};
  std::vector<int64_t> chosen = {0};
  while (static_cast<int64_t>(chosen.size()) < count) {
    int64_t best = 0;
    float best_distance = -1;
    for (int64_t i = 0; i < all; ++i) {
      if (away && squared(p + 3 * i, zero) <= 1e-3F) continue;
      float nearest = 1e10F;
      for (const int64_t c : chosen) nearest = std::min(nearest, squared(p + 3 * i, p + 3 * c));
      if (nearest > best_distance) {
        best_distance = nearest;
        best = i;
      }
    }
    chosen.push_back(best);
  }
  return chosen;
}

class PointOperation : public ::testing::TestWithParam<SamplingCase> {
 protected:
  Tensor points_ = cloud(GetParam());
  std::vector<torch::Device> devices_ = torch::cuda::is_available()
                                            ? std::vector<torch::Device>{torch::kCPU, torch::kCUDA}
                                            : std::vector<torch::Device>{torch::kCPU};
};

TEST_P(PointOperation, FarthestPointsFollowBothConventions) {
  const Tensor near_zero = points_ * 0.05;  // so that some points lie within sqrt(1e-3) of zero
  for (const int64_t count : {int64_t{1}, (GetParam().points + 1) / 2, GetParam().points}) {
    for (const bool away : {false, true}) {
      const auto rule = away ? FarthestRule::kAwayFromZero : FarthestRule::kAllPoints;
      for (const auto device : devices_) {
        const Tensor chosen = farthest_points(near_zero.to(device), count, rule).cpu();
        for (int64_t b = 0; b < GetParam().batch; ++b) {
          const auto expected = farthest_by_definition(near_zero[b], count, away);
          EXPECT_TRUE(chosen[b].equal(torch::tensor(expected))) << device << " " << away;
        }
      }
    }
  }
}

TEST_P(PointOperation, FarthestPointsOfOtherTypesAreTheSame) {
  const int64_t count = (GetParam().points + 1) / 2;
  if (std::string(GetParam().kind) == "random") {
    EXPECT_TRUE(
        farthest_points(points_, count).equal(farthest_points(points_.to(torch::kDouble), count)));
  }
}

TEST_P(PointOperation, NearestPointsAreTheNearest) {
  Tensor queries = torch::cat({cloud({GetParam().batch, 7, "random"}, 1), points_}, 1);
  for (const int64_t k : {int64_t{1}, std::min<int64_t>(5, GetParam().points),
                          std::min<int64_t>(20, GetParam().points), GetParam().points}) {
    const Neighbours tree = nearest_points(queries, points_, k);
    const auto all = squared_distances(queries, points_);
    for (int64_t b = 0; b < queries.size(0); ++b) {
      for (int64_t s = 0; s < queries.size(1); ++s) {
        const auto* row = all[b][s].const_data_ptr<float>();
        std::vector<int64_t> order(points_.size(1));
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(),
                         [&](int64_t i, int64_t j) { return row[i] < row[j]; });
        order.resize(k);
        ASSERT_TRUE(tree.index[b][s].equal(torch::tensor(order))) << "query " << s << " k " << k;
      }
    }
    EXPECT_TRUE(tree.squared_distance.equal(all.gather(2, tree.index)));
    for (const auto device : devices_) {
      if (device.is_cpu()) continue;
      const auto there = nearest_points(queries.to(device), points_.to(device), k);
      EXPECT_TRUE(there.squared_distance.cpu().equal(tree.squared_distance));
    }
    const auto twice = nearest_points(queries.to(torch::kDouble), points_.to(torch::kDouble), k);
    EXPECT_TRUE(testing::is_close(tree.squared_distance, twice.squared_distance, 1e-5));
  }
}

TEST_P(PointOperation, BallsHoldTheFirstPointsInside) {
  const Tensor queries = torch::cat({points_, points_ + 100}, 1);
  const double radius = 1.1;
  const int64_t k = 4;
  for (const auto device : devices_) {
    const Tensor found = ball_query(queries.to(device), points_.to(device), radius, k).cpu();
    for (int64_t b = 0; b < queries.size(0); ++b) {
      for (int64_t s = 0; s < queries.size(1); ++s) {
        std::vector<int64_t> expected;
        for (int64_t i = 0; i < points_.size(1) && static_cast<int64_t>(expected.size()) < k; ++i) {
          const float d =
              squared(queries[b][s].const_data_ptr<float>(), points_[b][i].const_data_ptr<float>());
          if (d < radius * radius) expected.push_back(i);
        }
        expected.resize(k, expected.empty() ? 0 : expected[0]);
        ASSERT_TRUE(found[b][s].equal(torch::tensor(expected))) << device << " query " << s;
      }
    }
  }
}

TEST_P(PointOperation, InterpolationKeepsKnownValuesAndHasGradients) {
  const Tensor features = torch::randn({GetParam().batch, GetParam().points, 4});
  const Tensor constant = interpolate_features(points_ + 0.1, points_, torch::ones_like(features));
  EXPECT_TRUE(testing::is_close(constant, torch::ones_like(features), 1e-6));
  if (std::string(GetParam().kind) != "random") return;
  EXPECT_TRUE(testing::is_close(interpolate_features(points_, points_, features), features, 1e-3));

  const Tensor queries = (points_ + 0.3).to(torch::kDouble).requires_grad_();
  const Tensor known = features.to(torch::kDouble).requires_grad_();
  const Tensor places = points_.to(torch::kDouble);
  interpolate_features(queries, places, known).square().sum().backward();
  const double step = 1e-5;
  for (auto* input : {&queries, &known}) {
    const Tensor move = torch::randn_like(*input) * step;
    const auto value = [&](double sign) {
      const torch::NoGradGuard no_grad;
      const Tensor q = input == &queries ? queries + sign * move : queries,
                   f = input == &known ? known + sign * move : known;
      return interpolate_features(q, places, f).square().sum().item<double>();
    };
    const Tensor known_gradient =  // a single point's features are copied, wherever the query is
        input->grad().defined() ? input->grad() : torch::zeros_like(*input);
    const double expected = (known_gradient * move).sum().item<double>();
    EXPECT_NEAR((value(1) - value(-1)) / 2, expected, 1e-5 * std::abs(expected) + 1e-9);
  }
}

INSTANTIATE_TEST_SUITE_P(
    , PointOperation,
    ::testing::Values(SamplingCase{2, 1, "random"}, SamplingCase{1, 2, "random"},
                      SamplingCase{3, 33, "random"}, SamplingCase{2, 257, "random"},
                      SamplingCase{2, 100, "grid"}, SamplingCase{1, 50, "same"},
                      SamplingCase{1, 130, "line"}, SamplingCase{1, 90, "far"}),
    [](const auto& of) {
      return std::string(of.param.kind) + "_B" + std::to_string(of.param.batch) + "_N" +
             std::to_string(of.param.points);
    });

// sizes at which trees are built in pieces, farthest points are looked for in buckets, and balls in
// a tree
struct LargeCloud : ::testing::TestWithParam<const char*> {};

TEST_P(LargeCloud, HasTheSameAnswersByShorterWays) {
  const int64_t count = 20011;
  const Tensor points = cloud({1, count, GetParam()}, 5);
  const Tensor queries = torch::cat({points.narrow(1, 0, 40), cloud({1, 40, "random"}, 6)}, 1);
  const auto all = squared_distances(queries, points);
  const Neighbours near = nearest_points(queries, points, 9);
  const double radius = std::string(GetParam()) == "far" ? 0.9 : 0.6;
  const Tensor balls = ball_query(queries, points, radius, 17);
  const auto limit = static_cast<float>(radius * radius);
  for (int64_t s = 0; s < queries.size(1); ++s) {
    const auto [distance, order] = all[0][s].sort(std::optional<bool>(true), 0, false);
    EXPECT_TRUE(near.index[0][s].equal(order.narrow(0, 0, 9))) << s;
    EXPECT_TRUE(near.squared_distance[0][s].equal(distance.narrow(0, 0, 9))) << s;
    Tensor inside = all[0][s].lt(limit).nonzero().squeeze(1);
    if (inside.size(0) == 0) inside = torch::zeros({1}, torch::kLong);
    inside = inside.narrow(0, 0, std::min<int64_t>(17, inside.size(0)));
    const Tensor filled = torch::cat({inside, inside[0].expand({17 - inside.size(0)})});
    EXPECT_TRUE(balls[0][s].equal(filled)) << s;
  }
  // asked for itself, a cloud is walked leaf by leaf
  const Neighbours own = nearest_points(points, points, 3);
  const Neighbours again = nearest_points(points.clone(), points, 3);
  EXPECT_TRUE(own.index.equal(again.index));

  for (const bool away : {false, true}) {
    const Tensor near_zero = points.narrow(1, 0, 9001) * 0.02;
    const auto expected = farthest_by_definition(near_zero[0], 100, away);
    const auto rule = away ? FarthestRule::kAwayFromZero : FarthestRule::kAllPoints;
    EXPECT_TRUE(farthest_points(near_zero, 100, rule)[0].equal(torch::tensor(expected))) << away;
    if (!torch::cuda::is_available()) continue;
    const Tensor several = near_zero.expand({3, -1, -1}).cuda();  // more blocks than one a cloud
    const Tensor chosen = farthest_points(several, 100, rule).cpu();
    for (int64_t b = 0; b < 3; ++b) EXPECT_TRUE(chosen[b].equal(torch::tensor(expected))) << b;
  }
  if (!torch::cuda::is_available()) return;
  const Neighbours there = nearest_points(queries.cuda(), points.cuda(), 9);
  EXPECT_TRUE(there.index.cpu().equal(near.index));
  EXPECT_TRUE(there.squared_distance.cpu().equal(near.squared_distance));
  EXPECT_TRUE(ball_query(queries.cuda(), points.cuda(), radius, 17).cpu().equal(balls));
}

INSTANTIATE_TEST_SUITE_P(, LargeCloud, ::testing::Values("random", "grid", "same", "line", "far"));

TEST(PointOperations, DoNotDependOnTheNumberOfThreads) {
  const Tensor points = cloud({3, 12000, "random"}, 2);
  const int threads = torch::get_num_threads();
  torch::set_num_threads(1);
  const Neighbours one = nearest_points(points, points, 5);
  const Tensor farthest = farthest_points(points, 200), balls = ball_query(points, points, 0.2, 8);
  torch::set_num_threads(3);
  const Neighbours three = nearest_points(points, points, 5);
  EXPECT_TRUE(one.index.equal(three.index));
  EXPECT_TRUE(farthest.equal(farthest_points(points, 200)));
  EXPECT_TRUE(balls.equal(ball_query(points, points, 0.2, 8)));
  torch::set_num_threads(threads);
}

TEST(PointOperations, TakeCoordinatesThatAreNoNumbers) {
  Tensor points = torch::randn({1, 9000, 3});
  points[0][5].fill_(NAN);
  points[0][6][1] = INFINITY;
  EXPECT_EQ(nearest_points(points, points, 3).index.max().item<int64_t>() < 9000, true);
  EXPECT_EQ(ball_query(points, points, 0.1, 3).max().item<int64_t>() < 9000, true);
  const Tensor chosen = farthest_points(points, 100);
  EXPECT_TRUE(chosen.ge(0).logical_and(chosen.lt(9000)).all().item<bool>());
}

TEST(PointOperations, RefuseWhatTheyCannotDo) {
  const Tensor points = torch::randn({1, 5, 3});
  EXPECT_THROW(farthest_points(points, 6), c10::Error);
  EXPECT_THROW(farthest_points(points, 0), c10::Error);
  EXPECT_THROW(nearest_points(points, points, 6), c10::Error);
  EXPECT_THROW(ball_query(points, points, 0, 3), c10::Error);
  EXPECT_THROW(farthest_points(torch::randn({1, 5, 2}), 1), c10::Error);
  EXPECT_THROW(nearest_points(points, torch::randn({2, 5, 3}), 1), c10::Error);
}

}  // namespace
}  // namespace serpentine
