#include "scans/cells.h"

#include <utility>

#include <ATen/ATen.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr const char* kWho = "scans";

Cells image_cells(const TokenLayout& layout) {
  check_image(kWho, layout, /*volumes=*/true);
  const at::Tensor token = at::arange(layout.num_tokens, at::kLong);
  std::vector<at::Tensor> index = {token % layout.width,
                                   token.div(layout.width, "floor") % layout.height};
  std::vector<int64_t> extent = {layout.width, layout.height};
  if (layout.depth > 1) {
    index.push_back(token.div(layout.width * layout.height, "floor"));
    extent.push_back(layout.depth);
  }
  return {at::stack(index, -1), at::tensor(extent, at::kLong)};
}

/// The least index of each packed sample, for each of its tokens. index: [T, n].
at::Tensor least_of_sample(const at::Tensor& index, const TokenLayout& layout) {
  const at::Tensor sample = sample_of_token(layout);
  const int64_t samples = layout.sample_offsets.size(0) - 1;
  return at::zeros({samples, index.size(1)}, index.options())
      .scatter_reduce(0, sample.unsqueeze(1).expand_as(index), index, "amin",
                      /*include_self=*/false)
      .index_select(0, sample);
}

Cells coordinate_cells(const TokenLayout& layout, double side) {
  const at::Tensor& coords = layout.coords;
  SERPENTINE_CHECK(coords.defined(), kWho,
                   "the layout has neither an image's height and width nor coordinates");
  SERPENTINE_CHECK(coords.dim() == 3 && coords.size(1) == layout.num_tokens &&
                       (coords.size(2) == 2 || coords.size(2) == 3),
                   kWho, "coords must be [B, T, 2 or 3] with T = ", layout.num_tokens, ", got ",
                   coords.sizes());
  const bool packed = layout.sample_offsets.defined();
  SERPENTINE_CHECK(!packed || coords.size(0) == 1, kWho,
                   "a packed batch is one row of tokens, got coords ", coords.sizes());

  // a tensor as divisor: CUDA multiplies by the reciprocal of a number, which moves points across
  // the borders of cells
  const at::Tensor real = coords.is_floating_point() ? coords : coords.to(at::kDouble);
  at::Tensor index =
      real.div(at::full({}, side, real.options())).floor().to(layout.device, at::kLong);
  if (packed) index = index.squeeze(0);
  if (index.numel() == 0) return {index, at::ones({coords.size(2)}, index.options())};
  index = index - (packed ? least_of_sample(index, layout) : index.amin(1, /*keepdim=*/true));
  const at::Tensor extent = index.flatten(0, -2).amax(0) + 1;
  SERPENTINE_CHECK(!extent.is_cpu() || extent.max().item<int64_t>() <= int64_t{1} << kCellBits,
                   kWho, "the coordinates span ", extent, " cells of side ", side, ", at most 2^",
                   kCellBits, " an axis; is `cell` the distance of neighbours?");
  return {index, extent};
}

}  // namespace

at::Tensor Cells::axis(char name) const {
  SERPENTINE_CHECK(name >= 'x' && name - 'x' < index.size(-1), kWho, "there is no axis ", name,
                   " in ", index.size(-1), " dimensions");
  return index.select(-1, name - 'x');
}

at::Tensor Cells::size(char name) const { return extent.select(0, name - 'x'); }

std::string Cells::axes(bool columns) const {
  const bool flat = index.size(-1) == 2;
  if (columns) return flat ? "yx" : "zyx";
  return flat ? "xy" : "xyz";
}

Cells cells_of(const TokenLayout& layout, double side) {
  return layout.height > 0 ? image_cells(layout) : coordinate_cells(layout, side);
}

Cells mirrored(Cells cells, const std::string& axes) {
  cells.index = cells.index.clone();
  for (const char name : axes) {
    cells.axis(name).copy_(cells.size(name) - 1 - cells.axis(name));
  }
  return cells;
}

Cells exchanged(const Cells& cells) {
  // no index from the host, for which a GPU would wait
  auto index = cells.index.unbind(-1), extent = cells.extent.unbind(0);
  std::swap(index[0], index[1]);
  std::swap(extent[0], extent[1]);
  return {at::stack(index, -1), at::stack(extent)};
}

at::Tensor raster_key(const Cells& cells, const std::string& axes) {
  at::Tensor key = at::zeros_like(cells.axis('x'));
  for (auto name = axes.rbegin(); name != axes.rend(); ++name) {
    key = key * cells.size(*name) + cells.axis(*name);
  }
  return key;
}

at::Tensor snake_key(const Cells& cells, const std::string& axes, SnakeRule rule) {
  const int64_t missing = rule == SnakeRule::kPaper ? 0 : 1;
  at::Tensor key = cells.axis(axes.front());
  at::Tensor cells_so_far = cells.size(axes.front()) - missing;
  for (const char name : axes.substr(1)) {
    const at::Tensor line = rule == SnakeRule::kPublished ? cells.size(name) - 1 : cells.axis(name);
    const at::Tensor backwards = cells_so_far - (1 - missing) - key;
    key = line * cells_so_far + at::where(line % 2 == 1, backwards, key);
    cells_so_far = cells_so_far * (cells.size(name) - missing);
  }
  return key;
}

void CellOptions::fields(Fields& f) {
  f("cell", cell, "side of a cell in the unit of the coordinates; images have their own cells",
    {.least = 1e-9});
}

ScanOrder CellStrategy::order(const TokenLayout& layout, const ScanContext&) const {
  const auto make = [&] {
    std::vector<at::Tensor> walks;
    for (const at::Tensor& key : keys(cells_of(layout, cell_))) {
      walks.push_back(sorted_walk(key, layout));
    }
    return order_of(walks, num_branches(), layout);
  };
  return layout.height > 0 ? cache_.get(layout, make) : make();
}

}  // namespace serpentine
