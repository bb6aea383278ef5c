#include "pathology/tiles.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <torch/torch.h>

#include "core/io/image.h"

namespace serpentine {
namespace {

/// Sums over any rectangle of the mask in four reads.
class TissueShare {
 public:
  explicit TissueShare(const Tissue& tissue)
      : scale_(tissue.scale), height_(tissue.mask.size(0)), width_(tissue.mask.size(1)) {
    sums_ = torch::zeros({height_ + 1, width_ + 1}, torch::kLong);
    sums_.slice(0, 1).slice(1, 1).copy_(tissue.mask.to(torch::kLong).cumsum(0).cumsum(1));
  }

  /// Of the square of `side` level-0 pixels at (x, y).
  double of(int64_t x, int64_t y, int64_t side) const {
    const auto at = sums_.accessor<int64_t, 2>();
    const auto cell = [&](int64_t place, int64_t most) {
      return std::clamp<int64_t>(std::llround(static_cast<double>(place) / scale_), 0, most);
    };
    const int64_t x0 = std::min(cell(x, width_), width_ - 1),
                  y0 = std::min(cell(y, height_), height_ - 1);
    const int64_t x1 = std::max(x0 + 1, cell(x + side, width_));
    const int64_t y1 = std::max(y0 + 1, cell(y + side, height_));
    const int64_t sum = at[y1][x1] - at[y0][x1] - at[y1][x0] + at[y0][x0];
    return static_cast<double>(sum) / static_cast<double>((x1 - x0) * (y1 - y0));
  }

