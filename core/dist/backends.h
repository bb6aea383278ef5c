// What carries tensors between processes: Gloo on hosts, NCCL on GPUs.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "core/dist/process_group.h"

namespace serpentine {

c10::intrusive_ptr<c10d::Backend> connect_gloo(const c10::intrusive_ptr<c10d::Store>& store,
                                               const World& world, double timeout_seconds);

/// In nccl.cpp with CUDA; throws in no_nccl.cpp without.
c10::intrusive_ptr<c10d::Backend> connect_nccl(const c10::intrusive_ptr<c10d::Store>& store,
                                               const World& world, torch::Device device,
                                               double timeout_seconds);

}  // namespace serpentine
