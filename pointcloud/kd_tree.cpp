#include "pointcloud/kd_tree.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/ops/parallel.h"
#include "pointcloud/point_kernels.h"

namespace serpentine {
namespace {

constexpr int64_t kLeaf = 32;        // points that are compared one by one
constexpr int64_t kScan = 64;        // and so many at a time
constexpr int64_t kPiece = 8192;     // points of a subtree that is worth a thread
constexpr int kLevelsAbove = 4;      // so there are 16 of them at most
constexpr float kSlack = 1 - 1e-5F;  // a distance may be rounded below the box's

struct TreePoint {
  std::array<float, 3> place;
  int32_t index;
};

}  // namespace

struct KdTree::Builder {
  std::vector<TreePoint>& points;

  /// Where to cut [first, last): the widest axis; -1 where it is to be a leaf: few points, equal
  /// ones, however many, or such that cannot be ordered (NaN).
  int axis_of(int64_t first, int64_t last) const {
    if (last - first <= kLeaf) return -1;
    std::array<float, 3> low = points[static_cast<size_t>(first)].place, high = low;
    for (int64_t i = first + 1; i < last; ++i) {
      const auto& place = points[static_cast<size_t>(i)].place;
      for (size_t axis = 0; axis < 3; ++axis) {
        low[axis] = std::min(low[axis], place[axis]);
        high[axis] = std::max(high[axis], place[axis]);
      }
    }
    size_t widest = 0;
    for (size_t axis = 1; axis < 3; ++axis)
      if (high[axis] - low[axis] > high[widest] - low[widest]) widest = axis;
    return high[widest] > low[widest] ? static_cast<int>(widest) : -1;
  }

  /// Puts the lower half along an axis first; returns where the other begins.
  int64_t halve(int64_t first, int64_t last, int axis) const {
    const int64_t middle = first + (last - first) / 2;
    const auto begin = points.begin();
    const auto which = static_cast<size_t>(axis);
    std::nth_element(begin + first, begin + middle, begin + last,
                     [which](const TreePoint& a, const TreePoint& b) {
                       return a.place[which] < b.place[which];
                     });
    return middle;
  }

  /// What a node is: a leaf, or where its points were halved. Returns the middle, 0: a leaf.
  int64_t cut(int64_t first, int64_t last, Node& node) const {
    node.axis = axis_of(first, last);
    if (node.axis < 0) {
      node.first = static_cast<int32_t>(first);
      node.count = static_cast<int32_t>(last - first);
      return 0;
    }
    const int64_t middle = halve(first, last, node.axis);
    node.split = points[static_cast<size_t>(middle)].place[static_cast<size_t>(node.axis)];
    return middle;
  }

  /// Appends the subtree of [first, last): a node, its left subtree, its right one.
  void build(int64_t first, int64_t last, std::vector<Node>& nodes) const {
    const size_t number = nodes.size();
    Node node;
    const int64_t middle = cut(first, last, node);
    nodes.push_back(node);
    if (middle == 0) return;
    build(first, middle, nodes);
    nodes[number].first = static_cast<int32_t>(nodes.size());
    build(middle, last, nodes);
  }

  /// The upper levels, whose pieces are then built on several threads.
  struct Above {
    Node node;
    int64_t first, last;
    int lower = -1, upper = -1;  // numbers in `above`; -1: a piece
    std::vector<Node> piece = {};
  };
  std::vector<Above> above = {};

  int plan(int64_t first, int64_t last, int level) {
    const int number = static_cast<int>(above.size());
    above.push_back({{}, first, last});
    if (level == kLevelsAbove || last - first <= kPiece) return number;
    Node node;
    const int64_t middle = cut(first, last, node);
    if (middle == 0) return number;
    const int lower = plan(first, middle, level + 1), upper = plan(middle, last, level + 1);
    auto& mine = above[static_cast<size_t>(number)];
    mine.node = node;
    mine.lower = lower;
    mine.upper = upper;
    return number;
  }

  void build_pieces() {
    parallel_for(0, static_cast<int64_t>(above.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        auto& mine = above[static_cast<size_t>(i)];
        if (mine.lower < 0) build(mine.first, mine.last, mine.piece);
      }
    });
  }

