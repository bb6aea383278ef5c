// MedMNIST's npz archives (Yang et al., arXiv 2110.14795): {train,val,test}_{images,labels}.
#include <algorithm>

#include <torch/torch.h>

#include "core/check.h"
#include "core/io/npy.h"
#include "vision/image_source.h"
#include "vision/packed_images.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

struct MedMnistOptions : ImageDataOptions {
  std::vector<std::string> classes;
  void fields(Fields& f) {
    ImageDataOptions::fields(f);
    f("classes", classes, "names of the classes; empty: their numbers");
  }
};

torch::Tensor array_of(const StateDict& arrays, const std::string& name) {
  for (const auto& [key, values] : arrays) {
    if (key == name) return values;
  }
  return {};
}

LabelledImages read_medmnist(const MedMnistOptions& options) {
  const StateDict arrays = read_npz(options.path);
  LabelledImages all;
  std::vector<torch::Tensor> images;
  for (const char* split : {"train", "val", "test"}) {
    const std::string name = split;
    auto pictures = array_of(arrays, name + "_images"), labels = array_of(arrays, name + "_labels");
    if (!pictures.defined()) continue;
    const std::string who = options.path + ": '" + name + "_images'";
    pictures = medmnist_images(pictures, who);
    SERPENTINE_CHECK(labels.defined(), options.path, "there is no array '", name, "_labels'");
    if (labels.dim() == 2 && labels.size(1) == 1) labels = labels.squeeze(1);
    SERPENTINE_CHECK(labels.dim() == 1 && labels.size(0) == pictures.size(0), options.path, "'",
                     name, "_labels' must hold one class for each of ", pictures.size(0),
                     " pictures, got ", labels.sizes(),
                     labels.dim() == 2 ? " (several labels a picture are not supported)" : "");
    SERPENTINE_CHECK(images.empty() || pictures.sizes().slice(1) == images.front().sizes().slice(1),
                     options.path, "pictures differ in size: ", pictures.sizes());
    images.push_back(pictures);
    const auto whole = labels.to(torch::kLong).contiguous();
    all.labels.insert(all.labels.end(), whole.const_data_ptr<int64_t>(),
                      whole.const_data_ptr<int64_t>() + whole.numel());
    all.splits.resize(all.labels.size(), split_name(name));
  }
  SERPENTINE_CHECK(!all.labels.empty(), options.path,
                   "holds no pictures: arrays 'train_images' and so on are needed");
  const auto [least, most] = std::minmax_element(all.labels.begin(), all.labels.end());
  SERPENTINE_CHECK(*least >= 0 && *most < 100000, options.path, "labels lie between ", *least,
                   " and ", *most);
  SERPENTINE_CHECK(options.classes.empty() || *most < static_cast<int64_t>(options.classes.size()),
                   options.path, "a label is ", *most, ", but `classes` names only ",
                   options.classes.size());
  all.store = std::make_shared<PackedImages>(torch::cat(images), options.path);
  all.classes = options.classes;
  for (auto k = static_cast<int64_t>(all.classes.size()); k <= *most; ++k)
    all.classes.push_back(std::to_string(k));
  return all;
}

}  // namespace

void add_medmnist(Registry<DataSource>& all) {
  all.add<MedMnistOptions>("medmnist", [](const MedMnistOptions& options) {
    return std::make_shared<ImageSource>(options, read_medmnist(options));
  });
}

}  // namespace serpentine
