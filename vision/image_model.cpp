#include "vision/image_model.h"

namespace serpentine {

void ImageModelOptions::fields(Fields& f) {
  f("classes", classes, "classes of images", {.least = 1});
  f("channels", channels, "channels of an image", {.least = 1});
  f("image_size", image_size,
    "[side] or [height, width] that a learned position embedding is sized for; default 224; other "
    "images are accepted and the embedding is resized to them",
    {.least = 1});
  f("recompute", recompute,
    "training keeps only what enters each block and computes the rest again: less memory, more "
    "time");
}

}  // namespace serpentine
