// The binary version of CIFAR-10 and CIFAR-100 (Krizhevsky 2009), packed or not.
#include <algorithm>
#include <filesystem>
#include <fstream>

#include <torch/torch.h>

#include "core/check.h"
#include "core/io/gzip.h"
#include "vision/image_source.h"
#include "vision/packed_images.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

struct CifarOptions : ImageDataOptions {
  bool coarse = false;
  void fields(Fields& f) {
    ImageDataOptions::fields(f);
    f("coarse", coarse, "CIFAR-100: the 20 coarse classes instead of the 100 fine ones");
  }
};

/// One name a line.
std::vector<std::string> read_names(const std::string& path) {
  std::vector<std::string> names;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    while (!line.empty() && static_cast<unsigned char>(line.back()) <= ' ') line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  return names;
}

bool starts(const std::string& name, const char* with) { return name.rfind(with, 0) == 0; }

LabelledImages read_cifar(const CifarOptions& options) {
  SERPENTINE_CHECK(fs::is_directory(options.path), options.path,
                   "must be a folder with data_batch_1.bin and its companions (CIFAR-10), or "
                   "train.bin and test.bin (CIFAR-100)");
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(options.path)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".bin") || name.ends_with(".bin.gz")) files.push_back(name);
  }
  std::sort(files.begin(), files.end());
  const bool hundred = std::any_of(files.begin(), files.end(), [](const std::string& name) {
    return starts(name, "train.bin");
  });
  LabelledImages all;
  std::vector<torch::Tensor> images;
  for (const auto& name : files) {
    const bool test = starts(name, "test");
    if (!test && !starts(name, "train") && !starts(name, "data_batch")) continue;
    const std::string path = options.path + "/" + name;
    auto records = parse_cifar(read_unpacked(path), hundred ? 2 : 1, options.coarse, path);
    images.push_back(records.images);
    all.labels.insert(all.labels.end(), records.labels.begin(), records.labels.end());
    all.splits.resize(all.labels.size(), test ? "test" : "train");
  }
  SERPENTINE_CHECK(!images.empty(), options.path,
                   "holds no data_batch*.bin or train.bin (.gz), and no test file");
  all.store = std::make_shared<PackedImages>(torch::cat(images), options.path);
  all.classes = read_names(options.path + (!hundred         ? "/batches.meta.txt"
                                           : options.coarse ? "/coarse_label_names.txt"
                                                            : "/fine_label_names.txt"));
  const auto known = static_cast<size_t>(!hundred ? 10 : options.coarse ? 20 : 100);
  for (size_t k = all.classes.size(); k < known; ++k) all.classes.push_back(std::to_string(k));
  const auto most = static_cast<size_t>(*std::max_element(all.labels.begin(), all.labels.end()));
  SERPENTINE_CHECK(most < known, options.path, "a label is ", most, ", but there are only ", known,
                   " classes; the files are damaged or of another layout");
  return all;
}

}  // namespace

void add_cifar(Registry<DataSource>& all) {
  all.add<CifarOptions>("cifar", [](const CifarOptions& options) {
    return std::make_shared<ImageSource>(options, read_cifar(options));
  });
}

}  // namespace serpentine
