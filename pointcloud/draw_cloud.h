// Looking at clouds: colours for classes, and a page that turns in the browser.
#pragma once

#include <string>
#include <vector>

#include "pointcloud/cloud.h"

namespace serpentine {

/// uint8 [N, 3]: a colour for each class, the same in every picture; classes: int64 [N] from 0 on.
at::Tensor class_colours(const at::Tensor& classes);

/// The cloud with the fields red, green, blue of uint8 [N, 3], for a PLY that any viewer shows.
PointCloud coloured(const PointCloud& cloud, const at::Tensor& colours);

struct CloudLayer {
  std::string title;
  at::Tensor colours;  // uint8 [N, 3]
};

/// One HTML file without any other: the points, a button for each layer of colours, and, if `walk`
/// (int64 [N], the point at each position) is defined, the traversal as a line. Dragging turns, the
/// wheel zooms. points: [N, 3].
std::string cloud_page(const std::string& title, const at::Tensor& points,
                       const std::vector<CloudLayer>& layers, const at::Tensor& walk = {});

}  // namespace serpentine
