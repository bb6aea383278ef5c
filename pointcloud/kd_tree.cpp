#include "pointcloud/kd_tree.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

namespace serpentine {
namespace {

constexpr int64_t kLeaf = 24;        // points that are compared one by one
constexpr double kSlack = 1 - 1e-6;  // a float32 distance may be rounded below the box's

}  // namespace

// the best so far, ascending; `worst` is the distance that a further point must not exceed
struct KdTree::Search {
  const float* query;
  int64_t k, found = 0;
  int64_t* index;
  float* distance;
  float worst = std::numeric_limits<float>::infinity();

  void offer(float d, int64_t i) {
    if (found == k && (d > worst || (d == worst && i > index[k - 1]))) return;
    int64_t at = found < k ? found++ : k - 1;
    while (at > 0 && (distance[at - 1] > d || (distance[at - 1] == d && index[at - 1] > i))) {
      distance[at] = distance[at - 1];
      index[at] = index[at - 1];
      --at;
    }
    distance[at] = d;
    index[at] = i;
    if (found == k) worst = distance[k - 1];
  }
};

KdTree::KdTree(const float* points, int64_t count) : order_(count) {
  std::iota(order_.begin(), order_.end(), 0);
  nodes_.reserve(4 * count / kLeaf + 1);
  build(points, 0, count);
  for (auto* axis : {&x_, &y_, &z_}) axis->resize(count);
  for (int64_t i = 0; i < count; ++i) {
    const float* point = points + 3 * order_[i];
    x_[i] = point[0];
    y_[i] = point[1];
    z_[i] = point[2];
  }
}

int64_t KdTree::build(const float* points, int64_t first, int64_t last) {
  const auto number = static_cast<int64_t>(nodes_.size());
  nodes_.emplace_back();
  std::array<float, 3> low{}, high{};
  for (int axis = 0; axis < 3; ++axis) {
    low[axis] = high[axis] = points[3 * order_[first] + axis];
    for (int64_t i = first + 1; i < last; ++i) {
      const float value = points[3 * order_[i] + axis];
      low[axis] = std::min(low[axis], value);
      high[axis] = std::max(high[axis], value);
    }
  }
  int axis = 0;
  for (int other = 1; other < 3; ++other) {
    if (high[other] - low[other] > high[axis] - low[axis]) axis = other;
  }

  // equal points are one leaf, however many; so is anything that cannot be ordered (NaN)
  if (last - first <= kLeaf || !(high[axis] > low[axis])) {
    nodes_[number].first = first;
    nodes_[number].last = last;
    return number;
  }
  const int64_t middle = first + (last - first) / 2;
  const auto before = [&](int64_t a, int64_t b) {
    return points[3 * a + axis] < points[3 * b + axis];
  };
  std::nth_element(order_.begin() + first, order_.begin() + middle, order_.begin() + last, before);
  const float split = points[3 * order_[middle] + axis];
  const int64_t left = build(points, first, middle), right = build(points, middle, last);
  Node& node = nodes_[number];
  node.axis = axis;
  node.split = split;
  node.left = left;
  node.right = right;
  return number;
}

void KdTree::scan(const Node& leaf, Search& search) const {
  std::array<float, kLeaf> distance{};
  const float qx = search.query[0], qy = search.query[1], qz = search.query[2];
  for (int64_t begin = leaf.first; begin < leaf.last; begin += kLeaf) {
    const int64_t count = std::min(kLeaf, leaf.last - begin);
    for (int64_t i = 0; i < count; ++i) {
      const float dx = qx - x_[begin + i], dy = qy - y_[begin + i], dz = qz - z_[begin + i];
      distance[i] = dx * dx + dy * dy + dz * dz;
    }
    for (int64_t i = 0; i < count; ++i) {
      if (distance[i] <= search.worst) search.offer(distance[i], order_[begin + i]);
    }
  }
}

// box: squared distance of the query from the node's part of space; offset: its parts by axis
void KdTree::visit(int64_t number, double box, double* offset, Search& search) const {
  const Node& node = nodes_[number];
  if (node.axis < 0) {
    scan(node, search);
    return;
  }
  const double apart = static_cast<double>(search.query[node.axis]) - node.split;
  visit(apart < 0 ? node.left : node.right, box, offset, search);
  const double before = offset[node.axis];
  const double further = box - before * before + apart * apart;
  if (further * kSlack > search.worst) return;
  offset[node.axis] = apart;
  visit(apart < 0 ? node.right : node.left, further, offset, search);
  offset[node.axis] = before;
}

void KdTree::nearest(const float* query, int64_t k, int64_t* index, float* squared_distance) const {
  Search search{query, k, 0, index, squared_distance};
  std::array<double, 3> offset{};
  visit(0, 0, offset.data(), search);

  // distances that are no numbers are never offered; the query still gets k points
  for (int64_t i = search.found; i < k; ++i) {
    index[i] = order_[i];
    squared_distance[i] = std::numeric_limits<float>::quiet_NaN();
  }
}

}  // namespace serpentine
