#include "pathology/tissue.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include <torch/torch.h>
#include <nlohmann/json.hpp>
#include <opencv2/imgproc.hpp>

#include "core/check.h"

namespace serpentine {
namespace {

constexpr double kLowest = 10, kHighest = 40;  // of Otsu's threshold over saturation
constexpr int kDark = 80;                      // median brightness below which glass is black

cv::Mat view(const torch::Tensor& picture) {
  const int channels = picture.dim() == 3 ? static_cast<int>(picture.size(2)) : 1;
  return {static_cast<int>(picture.size(0)), static_cast<int>(picture.size(1)),
          CV_MAKETYPE(CV_8U, channels), picture.data_ptr()};
}

torch::Tensor tensor_of(const cv::Mat& mask) {
  auto out = torch::empty({mask.rows, mask.cols}, torch::kUInt8);
  auto target = view(out);
  mask.copyTo(target);
  return out;
}

/// Grey-level entropy over windows of 9 x 9 with 16 bins, 0 to 255.
cv::Mat local_entropy(const cv::Mat& grey) {
  constexpr int kBins = 16, kWindow = 9;
  cv::Mat sum = cv::Mat::zeros(grey.size(), CV_32F), share, logarithm;
  for (int bin = 0; bin < kBins; ++bin) {
    const cv::Mat inside = grey / (256 / kBins) == bin;
    inside.convertTo(share, CV_32F, 1.0 / 255.0);
    cv::boxFilter(share, share, CV_32F, cv::Size(kWindow, kWindow));
    cv::log(share + 1e-9, logarithm);
    sum -= share.mul(logarithm);
  }
  cv::Mat out;
  sum.convertTo(out, CV_8U, 255.0 / std::log(static_cast<double>(kBins)));
  return out;
}

struct Planes {
  cv::Mat hue, saturation, brightness;
};

Planes hsv_of(const cv::Mat& rgb) {
  cv::Mat hsv;
  cv::cvtColor(rgb, hsv, cv::COLOR_RGB2HSV);
  std::array<cv::Mat, 3> planes;
  cv::split(hsv, planes.data());
  return {planes[0], planes[1], planes[2]};
}

int median(const cv::Mat& plane) {
  std::array<int64_t, 256> count{};
  for (int y = 0; y < plane.rows; ++y) {
    for (int x = 0; x < plane.cols; ++x) ++count[plane.at<uchar>(y, x)];
  }
  int64_t seen = 0, half = static_cast<int64_t>(plane.total()) / 2;
  for (int value = 0; value < 256; ++value) {
    seen += count[static_cast<size_t>(value)];
    if (seen > half) return value;
  }
  return 255;
}

/// Felt pens: blue, green and black ink is unlike haematoxylin (bluish but pale) and eosin.
/// OpenCV's hue runs from 0 to 179. Specks of the kind are nuclei; strokes are large and solid.
cv::Mat pen_marks(const Planes& planes, double pixel_area) {
  cv::Mat cool, dark;
  cv::inRange(planes.hue, 35, 122, cool);
  cool &= planes.saturation > 90;
  cool &= planes.brightness > 30;
  cv::Mat grey = planes.saturation < 90;
  dark = planes.brightness < 70;
  dark &= grey;
  cv::Mat ink = cool | dark, found = cv::Mat::zeros(ink.size(), CV_8U);
  cv::morphologyEx(ink, ink, cv::MORPH_OPEN,
                   cv::getStructuringElement(cv::MORPH_ELLIPSE, cv::Size(5, 5)));
  cv::Mat labels, stats, centres;
  const int count = cv::connectedComponentsWithStats(ink, labels, stats, centres);
  for (int i = 1; i < count; ++i) {
    if (stats.at<int>(i, cv::CC_STAT_AREA) * pixel_area > 40000) found.setTo(255, labels == i);
  }
  cv::dilate(found, found, cv::getStructuringElement(cv::MORPH_ELLIPSE, cv::Size(9, 9)));
  return found;
}

cv::Mat raw_mask(const cv::Mat& rgb, const Planes& planes, const TissueOptions& options,
                 Tissue& tissue) {
  tissue.dark_background = median(planes.brightness) < kDark;
  cv::Mat measure, mask;
  if (tissue.dark_background) {
    cv::medianBlur(planes.brightness, measure, 5);
  } else if (options.method == "entropy") {
    cv::Mat grey;
    cv::cvtColor(rgb, grey, cv::COLOR_RGB2GRAY);
    measure = local_entropy(grey);
  } else {
    cv::medianBlur(planes.saturation, measure, 5);
  }
  double threshold = options.threshold;
  if (options.method != "fixed" || tissue.dark_background) {
    threshold = cv::threshold(measure, mask, 0, 255, cv::THRESH_BINARY | cv::THRESH_OTSU);
    // without glass in view Otsu divides the tissue, without tissue the noise of the glass
    threshold = options.method == "entropy" && !tissue.dark_background
                    ? std::clamp(threshold, 60.0, 130.0)
                    : std::clamp(threshold, kLowest, kHighest);
  }
  tissue.threshold = threshold;
  cv::threshold(measure, mask, threshold, 255, cv::THRESH_BINARY);
  // what a scanner never saw is black in some files
  if (!tissue.dark_background) mask.setTo(0, planes.brightness < 20);
  return mask;
}

torch::Tensor points_of(const std::vector<cv::Point>& contour, double scale) {
  auto out = torch::empty({static_cast<int64_t>(contour.size()), 2}, torch::kLong);
  auto at = out.accessor<int64_t, 2>();
  for (size_t i = 0; i < contour.size(); ++i) {
    at[static_cast<int64_t>(i)][0] = std::llround((contour[i].x + 0.5) * scale);
    at[static_cast<int64_t>(i)][1] = std::llround((contour[i].y + 0.5) * scale);
  }
  return out;
}

/// Drops small pieces, fills small holes, and lists the outlines of what is left.
void outline(cv::Mat& mask, double pixel_area, const TissueOptions& options, Tissue& tissue) {
  std::vector<std::vector<cv::Point>> contours;
  std::vector<cv::Vec4i> tree;  // next, previous, first child, parent
  cv::findContours(mask, contours, tree, cv::RETR_CCOMP, cv::CHAIN_APPROX_SIMPLE);
  const auto area = [&](int i) {
    return (cv::contourArea(contours[static_cast<size_t>(i)]) + 1) * pixel_area;
  };
  mask.setTo(0);
  std::vector<int> pieces;
  for (int i = 0; i < static_cast<int>(contours.size()); ++i) {
    if (tree[static_cast<size_t>(i)][3] < 0 && area(i) >= options.min_area) pieces.push_back(i);
  }
  std::sort(pieces.begin(), pieces.end(), [&](int a, int b) { return area(a) > area(b); });
  for (const int piece : pieces) {
    TissueContour contour;
    contour.outline = points_of(contours[static_cast<size_t>(piece)], tissue.scale);
    cv::drawContours(mask, contours, piece, 255, cv::FILLED);
    for (int hole = tree[static_cast<size_t>(piece)][2]; hole >= 0;
         hole = tree[static_cast<size_t>(hole)][0]) {
      if (area(hole) < options.min_hole) continue;
      contour.holes.push_back(points_of(contours[static_cast<size_t>(hole)], tissue.scale));
      cv::drawContours(mask, contours, hole, 0, cv::FILLED);
    }
    if (contour.outline.size(0) >= 3) tissue.contours.push_back(std::move(contour));
  }
}

}  // namespace

Tissue find_tissue(const torch::Tensor& overview, double scale, double mpp,
                   const TissueOptions& options) {
  TORCH_CHECK(overview.dim() == 3 && overview.size(2) == 3, "tissue: needs [H, W, 3], got ",
              overview.sizes());
  Tissue tissue;
  tissue.overview = overview.contiguous();
  tissue.scale = scale;
  const double side = mpp > 0 ? mpp : options.mpp, pixel_area = side * side;
  const cv::Mat rgb = view(tissue.overview);
  const Planes planes = hsv_of(rgb);
  cv::Mat mask = raw_mask(rgb, planes, options, tissue);
  cv::Mat pen = cv::Mat::zeros(mask.size(), CV_8U);
  if (options.reject_pen && !tissue.dark_background) {
    pen = pen_marks(planes, pixel_area);
    mask.setTo(0, pen);
  }
  const int reach = 2 * static_cast<int>(std::lround(options.close / side / 2)) + 1;
  if (reach > 1) {
    cv::morphologyEx(mask, mask, cv::MORPH_CLOSE,
                     cv::getStructuringElement(cv::MORPH_ELLIPSE, cv::Size(reach, reach)));
    mask.setTo(0, pen);
  }
  outline(mask, pixel_area, options, tissue);
  tissue.mask = tensor_of(mask).ne(0).to(torch::kUInt8);
  tissue.pen = tensor_of(pen).ne(0).to(torch::kUInt8);
  return tissue;
}

double sharpness(const torch::Tensor& tile) {
  const auto contiguous = tile.contiguous();
  cv::Mat grey, edges;
  cv::cvtColor(view(contiguous), grey, cv::COLOR_RGB2GRAY);
  cv::Laplacian(grey, edges, CV_16S);
  cv::Scalar mean, deviation;
  cv::meanStdDev(edges, mean, deviation);
  return deviation[0] * deviation[0];
}

}  // namespace serpentine
