#include "pathology/pathology.h"

#include <gtest/gtest.h>

namespace serpentine {
namespace {

TEST(Pathology, RegistersEveryNameOnce) {
  Registry<Model> models{"model"};
  EXPECT_NO_THROW(add_pathology_models(models));
  if (!models.names().empty()) {
    EXPECT_ANY_THROW(add_pathology_models(models));
  }
}

}  // namespace
}  // namespace serpentine
