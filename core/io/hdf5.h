// HDF5 files: arrays and attributes, read and written; what CLAM, TRIDENT and sets of clouds use.
//
// Needs libhdf5 (SERPENTINE_HDF5); a build without throws one sentence that says so. Thread-safe:
// the library is not, so all calls wait for one another.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include <torch/types.h>

namespace serpentine {

/// Whether this build reads HDF5.
bool hdf5_available();

/// An attribute: a number, several, or a text.
using Hdf5Value =
    std::variant<int64_t, double, std::string, std::vector<int64_t>, std::vector<double>>;
using Hdf5Attributes = std::map<std::string, Hdf5Value>;

/// A file open for reading. Arrays are named from the root, as in "features" or "group/features".
/// Throws c10::Error with file, array and cause.
class Hdf5Reader {
 public:
  explicit Hdf5Reader(const std::string& path);
  ~Hdf5Reader();
  Hdf5Reader(const Hdf5Reader&) = delete;
  Hdf5Reader& operator=(const Hdf5Reader&) = delete;

  bool has(const std::string& name) const;
  /// Every array, those in groups too, by name.
  std::vector<std::string> arrays() const;
  std::vector<int64_t> shape(const std::string& name) const;

  /// The array in its own type; float16 and bfloat16 widen to float32, unsigned to the next int.
  torch::Tensor read(const std::string& name) const;
  /// Rows [first, first + count) of the first axis.
  torch::Tensor rows(const std::string& name, int64_t first, int64_t count) const;
  /// The array as float32, float64 or int64, converted by the library.
  torch::Tensor read_as(const std::string& name, torch::ScalarType type) const;
  /// An array of texts, of fixed or variable length.
  std::vector<std::string> read_texts(const std::string& name) const;

  /// The attributes of an array, or of the file's root for "". Kinds that Hdf5Value does not hold
  /// are left out.
  Hdf5Attributes attributes(const std::string& name = "") const;

 private:
  struct File;
  std::unique_ptr<File> file_;
};

/// Writes a temporary file beside `path`; finish() closes, syncs and renames it. Without finish()
/// nothing changes. Errors as in Hdf5Reader.
class Hdf5Writer {
 public:
  explicit Hdf5Writer(const std::string& path);
  ~Hdf5Writer();
  Hdf5Writer(const Hdf5Writer&) = delete;
  Hdf5Writer& operator=(const Hdf5Writer&) = delete;

  /// float16/32/64, uint8, int8/16/32/64. Any shape; a first axis of 0 is kept.
  void write(const std::string& name, const torch::Tensor& values);
  /// The first call makes an array whose first axis grows, in chunks of `chunk` rows; each call
  /// adds its rows. So a slide's features need not lie in memory together.
  void append(const std::string& name, const torch::Tensor& rows, int64_t chunk = 32);
  void write_texts(const std::string& name, const std::vector<std::string>& texts);
  /// To an array, or the root for "".
  void set_attributes(const std::string& name, const Hdf5Attributes& attributes);
  void finish();

 private:
  struct File;
  std::unique_ptr<File> file_;
};

}  // namespace serpentine
