#include "segmentation/segmentation.h"

#include <gtest/gtest.h>

namespace serpentine {
namespace {

TEST(Segmentation, RegistersEveryNameOnce) {
  Registry<Model> models{"model"};
  EXPECT_NO_THROW(add_segmentation_models(models));
  if (!models.names().empty()) {
    EXPECT_ANY_THROW(add_segmentation_models(models));
  }
}

}  // namespace
}  // namespace serpentine
