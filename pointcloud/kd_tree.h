// A tree over the points of one cloud that finds nearest points without looking at all of them.
//
// Bentley, "Multidimensional binary search trees", CACM 18 (1975); Arya & Mount, DCC 1993, for the
// distance to a box that is brought up to date on the way down.
#pragma once

#include <cstdint>
#include <vector>

namespace serpentine {

/// CPU only; reading is thread-safe. Squared distances are (dx^2 + dy^2) + dz^2 in float32, as
/// squared_distances computes them; of points as near, the lower index comes first.
class KdTree {
 public:
  /// points: x y z of each, `count` in 1..2^31-1. They are copied. Cost: count * log(count), on
  /// several threads; the tree does not depend on their number.
  KdTree(const float* points, int64_t count);

  /// The k nearest points of one query, the nearest first; k at most the number of points. Fills
  /// index[k] and squared_distance[k].
  void nearest(const float* query, int64_t k, int64_t* index, float* squared_distance) const;

  /// The first k points, by index, whose squared distance is below `limit`: fills index[0..] in
  /// ascending order and returns their number.
  int64_t within(const float* query, float limit, int64_t k, int64_t* index) const;

  /// The points' indices leaf by leaf: in this sequence one query's neighbours lie near the last
  /// one's.
  const std::vector<int32_t>& order() const { return order_; }

 private:
  struct Node {
    float split = 0;    // left: up to here; right: from here
    int32_t axis = -1;  // -1: a leaf
    int32_t first = 0;  // of a leaf: its first point; else the right child (the left one is next)
    int32_t count = 0;  // of a leaf: its points
  };
  struct Builder;
  struct Search;
  void visit(int32_t node, float box, float* offset, Search& search) const;

  std::vector<Node> nodes_;
  std::vector<int32_t> order_;    // the index of each stored point
  std::vector<float> x_, y_, z_;  // in the order of the leaves, and a vector more to read
};

}  // namespace serpentine
