// HDF5 in a build without it: every function says how to get it.
#include "core/check.h"
#include "core/io/hdf5.h"

namespace serpentine {
namespace {

[[noreturn]] void missing(const std::string& path) {
  TORCH_CHECK(false, path, ": this program is built without HDF5 (install libhdf5-dev and ",
              "configure with -DSERPENTINE_HDF5=ON)");
}

}  // namespace

struct Hdf5Reader::File {};
struct Hdf5Writer::File {};

bool hdf5_available() { return false; }

Hdf5Reader::Hdf5Reader(const std::string& path) { missing(path); }
Hdf5Reader::~Hdf5Reader() = default;
bool Hdf5Reader::has(const std::string& name) const { missing(name); }
std::vector<std::string> Hdf5Reader::arrays() const { missing(""); }
std::vector<int64_t> Hdf5Reader::shape(const std::string& name) const { missing(name); }
torch::Tensor Hdf5Reader::read(const std::string& name) const { missing(name); }
torch::Tensor Hdf5Reader::rows(const std::string& name, int64_t, int64_t) const { missing(name); }
torch::Tensor Hdf5Reader::read_as(const std::string& name, torch::ScalarType) const {
  missing(name);
}
std::vector<std::string> Hdf5Reader::read_texts(const std::string& name) const { missing(name); }
Hdf5Attributes Hdf5Reader::attributes(const std::string& name) const { missing(name); }

Hdf5Writer::Hdf5Writer(const std::string& path) { missing(path); }
Hdf5Writer::~Hdf5Writer() = default;
void Hdf5Writer::write(const std::string& name, const torch::Tensor&) { missing(name); }
void Hdf5Writer::append(const std::string& name, const torch::Tensor&, int64_t) { missing(name); }
void Hdf5Writer::write_texts(const std::string& name, const std::vector<std::string>&) {
  missing(name);
}
void Hdf5Writer::set_attributes(const std::string& name, const Hdf5Attributes&) { missing(name); }
void Hdf5Writer::finish() { missing(""); }

}  // namespace serpentine
