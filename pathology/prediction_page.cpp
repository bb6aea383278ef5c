// The report of a prediction as one HTML file that needs nothing else.
#include <array>
#include <cstdint>
#include <cstdio>
#include <sstream>

#include <torch/torch.h>

#include "pathology/slide_prediction.h"

namespace serpentine {
namespace {

constexpr const char* kStyle = R"(
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #1c2128; }
h1 { font-size: 1.5em; margin-bottom: 0; } h2 { font-size: 1.1em; margin: 1.6em 0 .4em; }
.answer { font-size: 1.3em; margin: .3em 0 1em; }
table { border-collapse: collapse; } td, th { padding: .2em 1em .2em 0; text-align: left; vertical-align: top; }
.bar { background: #e6eaef; width: 20em; height: .9em; border-radius: 3px; }
.bar div { background: #1f6feb; height: 100%; border-radius: 3px; }
img { max-width: 100%; border: 1px solid #d0d7de; } .note { color: #57606a; }
.ramp { height: .9em; width: 20em; } .turbo { background: linear-gradient(90deg,#30123b,#4662d7,#36aaf9,#1ae4b6,#72fe5e,#c7ef34,#faba39,#f66b19,#ca2a04,#7a0403); }
.viridis { background: linear-gradient(90deg,#440154,#482878,#3e4989,#31688e,#26828e,#1f9e89,#35b779,#6ece58,#b5de2b,#fde725); }
)";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    out += c == '<'   ? "&lt;"
           : c == '>' ? "&gt;"
           : c == '&' ? "&amp;"
           : c == '"' ? "&quot;"
                      : std::string(1, c);
  }
  return out;
}

std::string base64(const std::string& bytes) {
  static constexpr char kLetters[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve(bytes.size() * 4 / 3 + 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t three = 0;
    for (size_t k = 0; k < 3; ++k) {
      three = three << 8U | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0U);
    }
    for (size_t k = 0; k < 4; ++k) {
      const bool pad = i + k > bytes.size();
      out += pad ? '=' : kLetters[(three >> (18U - 6U * static_cast<uint32_t>(k))) & 63U];
    }
  }
  return out;
}

std::string fixed(double value, int digits) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}

void row(std::ostringstream& page, const std::string& what, const std::string& value) {
  page << "<tr><td>" << what << "</td><td>" << escaped(value) << "</td></tr>\n";
}

void facts(std::ostringstream& page, const Slide& slide, const Tissue& tissue,
           const SlidePrediction& prediction) {
  page << "<h2>How this came about</h2><table>\n";
  row(page, "slide", slide.path());
  row(page, "format", slide.format());
  row(page, "size",
      std::to_string(slide.width()) + " x " + std::to_string(slide.height()) + " pixels");
  row(page, "microns per pixel",
      slide.mpp().value > 0 ? fixed(slide.mpp().value, 4) + " (" + slide.mpp().source + ")"
                            : "unknown");
  row(page, "tissue",
      fixed(100 * tissue.fraction(), 1) + " % of the slide in " +
          std::to_string(tissue.contours.size()) + " pieces");
  row(page, "tiles",
      std::to_string(prediction.grid.coords.size(0)) + " of " +
          std::to_string(prediction.grid.size) + " pixels at " + fixed(prediction.grid.mpp, 3) +
          " microns a pixel" +
          (prediction.tiles_unreadable > 0
               ? ", " + std::to_string(prediction.tiles_unreadable) + " unreadable"
               : ""));
  row(page, "encoder", prediction.encoder);
  row(page, "model", prediction.model);
  if (prediction.models > 1) row(page, "models averaged", std::to_string(prediction.models));
  std::string temperatures;
  for (const double t : prediction.temperatures) {
    temperatures += (temperatures.empty() ? "" : ", ") + fixed(t, 3);
  }
  if (prediction.calibrated) row(page, "temperature", temperatures);
  row(page, "reading and computing", fixed(prediction.seconds, 1) + " s");
  page << "</table>\n";
}

/// What the heat shows, the name of its colours and the values at their ends.
void colour_scale(std::ostringstream& page, const SlidePrediction& prediction,
                  const HeatStyle& style) {
  std::array<char, 64> low{}, high{};
  std::snprintf(low.data(), low.size(), "%.4g", prediction.scores.min().item<double>());
  std::snprintf(high.data(), high.size(), "%.4g", prediction.scores.max().item<double>());
  page << "<p>Colour: " << escaped(prediction.meaning.phrase)
       << ", by its rank among the tiles of this slide (scale " << escaped(style.map)
       << "); slides cannot be compared by it.</p>\n<table><tr><td>rank 0, value " << low.data()
       << "</td><td><div class=\"ramp " << escaped(style.map) << "\"></div></td><td>rank 1, value "
       << high.data() << "</td></tr></table>\n";
}

}  // namespace

std::string prediction_page(const Slide& slide, const Tissue& tissue,
                            const SlidePrediction& prediction, const HeatStyle& style,
                            const std::vector<ReportPicture>& pictures) {
  std::ostringstream page;
  page << "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>"
       << escaped(prediction.name) << "</title><style>" << kStyle << "</style></head><body>\n<h1>"
       << escaped(prediction.name) << "</h1><p class=\"answer\">" << escaped(prediction.sentence())
       << "</p>\n";
  if (!prediction.probabilities.empty()) {
    page << "<table>\n";
    for (const auto& [name, value] : prediction.probabilities) {
      page << "<tr><td>" << escaped(name)
           << "</td><td><div class=\"bar\"><div style=\"width:" << fixed(100 * value, 1)
           << "%\"></div></div></td><td>" << fixed(value, 4) << "</td></tr>\n";
    }
    page << "</table>\n";
  }
  page << "<p class=\"note\">A research result, not a diagnosis.</p>\n";
  for (const auto& picture : pictures) {
    page << "<h2>" << escaped(picture.title) << "</h2>\n";
    if (picture.title == kHeatTitle) colour_scale(page, prediction, style);
    page << "<img alt=\"" << escaped(picture.title) << "\" src=\"data:image/" << picture.type
         << ";base64," << base64(picture.bytes) << "\">\n";
  }
  facts(page, slide, tissue, prediction);
  page << "</body></html>\n";
  return page.str();
}

}  // namespace serpentine
