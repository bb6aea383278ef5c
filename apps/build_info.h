// What this program was built from and with; CMake fills it in.
#pragma once

namespace serpentine {

struct BuildInfo {
  const char* version;     // of Serpentine
  const char* compiler;    // name and version
  const char* build_type;  // Release, Debug, ...
  const char* sanitize;    // sanitizers, or ""
  const char* torch_root;  // the LibTorch that was linked
  const char* source;      // the source tree of a build that was not installed
  const char* toolkit;     // version and folder of the CUDA toolkit, or ""
  bool cuda, nccl, opencv, openslide, tiff, hdf5, http, gdcm, dcmtk, parquet;
};

const BuildInfo& build_info();

}  // namespace serpentine
