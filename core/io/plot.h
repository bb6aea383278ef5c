// Line charts with bands, drawn by gnuplot: a PNG, an SVG, and the script that made them.
#pragma once

#include <string>
#include <vector>

namespace serpentine {

/// Which colour a curve has: the same meaning has the same colour in every picture.
enum class Ink { kPast, kForecast, kActual, kFirst, kSecond, kThird, kFourth };

struct Curve {
  std::string title;  // "" keeps it out of the legend
  std::vector<double> x,
      y;  // x in seconds since 1970 when the figure has dates; NaN in y leaves a gap
  Ink ink = Ink::kFirst;
  bool points = false;  // a mark at each value
};

struct Band {
  std::string title;
  std::vector<double> x, low, high;
  Ink ink = Ink::kForecast;
  double opacity = 0.25;
};

struct Panel {
  std::string title;
  std::vector<Band> bands;  // behind the curves
  std::vector<Curve> curves;
  std::vector<double> markers;  // x of dotted vertical lines
};

/// Panels share the axis labels and, if they are several, one legend in the first.
struct Figure {
  std::string title, x_label, y_label;
  bool dates = false;
  bool log_y = false;
  std::vector<Panel> panels;
};

/// Writes stem.gp (script and data, for restyling), stem.png and stem.svg. Returns "" or one
/// sentence that says why there are no pictures: gnuplot is missing or failed. Throws when stem.gp
/// cannot be written.
std::string draw_figure(const Figure& figure, const std::string& stem);

/// The gnuplot script of a figure; pictures are called `name`.png and `name`.svg.
std::string gnuplot_script(const Figure& figure, const std::string& name);

}  // namespace serpentine
