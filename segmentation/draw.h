// Pictures of labels: overlays, contact sheets, box plots, pages that scroll through slices.
#pragma once

#include <array>
#include <string>
#include <vector>

#include <torch/types.h>

#include "segmentation/volume.h"

namespace serpentine {

/// Red, green and blue of a label's value, everywhere the same.
std::array<int, 3> label_colour(int64_t value);

/// One slice of an image in grey (or colours), labels as tinted areas with outlines. image: float32
/// [C, H, W], labels: int [H, W]; low and high: grey values for black and white. uint8 [H, W, 3].
torch::Tensor overlay(const torch::Tensor& image, const torch::Tensor& labels, double low,
                      double high);

/// The slice where prediction and truth differ most: image, prediction and truth side by side.
torch::Tensor worst_slice(const Volume& image, const torch::Tensor& guess,
                          const torch::Tensor& truth);

/// FOLDER/NAME.html, which scrolls through slices (image, prediction, truth), and PNGs of the
/// slices with labels below FOLDER/overlays/NAME. Returns the files.
std::vector<std::string> write_case_pages(const std::string& folder, const std::string& name,
                                          const std::string& title, const Volume& image,
                                          const torch::Tensor& guess, const torch::Tensor& truth);

struct SheetEntry {
  std::string caption;
  torch::Tensor picture;
};
/// The pictures below one another, each under its caption.
void write_sheet(const std::string& file, const std::vector<SheetEntry>& entries);

struct BoxGroup {
  std::string name;
  std::vector<double> values;
};
/// Boxes from the first to the third quartile, whiskers within 1.5 of their distance, every case a
/// point.
std::string box_plot_svg(const std::string& title, const std::vector<BoxGroup>& groups);

}  // namespace serpentine
