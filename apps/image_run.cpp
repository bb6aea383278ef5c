#include "apps/image_run.h"

#include <algorithm>
#include <filesystem>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/model_file.h"
#include "apps/run.h"
#include "core/check.h"
#include "core/data/loader.h"
#include "core/io/json_file.h"
#include "core/io/progress.h"
#include "core/io/state_dict.h"
#include "core/train/checkpoint.h"
#include "core/train/trainer.h"

namespace serpentine {

namespace fs = std::filesystem;

ImageRun open_image_run(const Packages& packages, const std::string& folder,
                        const std::string& device) {
  if (!fs::is_directory(folder))
    throw UsageError("there is no run folder '" + folder + "'; `serpentine train` makes one");
  ImageRun run;
  run.folder = folder;
  const Config config = Config::load(yaml_of(folder)).child("model");
  run.model_type = config.type();
  const std::string path = folder + "/data.json";
  const auto json = read_json(path);
  TORCH_CHECK(!json.is_null(), path,
              ": cannot be read; it says what the run's pictures looked like");
  TORCH_CHECK(json.is_object(), path, ": is damaged");
  run.schema = ImageSchema::from_json(json);
  run.model = packages.models.build(config);
  const std::string weights = weights_of_run(folder);
  const LoadReport fit =
      load_state_dict(*run.model, read_weights(weights), run.model->tolerated_keys());
  TORCH_CHECK(fit.ok(), weights, " does not fit the model of ", yaml_of(folder), "\n", fit.text());
  run.device = pick_device(device);
  run.model->to(run.device);
  run.model->eval();
  return run;
}

std::shared_ptr<ImageDataset> picture_files(const ImageRun& run,
                                            const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const auto& path : paths) {
    if (fs::is_directory(path)) {
      for (const auto& entry : fs::recursive_directory_iterator(path)) {
        if (entry.is_regular_file() && has_picture_extension(entry.path().string()))
          files.push_back(entry.path().string());
      }
    } else {
      TORCH_CHECK(fs::exists(path), path, ": there is no such file or folder");
      files.push_back(path);
    }
  }
  std::sort(files.begin(), files.end());
  TORCH_CHECK(!files.empty(), paths.front(), ": holds no pictures (.jpg, .png, .tif, ...)");
  ImageDataset::Parts parts;
  parts.labels.assign(files.size(), -1);
  for (size_t i = 0; i < files.size(); ++i) parts.rows.push_back(static_cast<int64_t>(i));
  parts.store = std::make_shared<FileImages>(std::move(files), run.schema.view.channels);
  parts.faults = std::make_shared<ImageFaults>();
  parts.classes = static_cast<int64_t>(run.schema.classes.size());
  parts.view = run.schema.view;
  return std::make_shared<ImageDataset>(std::move(parts));
}

std::shared_ptr<const ImageDataset> part_of_run(const Packages& packages, const ImageRun& run,
                                                const std::string& part,
                                                const std::vector<std::string>& overrides) {
  const RunPlan plan = read_plan(packages, yaml_of(run.folder), overrides);
  const auto source = packages.sources.build(plan.options.data);
  const Part which = part == "train"        ? Part::kTrain
                     : part == "validation" ? Part::kValidation
                                            : Part::kTest;
  auto images = std::dynamic_pointer_cast<const ImageDataset>(source->part(which));
  TORCH_CHECK(images != nullptr, run.folder, ": its data are not images");
  TORCH_CHECK(images->size() > 0, run.folder, ": the ", part, " part holds no pictures");
  return images;
}

void run_over(const ImageRun& run, const ImageDataset& images, int64_t batch_size,
              const std::string& title,
              const std::function<void(const Batch& batch, const torch::Tensor& output)>& use) {
  const torch::NoGradGuard no_grad;
  LoaderOptions how;
  how.batch_size = batch_size;
  how.shuffle = false;
  how.threads = std::max<int64_t>(1, at::get_num_threads());
  Loader loader(images, how);
  loader.start(0);
  Progress progress(title, images.size());
  int64_t done = 0;
  for (auto batch = loader.next(); batch; batch = loader.next()) {
    if (batch->size() > 0)
      use(*batch, run.model->forward(batch->to(run.device)).to(torch::kCPU, torch::kFloat32));
    done = std::min(done + batch_size, images.size());
    progress.update(done);
  }
  progress.finish(images.faults());
}

ImageScores score_images(const ImageRun& run, const ImageDataset& images, int64_t batch_size) {
  std::vector<torch::Tensor> probabilities, index, targets;
  run_over(run, images, batch_size, "pictures", [&](const Batch& batch, const torch::Tensor& out) {
    TORCH_CHECK(out.dim() == 2, run.folder, ": the model's output must be [B, classes], got ",
                out.sizes());
    probabilities.push_back(torch::softmax(out, 1));
    index.push_back(batch.get("index"));
    targets.push_back(batch.target);
  });
  TORCH_CHECK(!index.empty(), run.folder, ": none of the ", images.size(),
              " pictures could be read");
  return {torch::cat(probabilities), torch::cat(index), torch::cat(targets)};
}

}  // namespace serpentine
