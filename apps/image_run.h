// A finished training on images, and pictures for it to look at.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <torch/types.h>

#include "apps/packages.h"
#include "vision/image_dataset.h"
#include "vision/image_source.h"

namespace serpentine {

struct ImageRun {
  std::string folder, model_type;
  std::shared_ptr<Model> model;  // with the best weights, in evaluation mode, on `device`
  ImageSchema schema;
  torch::Device device = torch::kCPU;
};

/// The run's training data need not be there any more. Throws with what the folder lacks, or with
/// the first tensors that do not fit.
ImageRun open_image_run(const Packages& packages, const std::string& folder,
                        const std::string& device = "auto");

/// Pictures in files: folders are searched at any depth, by name. Throws where there are none.
std::shared_ptr<ImageDataset> picture_files(const ImageRun& run,
                                            const std::vector<std::string>& paths);

/// One part of the data that the run was trained with, as its YAML and `overrides` say.
std::shared_ptr<const ImageDataset> part_of_run(const Packages& packages, const ImageRun& run,
                                                const std::string& part,
                                                const std::vector<std::string>& overrides = {});

/// Calls `use` with every batch (its examples' numbers in the named tensor `index`) and the model's
/// output, on the CPU; shows progress. Pictures that cannot be read are missing.
void run_over(const ImageRun& run, const ImageDataset& images, int64_t batch_size,
              const std::string& title,
              const std::function<void(const Batch& batch, const torch::Tensor& output)>& use);

/// What the model thinks of every picture that could be read.
struct ImageScores {
  torch::Tensor probabilities;   // float32 [n, K]
  torch::Tensor index, targets;  // int64 [n]: the example, and its class (-1: not known)
};
ImageScores score_images(const ImageRun& run, const ImageDataset& images, int64_t batch_size = 64);

}  // namespace serpentine
