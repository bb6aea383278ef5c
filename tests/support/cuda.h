// Tests that need a GPU skip themselves where there is none.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#define SERPENTINE_NEEDS_CUDA() \
  if (!torch::cuda::is_available()) GTEST_SKIP() << "no CUDA device"
