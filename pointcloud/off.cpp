// OFF meshes, and points on a mesh's surface. Format: Geomview manual; also ModelNet's files, whose
// first line runs into the counts ("OFF490 518 0").
#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "core/check.h"
#include "pointcloud/cloud.h"
#include "pointcloud/cloud_text.h"

namespace serpentine {
namespace {

std::vector<int64_t> read_faces(TextScanner& text, int64_t faces, int64_t vertices, size_t bytes) {
  std::vector<int64_t> corners;
  std::string_view line;
  for (int64_t face = 0; face < faces; ++face) {
    const int64_t count = text.whole("a face's number of vertices");
    if (count < 0 || count > static_cast<int64_t>(bytes))
      text.fail("a face has " + std::to_string(count) + " vertices");
    int64_t first = 0, before = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t vertex = text.whole("a face's vertex");
      if (vertex < 0 || vertex >= vertices)
        text.fail("a face names vertex " + std::to_string(vertex) + ", but there are " +
                  std::to_string(vertices));
      if (i == 0) first = vertex;
      if (i >= 2) corners.insert(corners.end(), {first, before, vertex});
      before = vertex;
    }
    text.line(line);  // a colour may follow
  }
  return corners;
}

}  // namespace

PointCloud parse_off(std::string_view bytes, const std::string& who) {
  TextScanner start(bytes, who);
  const size_t head = std::min(bytes.find("OFF"), bytes.size());
  bool comment = false;
  for (const char c : bytes.substr(0, head)) {
    if (c == '#') comment = true;
    if (c == '\n') comment = false;
    if (!comment && c != '\n' && c != '\r' && c != ' ' && c != '\t' && c != 'C' && c != 'N')
      start.fail("an OFF file begins with 'OFF'");
  }
  if (head == bytes.size()) start.fail("an OFF file begins with 'OFF'");
  const bool colour = bytes.substr(0, head).ends_with('C');
  const bool normal = bytes.substr(0, head).ends_with('N');
  std::string_view rest = bytes.substr(head + 3);
  TextScanner text(rest, who);
  text.skip_lines_before(bytes.substr(0, head + 3));
  const int64_t vertices = text.whole("the number of vertices");
  const int64_t faces = text.whole("the number of faces");
  text.whole("the number of edges");
  if (vertices < 0 || faces < 0 || vertices > static_cast<int64_t>(bytes.size()) ||
      faces > static_cast<int64_t>(bytes.size()))
    text.fail(std::to_string(vertices) + " vertices and " + std::to_string(faces) +
              " faces do not fit into a file of " + std::to_string(bytes.size()) + " bytes");
  const int64_t more = normal ? 3 : colour ? 4 : 0;
  const at::Tensor rows = at::empty({vertices, 3 + more}, at::kDouble);
  auto* to = rows.mutable_data_ptr<double>();
  for (int64_t i = 0; i < rows.numel(); ++i) to[i] = text.number("a coordinate");
  PointCloud cloud;
  cloud.stored = NumberType::kF64;
  cloud.points = rows.slice(1, 0, 3).contiguous();
  constexpr const char* kNormals[] = {"normal_x", "normal_y", "normal_z"};
  constexpr const char* kColours[] = {"red", "green", "blue", "alpha"};
  for (int64_t i = 0; i < more; ++i)
    cloud.set(normal ? kNormals[i] : kColours[i], rows.select(1, 3 + i).to(at::kFloat),
              NumberType::kF32);
  const auto corners = read_faces(text, faces, vertices, bytes.size());
  if (!text.at_end()) text.fail("the file goes on after its last face");
  if (!corners.empty()) cloud.faces = at::tensor(corners, at::kLong).view({-1, 3});
  return cloud;
}

std::string off_text(const PointCloud& cloud) {
  SERPENTINE_CHECK(cloud.fields.empty(), "OFF", "an OFF file holds places and faces only, not '",
                   cloud.fields.front().name, "'; write a PLY");
  const int64_t faces = cloud.faces.defined() ? cloud.faces.size(0) : 0;
  std::string text = "OFF\n" + std::to_string(cloud.size()) + " " + std::to_string(faces) + " 0\n";
  const at::Tensor points = cloud.points.to(at::kDouble).contiguous();
  const auto* p = points.const_data_ptr<double>();
  for (int64_t i = 0; i < points.numel(); ++i) {
    append_number(text, p[i]);
    text += i % 3 == 2 ? '\n' : ' ';
  }
  const at::Tensor corners = faces > 0 ? cloud.faces.contiguous() : at::empty({0, 3}, at::kLong);
  const auto* face = corners.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < 3 * faces; ++i) {
    if (i % 3 == 0) text += "3";
    text += " " + std::to_string(face[i]) + (i % 3 == 2 ? "\n" : "");
  }
  return text;
}

PointCloud sample_surface(const PointCloud& mesh, int64_t count, int64_t seed) {
  constexpr const char* kWho = "surface";
  SERPENTINE_CHECK(mesh.faces.defined() && mesh.faces.size(0) > 0, kWho, "the mesh has no faces");
  SERPENTINE_CHECK(count >= 1, kWho, "at least one point must be asked for, got ", count);
  const auto corner = [&](int64_t i) {
    return mesh.points.index_select(0, mesh.faces.select(1, i));
  };
  const at::Tensor a = corner(0), ab = corner(1) - a, ac = corner(2) - a;
  const at::Tensor across = at::linalg_cross(ab, ac), twice_area = across.norm(2, {1});
  const at::Tensor sums = twice_area.cumsum(0);
  const auto total = sums[-1].item<double>();
  SERPENTINE_CHECK(std::isfinite(total) && total > 0, kWho,
                   "the mesh has no area, so there is nothing to put points on");

  // where the running area passes a uniform number; then anywhere on that triangle
  auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(seed));
  const at::Tensor draw = at::rand({3, count}, generator, at::TensorOptions(at::kDouble));
  const at::Tensor face = at::searchsorted(sums, draw[0] * total, false, /*right=*/true)
                              .clamp_max(mesh.faces.size(0) - 1);
  const at::Tensor root = draw[1].sqrt(), v = (root * draw[2]).unsqueeze(1),
                   u = root.unsqueeze(1) - v;
  PointCloud out;
  out.stored = mesh.stored;
  out.points =
      a.index_select(0, face) + u * ab.index_select(0, face) + v * ac.index_select(0, face);
  const at::Tensor normal = (across / twice_area.unsqueeze(1)).index_select(0, face).to(at::kFloat);
  for (int64_t i = 0; i < 3; ++i)
    out.set(std::string("normal_") + static_cast<char>('x' + i), normal.select(1, i).contiguous(),
            NumberType::kF32);
  return out;
}

}  // namespace serpentine
