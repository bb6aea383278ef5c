#include "scans/picture.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <ATen/ATen.h>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr double kGap = 1.5;  // units around a panel
constexpr size_t kPanelsARow = 4;
constexpr int64_t kShades = 16;    // of the colour along a walk
constexpr double kLongStep = 1.9;  // times the walk's median step
constexpr Colour kGrey = {190, 190, 190};

using Walk = std::vector<int64_t>;  // a token at each position, or kPad

struct Panel {
  int64_t branch = 0;
  std::vector<Walk> walks;
};

struct Box {
  double left = 0, top = 0, right = 0, bottom = 0;
  double width() const { return right - left; }
  double height() const { return bottom - top; }
};

Spot seen_from_corner(double x, double y, double z) {
  return {0.95 * x - 0.5 * y, 0.2 * x + 0.42 * y - z};
}

/// A place for each cell, neighbours about one unit apart.
std::vector<Spot> cell_places(const TokenLayout& layout) {
  std::vector<Spot> places;
  if (layout.height > 0) {
    for (int64_t t = 0; t < layout.height * layout.width * layout.depth; ++t) {
      const auto x = static_cast<double>(t % layout.width);
      const auto y = static_cast<double>(t / layout.width % layout.height);
      const auto z = static_cast<double>(t / (layout.width * layout.height));
      places.push_back(layout.depth > 1 ? seen_from_corner(x, y, z) : Spot{x, y});
    }
    return places;
  }
  SERPENTINE_CHECK(layout.coords.defined(), "draw_order",
                   "the layout has neither an image's height and width nor coordinates");
  const at::Tensor coords = layout.coords[0].to(at::kCPU, at::kDouble);
  const at::Tensor away = coords - std::get<0>(coords.min(0));
  const auto count = static_cast<double>(coords.size(0));
  const auto dims = static_cast<double>(coords.size(1));
  const double side = std::max(away.max().item<double>(), 1e-12);
  const at::Tensor unit = away * (std::max(2.0, 1.4 * std::pow(count, 1 / dims)) / side);
  const auto at = unit.accessor<double, 2>();
  for (int64_t t = 0; t < at.size(0); ++t)
    places.push_back(at.size(1) == 3 ? seen_from_corner(at[t][0], at[t][1], at[t][2])
                                     : Spot{at[t][0], at[t][1]});
  return places;
}

Box box_of(const std::vector<Spot>& places) {
  Box box;
  for (size_t i = 0; i < places.size(); ++i) {
    const Spot at = places[i];
    if (i == 0) box = {at.x, at.y, at.x, at.y};
    box = {std::min(box.left, at.x), std::min(box.top, at.y), std::max(box.right, at.x),
           std::max(box.bottom, at.y)};
  }
  return box;
}

struct TokenSpot {
  Spot at;
  int64_t map = 0;
};

/// Where the tokens lie: map after map of the cells, or the cells and below them the rest.
std::vector<TokenSpot> token_places(const TokenLayout& layout, int64_t num_tokens) {
  const std::vector<Spot> cells = cell_places(layout);
  const auto count = static_cast<int64_t>(cells.size());
  const Box box = box_of(cells);
  const bool maps = count > 0 && num_tokens % count == 0;
  const auto columns = static_cast<int64_t>(box.width()) + 1;
  std::vector<TokenSpot> places;
  for (int64_t t = 0; t < num_tokens; ++t) {
    if (t < count || maps) {
      Spot at = cells[static_cast<size_t>(t % count)];
      at.x += static_cast<double>(t / count) * (box.width() + kGap + 1);
      places.push_back({at, t / count});
    } else {
      const int64_t extra = t - count;
      places.push_back({{box.left + static_cast<double>(extra % columns),
                         box.bottom + 1.5 + static_cast<double>(extra / columns)},
                        0});
    }
  }
  return places;
}

std::vector<Panel> panels_of(const ScanOrder& order) {
  const at::Tensor tokens = order.tokens.dim() == 2 ? order.tokens[0] : order.tokens;
  const at::Tensor host = tokens.to(at::kCPU, at::kLong),
                   branch = order.branch.to(at::kCPU, at::kLong);
  const at::Tensor offsets = order.offsets.to(at::kCPU, at::kLong);
  std::vector<Panel> panels;
  std::set<int64_t> seen;
  for (int64_t s = 0; s < order.num_sequences(); ++s) {
    Walk walk;
    bool again = false;
    for (int64_t p = offsets[s].item<int64_t>(); p < offsets[s + 1].item<int64_t>(); ++p) {
      walk.push_back(host[p].item<int64_t>());
      again = again || seen.count(walk.back()) > 0;
    }
    const int64_t of = branch[s].item<int64_t>();
    if (panels.empty() || again || panels.back().branch != of) {
      panels.push_back({of, {}});
      seen.clear();
    }
    for (const int64_t token : walk) {
      if (token != kPad) seen.insert(token);
    }
    panels.back().walks.push_back(walk);
  }
  return panels;
}

