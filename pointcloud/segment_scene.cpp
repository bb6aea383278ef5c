#include "pointcloud/segment_scene.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numbers>
#include <vector>

#include <torch/torch.h>

#include "core/check.h"
#include "core/io/atomic_file.h"
#include "pointcloud/cloud_source.h"
#include "pointcloud/sampling.h"
#include "pointcloud/scene_blocks.h"

namespace serpentine {
namespace {

constexpr const char* kSegmentSceneWho = "segment";
constexpr int64_t kFewest = 1024;        // points that a model is given
constexpr int64_t kMostClasses = 32767;  // a class is kept in 16 bits

/// Turned about z by the vote's share of a full turn; the first lies as it is.
torch::Tensor turned(const torch::Tensor& places, int64_t vote, int64_t votes) {
  if (vote == 0) return places;
  const double angle =
      2 * std::numbers::pi * static_cast<double>(vote) / static_cast<double>(votes);
  const auto turn = torch::tensor({{std::cos(angle), -std::sin(angle), 0.0},
                                   {std::sin(angle), std::cos(angle), 0.0},
                                   {0.0, 0.0, 1.0}},
                                  torch::kDouble);
  return torch::matmul(places, turn);
}

// [n, classes] of all places: the model sees some, the others are between them
torch::Tensor chances_of(Model& model, const torch::Tensor& places, torch::Device device,
                         const SegmentOptions& options, int64_t vote) {
  const auto near = turned(places - std::get<0>(places.min(0)), vote, options.votes);
  const auto local = (near - std::get<0>(near.min(0))).to(torch::kFloat);
  const int64_t count = places.size(0);

  // a sparse block's points are repeated, as models need some neighbours
  const auto chosen =
      choose_rows(count, std::min(options.points, std::max(count, kFewest)), options.seed + vote);
  Batch batch;
  batch.input = local.index_select(0, chosen).unsqueeze(0).to(device);
  const auto scores = model.forward(batch).to(torch::kCPU, torch::kFloat);
  SERPENTINE_CHECK(scores.dim() == 3 && scores.size(1) == chosen.size(0), kSegmentSceneWho,
                   "the model must give [1, points, classes] for ", chosen.size(0), " points, got ",
                   scores.sizes(), "; it is not one that labels points");
  const auto chance = torch::softmax(scores, 2);
  if (chosen.size(0) >= count) return chance[0].narrow(0, 0, count);
  return interpolate_features(local.unsqueeze(0), local.index_select(0, chosen).unsqueeze(0),
                              chance)[0];
}

/// What working files must have been made for.
std::string description_of(const ScenePoints& scene, const SegmentOptions& options) {
  return options.made_for + "\npoints " + std::to_string(scene.size) + "\nblock " +
         std::to_string(options.block) + "\nmargin " + std::to_string(options.margin) + "\nmost " +
         std::to_string(options.points) + "\nvotes " + std::to_string(options.votes) + "\nseed " +
         std::to_string(options.seed) + "\n";
}

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Working files of one scene: `scene` says for what they were made, once the points are sorted;
/// `classes` begins with the number of blocks that are done.
class Work : public SceneClasses {
 public:
  Work(const ScenePoints& scene, const SegmentOptions& options)
      : folder_(options.folder), size_(scene.size) {
    const std::string wanted = description_of(scene, options);
    bool sorted = false;
    if (!folder_.empty()) {
      std::filesystem::create_directories(folder_);
      sorted = content_of(folder_ + "/scene") == wanted;
      if (!sorted) {  // of another scene, or not finished
        for (const char* name : {"scene", "points", "classes"})
          std::filesystem::remove(folder_ + "/" + name);
      }
    }
    blocks = std::make_unique<SceneBlocks>(scene, options.block, folder_, sorted);
    labels_ = std::make_unique<MappedFile>(folder_.empty() ? "" : folder_ + "/classes",
                                           sizeof(int64_t) + 2 * static_cast<uint64_t>(size_));
    if (!folder_.empty() && !sorted) write_atomically(folder_ + "/scene", wanted);
  }

  int64_t done() const {
    int64_t number = 0;
    std::memcpy(&number, labels_->data(), sizeof number);
    return std::clamp<int64_t>(number, 0, static_cast<int64_t>(blocks->cells().size()));
  }
  /// The classes of a block's rows, then that it is done: in this order, so that a process that
  /// dies in between has lost nothing but this block, and a machine at most some blocks.
  void finish(int64_t number, const std::vector<int64_t>& rows, const torch::Tensor& classes) {
    const auto whole = classes.to(torch::kShort).contiguous();
    const auto* label = whole.const_data_ptr<int16_t>();
    for (size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(at(rows[i]), &label[i], sizeof(int16_t));
    }
    labels_->sync();
    const int64_t next = number + 1;
    std::memcpy(labels_->data(), &next, sizeof next);
  }

  torch::Tensor classes(int64_t first, int64_t n) const override {
    SERPENTINE_CHECK(first >= 0 && n >= 0 && first + n <= size_, kSegmentSceneWho,
                     "there are classes of ", size_, " points");
    const auto out = torch::empty({n}, torch::kShort);
    if (n > 0)
      std::memcpy(out.data_ptr<int16_t>(), at(first), sizeof(int16_t) * static_cast<size_t>(n));
    return out.to(torch::kLong);
  }

  std::unique_ptr<SceneBlocks> blocks;

 private:
  char* at(int64_t row) const { return labels_->data() + sizeof(int64_t) + 2 * row; }

  std::string folder_;
  int64_t size_;
  std::unique_ptr<MappedFile> labels_;
};

}  // namespace

std::unique_ptr<SceneClasses> segment_scene(Model& model, const ScenePoints& scene,
                                            torch::Device device, const SegmentOptions& options) {
  SERPENTINE_CHECK(options.block > 0 && options.margin >= 0 && options.points >= 1,
                   kSegmentSceneWho,
                   "a block's side must be above 0 and its margin not below, got ", options.block,
                   " and ", options.margin);
  SERPENTINE_CHECK(options.votes >= 1, kSegmentSceneWho, "there must be a vote, got ",
                   options.votes);
  const torch::NoGradGuard no_grad;
  auto work = std::make_unique<Work>(scene, options);
  const auto& cells = work->blocks->cells();
  const auto all = static_cast<int64_t>(cells.size());
  if (options.progress && work->done() > 0) options.progress(work->done(), all);
  for (int64_t number = work->done(); number < all; ++number) {
    const auto seen = work->blocks->around(cells[static_cast<size_t>(number)], options.margin);
    torch::Tensor chance;
    for (int64_t vote = 0; vote < options.votes; ++vote) {
      const auto this_one = chances_of(model, seen.places, device, options, vote);
      chance = chance.defined() ? chance + this_one : this_one;
    }
    SERPENTINE_CHECK(chance.size(1) <= kMostClasses, kSegmentSceneWho, "at most ", kMostClasses,
                     " classes of points are kept, got ", chance.size(1));
    const auto own = chance.narrow(0, 0, static_cast<int64_t>(seen.rows.size()));
    work->finish(number, seen.rows, own.argmax(1));
    if (options.progress) options.progress(number + 1, all);
  }
  return work;
}

torch::Tensor segment_scene(Model& model, const torch::Tensor& points, torch::Device device,
                            const SegmentOptions& options) {
  check_shape(kSegmentSceneWho, points, "points", {-1, 3}, "N, 3");
  const ScenePoints scene = {points.size(0),
                             [&](int64_t first, int64_t n) { return points.narrow(0, first, n); }};
  return segment_scene(model, scene, device, options)->classes(0, points.size(0));
}

}  // namespace serpentine
