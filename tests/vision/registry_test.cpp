#include "vision/vision.h"

#include <gtest/gtest.h>

namespace serpentine {
namespace {

TEST(Vision, RegistersEveryNameOnce) {
  Registry<Model> models{"model"};
  EXPECT_NO_THROW(add_vision_models(models));
  if (!models.names().empty()) {
    EXPECT_ANY_THROW(add_vision_models(models));
  }
}

}  // namespace
}  // namespace serpentine
