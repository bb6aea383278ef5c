// Line drawings: strokes and captions, written as SVG, or as a picture where OpenCV is built in.
#pragma once

#include <string>
#include <vector>

#include "core/io/image.h"

namespace serpentine {

struct Spot {
  double x = 0, y = 0;  // in the drawing's unit, (0, 0) top left
};

/// A unit is whatever suits what is drawn; `scale` pixels make one.
struct Drawing {
  enum class Kind { kLine, kDotted, kDots };  // kDots: one at each place, nothing between
  struct Stroke {
    std::vector<Spot> places;
    Colour colour = {};
    double thickness = 1;  // of the line or the dots, in pixels
    Kind kind = Kind::kLine;
  };
  struct Caption {
    Spot at;  // where its base line begins
    std::string text;
  };

  double width = 1, height = 1, scale = 1;
  std::vector<Stroke> strokes;  // later ones lie above earlier ones
  std::vector<Caption> captions;
};

/// One SVG document on white that needs no other file.
std::string svg(const Drawing& drawing);

/// uint8 [H, W, 3]; needs OpenCV. `zoom` multiplies the scale.
torch::Tensor picture(const Drawing& drawing, double zoom = 2);

}  // namespace serpentine
