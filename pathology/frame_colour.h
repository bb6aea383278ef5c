// DICOM slides whose frames have other colours than the file says.
//
// Some writers call frames RGB that are JFIF files, and JFIF is YCbCr. OpenSlide believes the file:
// glass is pink then, tissue green. Decoders of JPEG believe the frame.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include <torch/types.h>

namespace serpentine {

/// Whether a slide's pixels are Y, Cb, Cr. `corner`: the upper left pixels uint8 [h, w, 3] of level
/// 0 as they are read; they are compared with the file's first JFIF frame. False for every other
/// file.
bool frames_are_ycc(const std::string& path,
                    const std::function<torch::Tensor(int64_t width, int64_t height)>& corner);

}  // namespace serpentine
