// Several processes that train one model: who they are, and what they tell each other.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <torch/types.h>

#include "core/config.h"

namespace serpentine {

/// One process of a job.
struct World {
  int64_t rank = 0, size = 1;
  int64_t local_rank = 0;  // among the processes of this machine: picks the GPU
  std::string address = "127.0.0.1";
  int64_t port = 29500;
  bool store_is_kept = false;          // torchrun's agent serves the store already
  std::string source = "one process";  // who said so, for errors
};

/// torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), else Slurm's
/// (SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, SLURM_NODELIST), else one process. Throws on half a
/// set.
World world_from_environment();

/// Collectives over all processes of a world; every rank makes the same calls in the same order.
///
/// What the host knows (counts, flags, sums of metrics) travels over Gloo without touching a GPU;
/// gradients of CUDA tensors travel over NCCL. A peer that dies or is silent for `timeout_seconds`
/// makes every other rank throw.
class ProcessGroup {
 public:
  ProcessGroup(World world, torch::Device device, double timeout_seconds = 1800);
  ~ProcessGroup();
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  int64_t rank() const { return world_.rank; }
  int64_t size() const { return world_.size; }

  /// The element-wise sum over ranks of a CPU tensor; the same bits on every rank.
  torch::Tensor host_sum(const torch::Tensor& values);
  /// [size, n]: the bytes of every rank's uint8 [n]; shorter ones are padded with zeros.
  torch::Tensor host_gather(const torch::Tensor& bytes);
  /// Sums contiguous tensors of the group's device in place; all are under way at once.
  void sum(std::vector<torch::Tensor>& tensors);
  /// Overwrites tensors with those of rank 0.
  void broadcast(const std::vector<torch::Tensor>& tensors);
  void barrier();

 private:
  struct Backends;
  World world_;
  std::unique_ptr<Backends> backends_;
};

}  // namespace serpentine
