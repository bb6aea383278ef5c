// Looking at clouds: colours for classes, pictures, and a page that turns in the browser.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "pointcloud/cloud.h"

namespace serpentine {

/// uint8 [N, 3]: a colour for each class, the same in every picture; classes: int64 [N] from 0 on.
at::Tensor class_colours(const at::Tensor& classes);

/// uint8 [N, 3]: blue, green, red from the least value to the largest. values: [N].
at::Tensor ramp_colours(const at::Tensor& values);

/// The cloud with the fields red, green, blue of uint8 [N, 3], for a PLY that any viewer shows.
PointCloud coloured(const PointCloud& cloud, const at::Tensor& colours);

/// What a colour of a layer means.
struct CloudKey {
  std::string text;
  std::array<uint8_t, 3> colour{};
};

/// A key for each class, in its colour.
std::vector<CloudKey> class_keys(const std::vector<std::string>& classes);

struct CloudLayer {
  std::string title;
  at::Tensor colours;  // uint8 [N, 3]
  std::vector<CloudKey> keys = {};
};

/// A word beside a place.
struct CloudMark {
  std::array<double, 3> place{};
  std::string text;
};

struct CloudScene {
  at::Tensor points;               // [N, 3], finite, at least one
  std::vector<CloudLayer> layers;  // at least one
  at::Tensor walk = {};  // int64: the point at each position of a traversal; -1 begins a new line
  std::vector<CloudMark> marks = {};
};

/// One HTML file without any other: the points, a button for each layer with what its colours mean,
/// and the traversal as a line. Dragging turns, dragging with the shift key moves, the wheel zooms.
std::string cloud_page(const std::string& title, const CloudScene& scene);

/// From where a picture is taken: turned about z, then about the horizontal; angles in radians.
struct CloudView {
  double yaw = 0.6, pitch = -1.1, zoom = 1;
  int64_t width = 1200, height = 800;
};

/// What the page shows of one layer: uint8 [height, width, 3]. Lines and words need OpenCV.
at::Tensor cloud_picture(const CloudScene& scene, size_t layer, const CloudView& view = {});

/// Places moved and scaled as the page shows them: the points' centre at zero, the farthest at
/// distance 1. place: [M, 3] -> float32.
at::Tensor as_seen(const at::Tensor& place, const at::Tensor& points);

/// The colour of a traversal's line at a share 0..1 of its way.
std::array<uint8_t, 3> walk_colour(double share);

/// Throws unless the scene is as above.
void check_scene(const CloudScene& scene);

}  // namespace serpentine
