// The timed side of bench/pointcloud.py and bench/pointcloud_gpu.py: reads commands from standard
// input, answers one JSON line each.
//
//   load FILE.npy THREADS            a cloud [N, 3], or clouds [B, N, 3]
//   device NAME                      cpu or cuda; times then last until the device has finished
//   model FILE.yaml WEIGHTS          a classifier of clouds
//   precision NAME                   fp32 or bf16: of the model's products from now on
//   time OPERATION X Y COUNT WARM    COUNT times in milliseconds, after WARM calls not counted
//   save OPERATION X Y FILE.npy      the result: indices or normals
//
// Operations: farthest X points; nearest X neighbours of every point; ball of radius Y, X points;
// voxel of side Y; normals of X neighbours; walk-NAME: the order NAME with cells of side Y;
// classes: the model's logits. Each call begins with the points alone: trees are built anew.
#include <chrono>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include <torch/torch.h>

#include "core/io/npy.h"
#include "core/io/state_dict.h"
#include "core/train/precision.h"
#include "pointcloud/geometry.h"
#include "pointcloud/point_order.h"
#include "pointcloud/pointcloud.h"
#include "pointcloud/sampling.h"

namespace serpentine::bench {
namespace {

struct Request {
  std::string operation;
  int64_t x = 0;
  double y = 0;
  std::string precision = "fp32";
};

std::shared_ptr<Model> read_model(const std::string& yaml, const std::string& weights) {
  Registry<Model> all("model");
  add_point_models(all);
  auto model = all.build(Config::load(yaml));
  const LoadReport report = load_state_dict(*model, read_state_dict(weights));
  if (!report.ok()) throw std::runtime_error(report.text());
  model->eval();
  return model;
}

torch::Tensor result_of(const torch::Tensor& points, const Request& request, Model* model) {
  const torch::Tensor all = points.dim() == 3 ? points : points.unsqueeze(0);
  const auto shaped = [&](const torch::Tensor& result) {
    return points.dim() == 3 ? result : result[0];
  };
  const std::string walk = "walk-";
  if (request.operation == "farthest") return shaped(farthest_points(all, request.x));
  if (request.operation == "nearest") return shaped(nearest_points(all, all, request.x).index);
  if (request.operation == "ball") return shaped(ball_query(all, all, request.y, request.x));
  if (request.operation == "voxel") return voxel_grid(points, request.y).centroids;
  if (request.operation == "normals") return shaped(surface_normals(all, request.x).direction);
  if (request.operation.starts_with(walk))
    return shaped(point_walk(all, request.operation.substr(walk.size()), {.cell = request.y}));
  if (request.operation == "classes" && model) {
    const c10::InferenceMode inference;
    const Autocast autocast(all.device().type(), apply_precision(request.precision));
    Batch batch;
    batch.input = all;
    return shaped(model->forward(batch)).to(torch::kFloat);
  }
  throw std::runtime_error("unknown operation " + request.operation);
}

std::string times_of(const torch::Tensor& points, const Request& request, Model* model, int count,
                     int warm) {
  using Clock = std::chrono::steady_clock;
  std::string times;
  for (int i = -warm; i < count; ++i) {
    const auto start = Clock::now();
    result_of(points, request, model);
    if (points.is_cuda()) torch::cuda::synchronize();
    const std::chrono::duration<double, std::milli> elapsed = Clock::now() - start;
    if (i >= 0) times += (i > 0 ? ", " : "") + std::to_string(elapsed.count());
  }
  return times;
}

int serve() {
  torch::Tensor points;
  std::shared_ptr<Model> model;
  std::string precision = "fp32";
  for (std::string command; std::cin >> command;) {
    if (command == "load") {
      std::string path;
      int threads = 1;
      std::cin >> path >> threads;
      at::set_num_threads(threads);
      points = read_npy(path).to(torch::kFloat).contiguous();
      std::cout << "{\"points\": " << points.size(0) << "}" << std::endl;
      continue;
    }
    if (command == "device") {
      std::string name;
      std::cin >> name;
      points = points.to(torch::Device(name));
      std::cout << "{\"device\": true}" << std::endl;
      continue;
    }
    if (command == "model") {
      std::string yaml, weights;
      std::cin >> yaml >> weights;
      model = read_model(yaml, weights);
      std::cout << "{\"model\": true}" << std::endl;
      continue;
    }
    if (command == "precision") {
      std::cin >> precision;
      std::cout << "{\"precision\": true}" << std::endl;
      continue;
    }
    Request request;
    request.precision = precision;
    std::cin >> request.operation >> request.x >> request.y;
    if (command == "time") {
      int count = 0, warm = 0;
      std::cin >> count >> warm;
      std::cout << "{\"ms\": [" << times_of(points, request, model.get(), count, warm) << "]}"
                << std::endl;
    } else {
      std::string path;
      std::cin >> path;
      write_npy(path, result_of(points, request, model.get()).cpu());
      std::cout << "{\"saved\": true}" << std::endl;
    }
  }
  return 0;
}

}  // namespace
}  // namespace serpentine::bench

int main() { return serpentine::bench::serve(); }