Colour mix(Colour from, Colour to, double share) {
  Colour mixed = {};
  for (size_t c = 0; c < 3; ++c)
    mixed[c] = static_cast<uint8_t>(std::lround(from[c] + share * (to[c] - from[c])));
  return mixed;
}

/// share: 0 at the walk's begin, 1 at its end.
Colour colour_of(double share, size_t walk, size_t walks) {
  if (walks == 1) {
    const Colour stops[] = {{35, 70, 170}, {130, 50, 165}, {215, 50, 85}, {245, 150, 20}};
    const double at = std::clamp(share * 3, 0.0, 2.999);
    const auto stop = static_cast<size_t>(at);
    return mix(stops[stop], stops[stop + 1], at - static_cast<double>(stop));
  }

  // hues a golden section apart never come close to each other
  const double hue = std::fmod(0.6 + 0.618034 * static_cast<double>(walk), 1.0) * 6;
  Colour pure = {};
  for (size_t c = 0; c < 3; ++c) {
    const double turned =
        std::fmod(hue + 4.0 * static_cast<double>(c == 1) + 2.0 * static_cast<double>(c == 2), 6.0);
    pure[c] =
        static_cast<uint8_t>(std::lround(210 * std::clamp(std::abs(turned - 3) - 1, 0.0, 1.0)));
  }
  return share < 0.5 ? mix(mix(pure, {0, 0, 0}, 0.5), pure, 2 * share)
                     : mix(pure, {255, 255, 255}, 0.35 * (2 * share - 1));
}

double distance(Spot a, Spot b) { return std::hypot(a.x - b.x, a.y - b.y); }

/// Draws one panel at a time.
class Painter {
 public:
  Painter(Drawing& drawing, std::vector<TokenSpot> places)
      : drawing_(drawing), places_(std::move(places)) {}

  /// Returns the panel's box, caption included, with its corner at `corner`.
  Box paint(const Panel& panel, Spot corner, const std::string& caption) {
    std::set<int64_t> maps;
    for (const Walk& walk : panel.walks) {
      for (const int64_t token : walk) {
        if (token != kPad) maps.insert(places_[static_cast<size_t>(token)].map);
      }
    }
    std::vector<Spot> shown;  // also what the panel's walks leave to others
    for (const TokenSpot& token : places_) {
      if (maps.count(token.map) > 0) shown.push_back(token.at);
    }
    const Box box = box_of(shown);
    shift_ = {corner.x + kGap - box.left, corner.y + kGap - box.top};
    for (Spot& at : shown) at = shifted(at);
    drawing_.strokes.push_back({shown, kGrey, 4, Drawing::Kind::kDots});
    for (const bool long_steps : {true, false}) {
      for (size_t w = 0; w < panel.walks.size(); ++w)
        paint_walk(panel.walks[w], w, panel.walks.size(), long_steps);
    }
    for (size_t w = 0; w < panel.walks.size(); ++w)
      paint_ends(panel.walks[w], w, panel.walks.size());
    drawing_.captions.push_back({{corner.x + kGap - 0.3, corner.y + 0.8}, caption});
    return {corner.x, corner.y, corner.x + box.width() + 2 * kGap,
            corner.y + box.height() + 2 * kGap};
  }

 private:
  struct Step {
    int64_t from, to;  // tokens
    double share;      // of the walk that lies behind it
    bool over_pads;
  };

  Spot place(int64_t token) const { return places_[static_cast<size_t>(token)].at; }
  Spot shifted(Spot at) const { return {at.x + shift_.x, at.y + shift_.y}; }

  static std::vector<Step> steps_of(const Walk& walk) {
    std::vector<Step> steps;
    int64_t last = kPad;
    bool pads = false;
    for (size_t p = 0; p < walk.size(); ++p) {
      if (walk[p] != kPad && last != kPad) {
        steps.push_back(
            {last, walk[p], static_cast<double>(p) / static_cast<double>(walk.size()), pads});
      }
      pads = walk[p] == kPad && (pads || last != kPad);
      if (walk[p] != kPad) last = walk[p];
    }
    return steps;
  }

