// Pictures with classes, wherever they lie: in one packed tensor, in files, in tar shards.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <torch/types.h>

namespace serpentine {

/// Thread-safe.
class ImageStore {
 public:
  virtual ~ImageStore() = default;
  virtual int64_t size() const = 0;
  /// uint8 [H, W, C], C as the store has it. Throws std::runtime_error "NAME: why" where the
  /// picture cannot be read. `least_side`: see core/io/image.h.
  virtual torch::Tensor picture(int64_t index, int64_t least_side = 0) const = 0;
  /// What a person calls the picture: its path, or "FILE[index]".
  virtual std::string name(int64_t index) const = 0;
  /// The shape that all pictures share, [H, W, C]; empty: they differ.
  virtual std::vector<int64_t> shape() const { return {}; }
  /// Many pictures at once as uint8 [n, H, W, C]; only where all share a shape.
  virtual torch::Tensor pictures(const std::vector<int64_t>& indices) const;
};

/// uint8 [M, H, W, C] in memory.
class PackedImages : public ImageStore {
 public:
  PackedImages(torch::Tensor images, std::string name);
  int64_t size() const override { return images_.size(0); }
  torch::Tensor picture(int64_t index, int64_t least_side) const override;
  std::string name(int64_t index) const override;
  std::vector<int64_t> shape() const override { return images_.sizes().slice(1).vec(); }
  torch::Tensor pictures(const std::vector<int64_t>& indices) const override;

 private:
  torch::Tensor images_;
  std::string name_;
};

/// Files, decoded when they are asked for. `channels`: 1 or 3.
class FileImages : public ImageStore {
 public:
  FileImages(std::vector<std::string> paths, int64_t channels)
      : paths_(std::move(paths)), channels_(channels) {}
  int64_t size() const override { return static_cast<int64_t>(paths_.size()); }
  torch::Tensor picture(int64_t index, int64_t least_side) const override;
  std::string name(int64_t index) const override { return paths_[static_cast<size_t>(index)]; }

 private:
  std::vector<std::string> paths_;
  int64_t channels_;
};

/// The pictures of a source before they are divided.
struct LabelledImages {
  std::shared_ptr<const ImageStore> store;
  std::vector<std::string> classes;
  std::vector<int64_t> labels;      // of each picture; -1: not known
  std::vector<std::string> splits;  // "train", "validation", "test" or "": not said
  std::vector<std::string> notes;   // what was left out, and why
};

/// Pictures that could not be read: each is said once, on the standard error output, and counted.
class ImageFaults {
 public:
  void report(const std::string& name, const std::string& why);
  int64_t count() const;
  std::string note() const;  // "" without faults

 private:
  mutable std::mutex mutex_;
  std::set<std::string> names_;
  std::string first_;
};

/// "train", "validation" or "test" for the usual names of a part ("val", "valid", "dev", ...), or
/// "".
std::string split_name(const std::string& word);

/// Whether a file's name ends as pictures' names do.
bool has_picture_extension(const std::string& path);

/// "" or why the file cannot be a picture: empty, or no known kind by its first bytes.
std::string fault_of_file(const std::string& path);

}  // namespace serpentine
