// What turns tiles into features: a run of ours, a ResNet's weights, TorchScript, or statistics.
#pragma once

#include <cstdint>
#include <string>

#include "pathology/embed_job.h"

namespace serpentine {

struct EncoderOptions {
  std::string source;              // run folder, .safetensors/.pth, .ts, or "colour"
  std::string device = "auto";     // auto, cpu, cuda
  std::string precision = "fp32";  // fp32, bf16, fp16
  int64_t input_size = 0;          // pixels that tiles are resized to; 0: as they are
};

struct Encoder {
  TileEncoder encode;
  std::string name;   // for files and reports
  int64_t width = 0;  // features of a tile
};

/// Opens and tries the encoder on one white tile of `size` pixels. Throws with the file and the
/// cause.
Encoder open_encoder(const EncoderOptions& options, int64_t size);

}  // namespace serpentine
