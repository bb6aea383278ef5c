// Tiles of a slide along the rows, then the columns, of their lattice. Each line starts from a zero
// state; missing tiles can stand as pads, over which the state decays.
//
// The two directions of Zhang et al., "2DMamba", arXiv 2412.00678; differs: they run side
// by side and are merged, where the paper's vertical scan reads the horizontal one's states.
#include <ATen/ATen.h>

#include "core/check.h"
#include "scans/cells.h"

namespace serpentine {
namespace {

constexpr int64_t kMostPads = 64;  // a token; more: `cell` is not the distance of neighbours

struct LatticeOptions : CellOptions {
  bool holes = false, reverses = true;
  void fields(Fields& f) {
    CellOptions::fields(f);
    f("holes", holes, "a pad for each missing tile between the first and last of its line");
    f("reverses", reverses, "both directions of each line: four branches instead of two");
  }
};

class Lattice : public Serialization {
 public:
  explicit Lattice(const LatticeOptions& options) : options_(options) {}
  int64_t num_branches() const override { return options_.reverses ? 4 : 2; }
  ScanOrder order(const TokenLayout& layout, const ScanContext&) const override {
    SERPENTINE_CHECK(!layout.coords.defined() || layout.coords.size(0) == 1, "lattice",
                     "bags have lines of their own and must be packed, got coords ",
                     layout.coords.sizes());
    TokenLayout host = layout;
    host.device = at::kCPU;
    Cells cells = cells_of(host, options_.cell);
    if (cells.index.dim() == 3) cells.index = cells.index.squeeze(0);
    const ScanOrder rows = lines(cells, "xy", host), columns = lines(cells, "yx", host);
    std::vector<ScanOrder> parts = {rows, columns};
    if (options_.reverses) parts.insert(parts.end(), {reversed(rows), reversed(columns)});
    return stack(parts).to(layout.device);
  }

 private:
  /// One branch, a sequence a line. axes: the place on a line, then the line.
  ScanOrder lines(const Cells& cells, const std::string& axes, const TokenLayout& layout) const {
    const at::Tensor walk = sorted_walk(raster_key(cells, axes), layout);
    const auto values = [&](const at::Tensor& of) {
      const at::Tensor sorted = of.index_select(0, walk).contiguous();
      return std::vector<int64_t>(sorted.data_ptr<int64_t>(),
                                  sorted.data_ptr<int64_t>() + sorted.numel());
    };
    const auto place = values(cells.axis(axes[0])), line = values(cells.axis(axes[1]));
    const auto token = values(at::arange(layout.num_tokens, at::kLong));
    const auto sample = layout.sample_offsets.defined() ? values(sample_of_token(layout))
                                                        : std::vector<int64_t>(token.size());
    std::vector<int64_t> tokens, offsets = {0};
    for (size_t i = 0; i < token.size(); ++i) {
      const bool begins = i > 0 && (line[i] != line[i - 1] || sample[i] != sample[i - 1]);
      if (begins) offsets.push_back(static_cast<int64_t>(tokens.size()));
      if (options_.holes && i > 0 && !begins && place[i] > place[i - 1] + 1)
        tokens.insert(tokens.end(), static_cast<size_t>(place[i] - place[i - 1] - 1), kPad);
      SERPENTINE_CHECK(tokens.size() < static_cast<size_t>(kMostPads) * token.size() + kMostPads,
                       "lattice", "more than ", kMostPads,
                       " pads a tile; is `cell` the distance of neighbours?");
      tokens.push_back(token[i]);
    }
    if (!tokens.empty()) offsets.push_back(static_cast<int64_t>(tokens.size()));
    return make_order(at::tensor(tokens, at::kLong), at::tensor(offsets, at::kLong),
                      at::zeros({static_cast<int64_t>(offsets.size()) - 1}, at::kLong),
                      layout.num_tokens, /*num_visits=*/1);
  }

  LatticeOptions options_;
};

}  // namespace

void add_lattice(Registry<Serialization>& all) {
  add_strategy<Lattice, LatticeOptions>(all, "lattice");
}

}  // namespace serpentine