  double long_step(const std::vector<Step>& steps) const {
    std::vector<double> lengths;
    for (const Step& step : steps) lengths.push_back(distance(place(step.from), place(step.to)));
    if (lengths.empty()) return 0;
    std::nth_element(lengths.begin(), lengths.begin() + static_cast<int64_t>(lengths.size() / 2),
                     lengths.end());
    return std::max(kLongStep * lengths[lengths.size() / 2], 1.5);
  }

  void paint_walk(const Walk& walk, size_t index, size_t walks, bool long_steps) {
    const std::vector<Step> steps = steps_of(walk);
    const double longest = long_step(steps);
    const size_t arrows = std::max<size_t>(1, 8 / walks),
                 every = std::max<size_t>(1, steps.size() / arrows);
    int64_t shade = -1, end = kPad;
    for (size_t i = 0; i < steps.size(); ++i) {
      const Step& step = steps[i];
      const bool is_long = distance(place(step.from), place(step.to)) > longest;
      if ((is_long || step.over_pads) != long_steps) continue;
      const auto here = static_cast<int64_t>(step.share * kShades);
      const Colour colour = colour_of(static_cast<double>(here) / (kShades - 1), index, walks);
      const Spot from = shifted(place(step.from)), to = shifted(place(step.to));
      if (long_steps) {
        drawing_.strokes.push_back(
            {{from, to},
             mix(colour, {255, 255, 255}, 0.55),
             1,
             step.over_pads ? Drawing::Kind::kDotted : Drawing::Kind::kLine});
        continue;
      }
      if (here == shade && step.from == end && !arrow_last_) {
        drawing_.strokes.back().places.push_back(to);
      } else {
        drawing_.strokes.push_back({{from, to}, colour, 2});
      }
      shade = here, end = step.to;
      arrow_last_ = i % every == every / 2;
      if (arrow_last_) paint_arrow(from, to, colour);
    }
    arrow_last_ = false;
  }

  void paint_arrow(Spot from, Spot to, Colour colour) {
    const double length = distance(from, to);
    if (length < 1e-9) return;
    const double x = (to.x - from.x) / length * 0.28, y = (to.y - from.y) / length * 0.28;
    const Spot tip{(from.x + to.x) / 2 + x / 2, (from.y + to.y) / 2 + y / 2};
    drawing_.strokes.push_back({{{tip.x - x - y * 0.7, tip.y - y + x * 0.7},
                                 tip,
                                 {tip.x - x + y * 0.7, tip.y - y - x * 0.7}},
                                colour,
                                2});
  }

  void paint_ends(const Walk& walk, size_t index, size_t walks) {
    const double size = walks > 8 ? 6 : 9;
    const auto first = std::find_if(walk.begin(), walk.end(), [](int64_t t) { return t != kPad; });
    if (first == walk.end()) return;
    const auto last = std::find_if(walk.rbegin(), walk.rend(), [](int64_t t) { return t != kPad; });
    const Spot end = shifted(place(*last));
    drawing_.strokes.push_back({{end}, colour_of(1, index, walks), size, Drawing::Kind::kDots});
    drawing_.strokes.push_back({{end}, {255, 255, 255}, size / 2, Drawing::Kind::kDots});
    drawing_.strokes.push_back(
        {{shifted(place(*first))}, colour_of(0, index, walks), size, Drawing::Kind::kDots});
  }

  Drawing& drawing_;
  std::vector<TokenSpot> places_;
  Spot shift_;
  bool arrow_last_ = false;
};

}  // namespace

Drawing draw_order(const ScanOrder& order, const TokenLayout& layout) {
  Drawing drawing;
  drawing.scale = 20;
  const std::vector<Panel> panels = panels_of(order);
  Painter painter(drawing, token_places(layout, order.num_tokens));
  Spot corner;
  double bottom = 1;
  for (size_t i = 0; i < panels.size(); ++i) {
    std::string caption = "branch " + std::to_string(panels[i].branch);
    if (panels.size() == 1) caption = "";
    if (order.num_branches == 1 && panels.size() > 1) caption = "walk " + std::to_string(i);
    const Box box = painter.paint(panels[i], corner, caption);
    drawing.width = std::max(drawing.width, box.right);
    bottom = std::max(bottom, box.bottom);
    corner = (i + 1) % kPanelsARow == 0 ? Spot{0, bottom} : Spot{box.right, corner.y};
  }
  drawing.height = bottom;
  return drawing;
}

}  // namespace serpentine
