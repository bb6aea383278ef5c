// Where a slide holds tissue: mask, pen marks, outlines.
//
// The mask is computed on an overview of some micrometres a pixel. Tissue is coloured: Otsu's
// threshold (1979, IEEE Trans. SMC 9:62) over the saturation of HSV separates it from glass, as in
// CLAM (Lu et al. 2021, Nature BME 5:555). The entropy of grey values finds pale tissue that has
// little colour. Slides with a dark background (fluorescence) are thresholded by brightness.
#pragma once

#include <string>
#include <vector>

#include <torch/types.h>
#include <nlohmann/json_fwd.hpp>

#include "core/config.h"
#include "pathology/slide.h"

namespace serpentine {

struct TissueOptions {
  std::string method = "otsu";  // otsu, entropy, fixed
  double threshold = 15;        // saturation of 255, method fixed
  double mpp = 8;               // micrometres of a mask pixel; 16 level-0 pixels if unknown
  double min_area = 20000;      // square micrometres; smaller pieces are dirt
  double min_hole = 20000;      // square micrometres; smaller holes are filled
  double close = 40;            // micrometres over which pieces are joined
  bool reject_pen = true;       // leave out ink of felt pens
  void fields(Fields& f);
};

/// One piece of tissue; points in level-0 pixels, without a repetition of the first.
struct TissueContour {
  torch::Tensor outline;             // int64 [P, 2], x and y
  std::vector<torch::Tensor> holes;  // each int64 [P, 2]
};

struct Tissue {
  torch::Tensor overview;  // uint8 [h, w, 3]: what was looked at
  torch::Tensor mask;      // uint8 [h, w], 1 where tissue is
  torch::Tensor pen;       // uint8 [h, w], 1 where ink is
  double scale = 1;        // level-0 pixels along one mask pixel
  double threshold = 0;    // that was used, of 255
  bool dark_background = false;
  std::vector<TissueContour> contours;  // largest first
  double fraction() const;              // of the slide that is tissue
  double pen_fraction() const;
};

Tissue find_tissue(const Slide& slide, const TissueOptions& options = {});
/// The same over an overview that is at hand; `mpp`: of its pixels, 0 if unknown.
Tissue find_tissue(const torch::Tensor& overview, double scale, double mpp,
                   const TissueOptions& options = {});

/// Tissue as a GeoJSON FeatureCollection of polygons that QuPath imports as annotations.
nlohmann::json tissue_geojson(const Tissue& tissue);

/// Variance of the Laplacian of the grey values of a tile uint8 [S, S, 3]: low where it is out of
/// focus (Pech-Pacheco et al. 2000, ICPR).
double sharpness(const torch::Tensor& tile);

}  // namespace serpentine
