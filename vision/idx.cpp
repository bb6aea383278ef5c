// The files of the MNIST family: {train,t10k}-{images-idx3,labels-idx1}-ubyte, packed or not.
#include <algorithm>
#include <filesystem>

#include <torch/torch.h>

#include "core/check.h"
#include "core/io/gzip.h"
#include "vision/image_source.h"
#include "vision/packed_images.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

struct IdxOptions : ImageDataOptions {
  std::vector<std::string> classes;
  void fields(Fields& f) {
    ImageDataOptions::fields(f);
    f("classes", classes, "names of the classes; empty: their numbers");
  }
};

/// The file of that name with or without .gz, with '-' or '.' before idx; "" when there is none.
std::string find_file(const std::string& folder, const std::string& prefix, const char* axes) {
  for (const char* mark : {"-idx", ".idx"}) {
    for (const char* end : {"-ubyte", "-ubyte.gz"}) {
      const std::string path = folder + "/" + prefix + mark + axes + end;
      if (std::filesystem::is_regular_file(path)) return path;
    }
  }
  return "";
}

void add_part(const std::string& folder, const std::string& prefix, const std::string& split,
              std::vector<torch::Tensor>& images, LabelledImages& all) {
  const std::string image_file = find_file(folder, prefix + "-images", "3");
  if (image_file.empty()) return;
  const std::string label_file = find_file(folder, prefix + "-labels", "1");
  SERPENTINE_CHECK(!label_file.empty(), folder, "there is ", image_file, ", but no ", prefix,
                   "-labels-idx1-ubyte beside it");
  const auto pictures = parse_idx(read_unpacked(image_file), image_file);
  const auto labels = parse_idx(read_unpacked(label_file), label_file);
  SERPENTINE_CHECK(pictures.dim() == 3, image_file, "pictures must be [M, H, W], got ",
                   pictures.sizes());
  SERPENTINE_CHECK(labels.dim() == 1 && labels.size(0) == pictures.size(0), label_file,
                   "there must be ", pictures.size(0), " labels, got ", labels.sizes());
  images.push_back(pictures.unsqueeze(3));
  for (int64_t i = 0; i < labels.size(0); ++i) {
    all.labels.push_back(labels.const_data_ptr<uint8_t>()[i]);
    all.splits.push_back(split);
  }
}

LabelledImages read_idx(const IdxOptions& options) {
  SERPENTINE_CHECK(std::filesystem::is_directory(options.path), options.path,
                   "must be a folder with train-images-idx3-ubyte and its companions");
  LabelledImages all;
  std::vector<torch::Tensor> images;
  add_part(options.path, "train", "train", images, all);
  add_part(options.path, "t10k", "test", images, all);
  add_part(options.path, "test", "test", images, all);
  SERPENTINE_CHECK(!images.empty(), options.path,
                   "holds no train-images-idx3-ubyte or t10k-images-idx3-ubyte (.gz)");
  for (const auto& part : images) {
    SERPENTINE_CHECK(part.sizes().slice(1) == images.front().sizes().slice(1), options.path,
                     "training and test pictures differ in size: ", images.front().sizes(), " and ",
                     part.sizes());
  }
  all.store = std::make_shared<PackedImages>(torch::cat(images), options.path);
  all.classes = options.classes;
  SERPENTINE_CHECK(!all.labels.empty(), options.path, "there are no pictures");
  const auto most = static_cast<size_t>(*std::max_element(all.labels.begin(), all.labels.end()));
  SERPENTINE_CHECK(all.classes.empty() || most < all.classes.size(), options.path, "a label is ",
                   most, ", but `classes` names only ", all.classes.size());
  for (size_t k = all.classes.size(); k <= most; ++k) all.classes.push_back(std::to_string(k));
  return all;
}

}  // namespace

void add_idx(Registry<DataSource>& all) {
  all.add<IdxOptions>("idx", [](const IdxOptions& options) {
    return std::make_shared<ImageSource>(options, read_idx(options));
  });
}

}  // namespace serpentine
