// What reading and writing HDF5 share: handles, the library's one lock, and types.
#pragma once

#include <mutex>

#include <c10/core/ScalarType.h>
#include <hdf5.h>

namespace serpentine {

/// An HDF5 handle that closes itself.
class Hdf5Handle {
 public:
  Hdf5Handle(hid_t id, herr_t (*closer)(hid_t)) : id_(id), close_(closer) {}
  ~Hdf5Handle() {
    if (id_ >= 0) close_(id_);
  }
  Hdf5Handle(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(const Hdf5Handle&) = delete;
  hid_t id() const { return id_; }
  bool good() const { return id_ >= 0; }
  herr_t close() {  // so that a failing close is heard
    const hid_t id = id_;
    id_ = -1;
    return id >= 0 ? close_(id) : 0;
  }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

/// Held during every call of the library, which also stops printing errors by itself.
std::unique_lock<std::mutex> hdf5_lock();

/// The library's type of a tensor's elements in memory; -1: none. The caller closes it if `made`.
hid_t hdf5_type(c10::ScalarType type, bool& made);

}  // namespace serpentine