  void join(int number, std::vector<Node>& nodes) const {
    const auto& mine = above[static_cast<size_t>(number)];
    const size_t at = nodes.size();
    if (mine.lower < 0) {
      for (Node node : mine.piece) {
        if (node.axis >= 0) node.first += static_cast<int32_t>(at);
        nodes.push_back(node);
      }
      return;
    }
    nodes.push_back(mine.node);
    join(mine.lower, nodes);
    nodes[at].first = static_cast<int32_t>(nodes.size());
    join(mine.upper, nodes);
  }
};

KdTree::KdTree(const float* points, int64_t count) {
  std::vector<TreePoint> all(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    all[static_cast<size_t>(i)] = {{points[3 * i], points[3 * i + 1], points[3 * i + 2]},
                                   static_cast<int32_t>(i)};
  Builder builder{all};
  builder.plan(0, count, 0);
  builder.build_pieces();
  builder.join(0, nodes_);
  order_.resize(static_cast<size_t>(count));
  for (auto* axis : {&x_, &y_, &z_})
    axis->resize(static_cast<size_t>(count + kScan), std::numeric_limits<float>::infinity());
  for (size_t i = 0; i < all.size(); ++i) {
    x_[i] = all[i].place[0];
    y_[i] = all[i].place[1];
    z_[i] = all[i].place[2];
    order_[i] = all[i].index;
  }
}

// the least keys so far, ascending; `worst` is the distance that a further point must not exceed
struct KdTree::Search {
  const float* query;
  int64_t width;
  bool by_distance;  // else those that lie within `worst` are kept by their indices
  float worst;
  std::array<int64_t, 2 * cpu::kKeyLanes> few;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  std::vector<int64_t> many = {};
  int64_t* keys = nullptr;

  Search(const float* place, int64_t k, bool nearest, float most)
      : query(place), width(k), by_distance(nearest), worst(most) {
    const int64_t filled = (width + cpu::kKeyLanes - 1) / cpu::kKeyLanes * cpu::kKeyLanes;
    if (filled > static_cast<int64_t>(few.size())) many.resize(static_cast<size_t>(filled));
    keys = many.empty() ? few.data() : many.data();
    std::fill_n(keys, filled, cpu::kNoKey);
  }
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;

  void offer(const cpu::PointRows& points, const int32_t* index, int64_t count) {
    if (!by_distance) {
      cpu::keep_lowest(points, index, count, query, worst, keys, width);
      return;
    }
    cpu::keep_nearest(points, index, count, query, worst, keys, width);
    worst = cpu::distance_of_key(keys[width - 1]);
  }
};

// box: squared distance of the query from the node's part of space; offset: its parts by axis
void KdTree::visit(int32_t number, float box, float* offset, Search& search) const {
  const Node* node = &nodes_[static_cast<size_t>(number)];
  if (node->axis < 0) {
    for (int64_t done = 0; done < node->count; done += kScan) {
      const int64_t begin = node->first + done, count = std::min(kScan, node->count - done);
      search.offer({x_.data() + begin, y_.data() + begin, z_.data() + begin}, order_.data() + begin,
                   count);
    }
    return;
  }
  const int32_t left = number + 1, right = node->first;
  const float apart = search.query[node->axis] - node->split;
  float& old = offset[node->axis];
  visit(apart < 0 ? left : right, box, offset, search);
  const float before = old, further = box - before * before + apart * apart;
  if (further * kSlack > search.worst) return;
  old = apart;
  visit(apart < 0 ? right : left, further, offset, search);
  old = before;
}

void KdTree::nearest(const float* query, int64_t k, int64_t* index, float* squared_distance) const {
  Search search(query, k, true, std::numeric_limits<float>::infinity());
  std::array<float, 3> offset{};
  visit(0, 0, offset.data(), search);
  for (int64_t i = 0; i < k; ++i) {
    const int64_t key = search.keys[i];
    // distances that are no numbers are never offered; the query still gets k points
    index[i] = key == cpu::kNoKey ? order_[static_cast<size_t>(i)] : cpu::index_of_key(key);
    squared_distance[i] =
        key == cpu::kNoKey ? std::numeric_limits<float>::quiet_NaN() : cpu::distance_of_key(key);
  }
}

int64_t KdTree::within(const float* query, float limit, int64_t k, int64_t* index) const {
  if (!(limit > 0)) return 0;
  Search search(query, k, false, std::nextafter(limit, 0.0F));
  std::array<float, 3> offset{};
  visit(0, 0, offset.data(), search);
  int64_t found = 0;
  for (; found < k && search.keys[found] != cpu::kNoKey; ++found) index[found] = search.keys[found];
  return found;
}

}  // namespace serpentine
