#include "core/io/drawing.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace serpentine {
namespace {

constexpr double kTextSize = 12;  // pixels

/// With one decimal at most: a tenth of a pixel is enough, and the file stays small.
std::string svg_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  std::string brief = text;
  if (brief.ends_with(".0")) brief.resize(brief.size() - 2);
  return brief == "-0" ? "0" : brief;
}

std::string hex(Colour colour) {
  char text[8];
  std::snprintf(text, sizeof text, "#%02x%02x%02x", colour[0], colour[1], colour[2]);
  return text;
}

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char letter : text) {
    if (letter == '<') {
      safe += "&lt;";
    } else if (letter == '&') {
      safe += "&amp;";
    } else {
      safe += letter;
    }
  }
  return safe;
}

std::string svg_stroke(const Drawing::Stroke& stroke, double scale) {
  std::string out = "<path stroke=\"" + hex(stroke.colour) + "\"";
  if (stroke.thickness != 1) out += " stroke-width=\"" + svg_number(stroke.thickness) + "\"";
  if (stroke.kind == Drawing::Kind::kDotted) out += " stroke-dasharray=\"0 4\"";
  out += " d=\"";
  const bool dots = stroke.kind == Drawing::Kind::kDots;
  for (size_t i = 0; i < stroke.places.size(); ++i) {
    out += i == 0 || dots ? "M" : "L";
    out += svg_number(stroke.places[i].x * scale) + " " + svg_number(stroke.places[i].y * scale);
    if (dots) out += "h0";  // a line of no length with round ends
  }
  return out + "\"/>\n";
}

/// Paints strokes on a picture; coordinates in pixels.
class Brush {
 public:
  Brush(torch::Tensor& canvas, Colour colour, int thickness)
      : canvas_(canvas), colour_(colour), thickness_(thickness) {}
  void line(Spot from, Spot to) {
    draw_line(canvas_, std::lround(from.x), std::lround(from.y), std::lround(to.x),
              std::lround(to.y), colour_, thickness_);
  }
  void dotted(Spot from, Spot to) {
    const double length = std::hypot(to.x - from.x, to.y - from.y), step = 3.0 * thickness_ + 2;
    for (double done = 0; done <= length; done += step) {
      const double share = length > 0 ? done / length : 0;
      const Spot at{from.x + share * (to.x - from.x), from.y + share * (to.y - from.y)};
      line(at, at);
    }
  }

 private:
  torch::Tensor& canvas_;
  Colour colour_;
  int thickness_;
};

}  // namespace

std::string svg(const Drawing& drawing) {
  const double scale = drawing.scale;
  const std::string width = svg_number(drawing.width * scale),
                    height = svg_number(drawing.height * scale);
  std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + width + "\" height=\"" +
                    height + "\" viewBox=\"0 0 " + width + " " + height +
                    "\" fill=\"none\" stroke-linecap=\"round\" stroke-linejoin=\"round\">\n"
                    "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n";
  for (const auto& stroke : drawing.strokes) out += svg_stroke(stroke, scale);
  for (const auto& caption : drawing.captions) {
    out += "<text x=\"" + svg_number(caption.at.x * scale) + "\" y=\"" +
           svg_number(caption.at.y * scale) +
           "\" fill=\"#333\" font-family=\"sans-serif\" font-size=\"" + svg_number(kTextSize) +
           "\">" + escaped(caption.text) + "</text>\n";
  }
  return out + "</svg>\n";
}

torch::Tensor picture(const Drawing& drawing, double zoom) {
  const double scale = drawing.scale * zoom;
  auto canvas = torch::full({static_cast<int64_t>(std::ceil(drawing.height * scale)),
                             static_cast<int64_t>(std::ceil(drawing.width * scale)), 3},
                            255, torch::kUInt8);
  for (const auto& stroke : drawing.strokes) {
    Brush brush(canvas, stroke.colour, std::max(1, static_cast<int>(stroke.thickness * zoom)));
    for (size_t i = 0; i < stroke.places.size(); ++i) {
      const Spot to{stroke.places[i].x * scale, stroke.places[i].y * scale};
      if (stroke.kind == Drawing::Kind::kDots) {
        brush.line(to, to);
      } else if (i > 0) {
        const Spot from{stroke.places[i - 1].x * scale, stroke.places[i - 1].y * scale};
        stroke.kind == Drawing::Kind::kLine ? brush.line(from, to) : brush.dotted(from, to);
      }
    }
  }
  for (const auto& caption : drawing.captions) {
    draw_text(canvas, std::lround(caption.at.x * scale), std::lround(caption.at.y * scale),
              caption.text, {51, 51, 51}, 0.4 * zoom);
  }
  return canvas;
}

}  // namespace serpentine
