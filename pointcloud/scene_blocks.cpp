#include "pointcloud/scene_blocks.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <torch/torch.h>
#include <unistd.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr int64_t kPieceOfScene = 1 << 20;  // points read at a time
constexpr double kMostBlocks = 1e6;         // along an axis
constexpr const char* kSceneWho = "segment";

/// Calls use(x y z of n points, first, n) piece by piece; throws for what is not finite.
template <class Use>
void each_piece(const ScenePoints& scene, const Use& use) {
  for (int64_t first = 0; first < scene.size; first += kPieceOfScene) {
    const int64_t n = std::min(kPieceOfScene, scene.size - first);
    const torch::Tensor piece = scene.read(first, n).to(torch::kDouble).contiguous();
    check_shape(kSceneWho, piece, "points", {n, 3}, "n, 3");
    use(piece.const_data_ptr<double>(), first, n);
  }
}

}  // namespace

MappedFile::MappedFile(const std::string& path, uint64_t bytes)
    : path_(path), bytes_(std::max<uint64_t>(bytes, 1)) {
  int file = -1;
  if (!path.empty()) {
    file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    TORCH_CHECK(file >= 0, path, ": cannot be opened: ", std::strerror(errno));
    struct stat now{};
    old_ = ::fstat(file, &now) == 0 && static_cast<uint64_t>(now.st_size) == bytes_;
    // room is taken at once: a full disk must not be met in the middle of a write to memory
    const int code = old_ ? 0
                     : ::ftruncate(file, 0) != 0
                         ? errno
                         : ::posix_fallocate(file, 0, static_cast<off_t>(bytes_));
    if (code != 0) {
      ::close(file);
      TORCH_CHECK(false, path, ": no room for ", bytes_, " bytes: ", std::strerror(code));
    }
  }
  const int kind = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void* at = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, kind, file, 0);
  const int error = errno;
  if (file >= 0) ::close(file);
  TORCH_CHECK(at != MAP_FAILED, path.empty() ? "memory" : path,
              ": cannot be mapped: ", std::strerror(error));
  data_ = static_cast<char*>(at);
}

void MappedFile::sync() const {
  TORCH_CHECK(path_.empty() || ::msync(data_, bytes_, MS_SYNC) == 0, path_,
              ": cannot be written: ", std::strerror(errno));
}

MappedFile::~MappedFile() { ::munmap(data_, bytes_); }

SceneBlocks::Cell SceneBlocks::cell_of(double x, double y) const {
  return {static_cast<int64_t>(std::floor((x - least_x_) / side_)),
          static_cast<int64_t>(std::floor((y - least_y_) / side_))};
}

SceneBlocks::SceneBlocks(const ScenePoints& scene, double side, const std::string& folder,
                         bool sorted)
    : side_(side) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double most_x = -kInfinity, most_y = -kInfinity;
  least_x_ = least_y_ = kInfinity;
  each_piece(scene, [&](const double* place, int64_t first, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const double *p = place + 3 * i, sum = p[0] + p[1] + p[2];
      SERPENTINE_CHECK(std::isfinite(sum), kSceneWho, "coordinates must be finite, those of point ",
                       first + i, " are not");
      least_x_ = std::min(least_x_, p[0]);
      least_y_ = std::min(least_y_, p[1]);
      most_x = std::max(most_x, p[0]);
      most_y = std::max(most_y, p[1]);
    }
  });
  if (scene.size > 0) {
    SERPENTINE_CHECK(std::max(most_x - least_x_, most_y - least_y_) / side < kMostBlocks, kSceneWho,
                     "blocks of side ", side, " are too small for this scene, which is ",
                     most_x - least_x_, " by ", most_y - least_y_);
  }
  each_piece(scene, [&](const double* place, int64_t, int64_t n) {
    for (int64_t i = 0; i < n; ++i) ++ranges_[cell_of(place[3 * i], place[3 * i + 1])].count;
  });
  int64_t sum = 0;
  for (auto& [cell, range] : ranges_) {
    cells_.push_back(cell);
    range.first = sum;
    sum += range.count;
  }
  points_ = std::make_unique<MappedFile>(folder.empty() ? "" : folder + "/points",
                                         static_cast<uint64_t>(scene.size) * sizeof(BlockPoint));
  if (sorted && points_->old()) return;
  auto* to = reinterpret_cast<BlockPoint*>(points_->data());
  std::map<Cell, int64_t> next;
  for (const auto& [cell, range] : ranges_) next[cell] = range.first;
  each_piece(scene, [&](const double* place, int64_t first, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const double* p = place + 3 * i;
      to[next[cell_of(p[0], p[1])]++] = {{p[0], p[1], p[2]}, first + i};
    }
  });
  points_->sync();
}

SceneBlocks::Seen SceneBlocks::around(const Cell& cell, double margin) const {
  const auto* all = reinterpret_cast<const BlockPoint*>(points_->data());
  Seen seen;
  std::vector<double> places;
  const auto take = [&](const BlockPoint& point) {
    places.insert(places.end(), point.place, point.place + 3);
  };
  const Range own = ranges_.at(cell);
  for (int64_t i = own.first; i < own.first + own.count; ++i) {
    take(all[i]);
    seen.rows.push_back(all[i].row);
  }
  const double left = least_x_ + static_cast<double>(cell.first) * side_ - margin,
               below = least_y_ + static_cast<double>(cell.second) * side_ - margin;
  const double right = left + side_ + 2 * margin, above = below + side_ + 2 * margin;
  const auto reach = static_cast<int64_t>(std::ceil(margin / side_));
  for (int64_t x = cell.first - reach; x <= cell.first + reach; ++x) {
    // the blocks of a column lie one behind the other
    auto at = ranges_.lower_bound({x, cell.second - reach});
    for (; at != ranges_.end() && at->first.first == x && at->first.second <= cell.second + reach;
         ++at) {
      if (at->first == cell) continue;
      for (int64_t i = at->second.first; i < at->second.first + at->second.count; ++i) {
        const auto& place = all[i].place;
        if (place[0] >= left && place[0] <= right && place[1] >= below && place[1] <= above)
          take(all[i]);
      }
    }
  }
  const auto count = static_cast<int64_t>(places.size() / 3);
  seen.places = torch::from_blob(places.data(), {count, 3}, torch::kDouble).clone();
  return seen;
}

}  // namespace serpentine