 private:
  double scale_;
  int64_t height_, width_;
  torch::Tensor sums_;
};

/// Corners along one side, until all of it is covered: the last tile may stick out.
std::vector<int64_t> places(int64_t extent, int64_t tile, int64_t step) {
  std::vector<int64_t> all = {0};
  while (all.back() + tile < extent) all.push_back(all.back() + step);
  return all;
}

/// How much of a tile lies on the slide. The first one counts as a whole: a slide smaller than a
/// tile has no other.
double inside(int64_t at, int64_t tile, int64_t extent) {
  return at == 0 ? 1 : std::min(1.0, static_cast<double>(extent - at) / static_cast<double>(tile));
}

}  // namespace

void TileOptions::fields(Fields& f) {
  f("mpp", mpp, "micrometres of a tile's pixel", {.least = 0.01, .most = 100});
  f("downsample", downsample, "level-0 pixels of a tile's pixel, instead of mpp", {.least = 0});
  f("size", size, "pixels of a tile's side", {.least = 8, .most = 8192});
  f("overlap", overlap, "pixels that neighbours share", {.least = 0});
  f("min_tissue", min_tissue, "least share of a tile that is tissue", {.least = 0, .most = 1});
}

TileGrid plan_tiles(const Slide& slide, const Tissue& tissue, const TileOptions& options) {
  if (options.overlap >= options.size) {
    throw std::runtime_error("tiles: the overlap must be smaller than the size");
  }
  const double known = slide.mpp().value;
  if (options.downsample <= 0 && known <= 0) {
    throw std::runtime_error(
        slide.path() +
        ": nothing tells its microns per pixel; give them in a CSV (--mpp-csv), for "
        "all such slides (--default-mpp), or tile by --downsample");
  }
  const double scale = options.downsample > 0 ? options.downsample : options.mpp / known;
  if (scale < 0.5) {
    throw std::runtime_error(slide.path() + ": tiles of " + std::to_string(options.mpp) +
                             " microns per pixel are over twice as fine as the scan (" +
                             std::to_string(known) + ")");
  }
  TileGrid grid;
  grid.size = options.size;
  grid.overlap = options.overlap;
  grid.mpp = known * scale;
  const auto level0 = [&](int64_t pixels) {
    return std::max<int64_t>(1, std::llround(static_cast<double>(pixels) * scale));
  };
  grid.size_level0 = level0(options.size);
  grid.step_level0 = level0(options.size - options.overlap);
  grid.level = slide.level_for(scale);
  const double downsample = slide.levels()[static_cast<size_t>(grid.level)].downsample;
  grid.size_read =
      std::max<int64_t>(1, std::llround(static_cast<double>(grid.size_level0) / downsample));
  // a scanner's 0.2528 for 0.25 is not worth a resampling that blurs every tile
  if (std::abs(static_cast<double>(grid.size_read - grid.size)) <=
      0.02 * static_cast<double>(grid.size)) {
    grid.size_read = grid.size;
    grid.size_level0 = std::llround(static_cast<double>(grid.size) * downsample);
    grid.step_level0 = std::llround(static_cast<double>(grid.size - grid.overlap) * downsample);
    grid.mpp = known * downsample;
  }
  const TissueShare share(tissue);
  std::vector<int64_t> corners;
  const int64_t side = grid.size_level0;
  for (const int64_t y : places(slide.height(), side, grid.step_level0)) {
    for (const int64_t x : places(slide.width(), side, grid.step_level0)) {
      const double part =
          share.of(x, y, side) * inside(x, side, slide.width()) * inside(y, side, slide.height());
      if (part < options.min_tissue || part <= 0) continue;
      corners.push_back(x);
      corners.push_back(y);
    }
  }
  grid.coords = torch::tensor(corners, torch::kLong).view({-1, 2});
  return grid;
}

torch::Tensor read_tile(const Slide& slide, const TileGrid& grid, int64_t x, int64_t y,
                        TileState& state) {
  const auto levels = static_cast<int64_t>(slide.levels().size());
  for (int64_t level = grid.level; level < levels; ++level) {
    const double downsample = slide.levels()[static_cast<size_t>(level)].downsample;
    const int64_t side =
        level == grid.level
            ? grid.size_read
            : std::max<int64_t>(1,
                                std::llround(static_cast<double>(grid.size_level0) / downsample));
    try {
      auto picture = slide.read(x, y, level, side, side);
      state = level == grid.level ? TileState::kGood : TileState::kCoarser;
      if (side == grid.size) return picture;
      return resize_image(picture, grid.size, grid.size,
                          side > grid.size ? Resampling::kArea : Resampling::kLinear);
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception&) {  // this level is damaged here; a coarser one may not be
    }
  }
  state = TileState::kUnreadable;
  return torch::full({grid.size, grid.size, 3}, 255, torch::kUInt8);
}

TileStream::TileStream(const Slide& slide, const TileGrid& grid, TileStreamOptions options)
    : slide_(slide), grid_(grid), options_(options) {
  batches_ = (grid.coords.size(0) + options_.batch - 1) / options_.batch;
  const int64_t threads = std::max<int64_t>(1, std::min(options_.threads, batches_));
  for (int64_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

TileStream::~TileStream() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (auto& thread : threads_) thread.join();
}

int64_t TileStream::memory(const TileGrid& grid, const TileStreamOptions& options) {
  return (options.ahead + 1) * options.batch * grid.size * grid.size * 3 +
         options.threads * grid.size_read * grid.size_read * 7;
}

void TileStream::work() {
  while (true) {
    int64_t mine = 0;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || claimed_ - taken_ < options_.ahead; });
      if (stopping_ || claimed_ == batches_) return;
      mine = claimed_++;
    }
    Made made;
    try {
      made.batch = make(mine);
    } catch (...) {
      made.error = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      made_[mine] = std::move(made);
    }
    changed_.notify_all();
  }
}

TileBatch TileStream::make(int64_t batch) const {
  TileBatch made;
  made.first = batch * options_.batch;
  const int64_t count = std::min(options_.batch, grid_.coords.size(0) - made.first);
  if (options_.pictures)
    made.pictures = torch::empty({count, grid_.size, grid_.size, 3}, torch::kUInt8);
  made.states.resize(static_cast<size_t>(count));
  const auto at = grid_.coords.accessor<int64_t, 2>();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t tile = made.first + i;
    const auto picture =
        read_tile(slide_, grid_, at[tile][0], at[tile][1], made.states[static_cast<size_t>(i)]);
    if (options_.sharpness) made.sharpness.push_back(serpentine::sharpness(picture));
    if (options_.pictures) made.pictures[i].copy_(picture);
  }
  return made;
}

std::optional<TileBatch> TileStream::next() {
  std::unique_lock lock(mutex_);
  if (taken_ == batches_) return std::nullopt;
  changed_.wait(lock, [&] { return made_.count(taken_) > 0; });
  Made made = std::move(made_[taken_]);
  made_.erase(taken_++);
  lock.unlock();
  changed_.notify_all();
  if (made.error) std::rethrow_exception(made.error);
  return std::move(made.batch);
}

}  // namespace serpentine
