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
  /// points: x y z of each, `count` at least 1. They are copied. Cost: count * log(count).
  KdTree(const float* points, int64_t count);

  /// The k nearest points of one query, the nearest first; k at most the number of points. Fills
  /// index[k] and squared_distance[k].
  void nearest(const float* query, int64_t k, int64_t* index, float* squared_distance) const;

 private:
  struct Node {
    int32_t axis = -1;            // -1: a leaf
    float split = 0;              // left: up to here; right: from here
    int64_t first = 0, last = 0;  // of a leaf: its points
    int64_t left = -1, right = -1;
  };
  struct Search;
  int64_t build(const float* points, int64_t first, int64_t last);
  void visit(int64_t node, double box, double* offset, Search& search) const;
  void scan(const Node& leaf, Search& search) const;

  std::vector<Node> nodes_;
  std::vector<int64_t> order_;    // the index of each stored point
  std::vector<float> x_, y_, z_;  // in the order of the leaves
};

}  // namespace serpentine
