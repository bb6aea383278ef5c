#include "core/dist/process_group.h"

#include <chrono>
#include <exception>
#include <functional>
#include <utility>

#include <torch/torch.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "core/check.h"
#include "core/dist/backends.h"

namespace serpentine {

namespace {

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

}  // namespace

struct ProcessGroup::Backends {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::Backend> host;    // Gloo
  c10::intrusive_ptr<c10d::Backend> device;  // NCCL, or the same as host
  double timeout;

  /// c10d's own messages name sockets and source lines; people need to know which peer was lost.
  void guarded(const World& world, const char* what, const std::function<void()>& call) const {
    try {
      call();
    } catch (const std::exception& error) {
      std::string cause = error.what();
      cause = cause.substr(0, cause.find('\n'));
      SERPENTINE_CHECK(false, "process group", "rank ", world.rank, " of ", world.size,
                       " lost the others during ", what,
                       ": another rank has ended, or was silent for ", timeout,
                       " s. Look for the first error among the ranks. (", cause, ")");
    }
  }
};

ProcessGroup::ProcessGroup(World world, torch::Device device, double timeout_seconds)
    : world_(std::move(world)), backends_(std::make_unique<Backends>()) {
  SERPENTINE_CHECK(world_.size >= 1 && world_.rank >= 0 && world_.rank < world_.size,
                   "process group", world_.source, " says rank ", world_.rank, " of ", world_.size,
                   ", which must lie in [0, ", world_.size, ")");
  backends_->timeout = timeout_seconds;
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(world_.port);
  options.isServer = world_.rank == 0 && !world_.store_is_kept;
  options.waitWorkers = false;
  options.timeout = milliseconds(timeout_seconds);
  options.multiTenant = true;
  try {
    backends_->store = c10::make_intrusive<c10d::TCPStore>(world_.address, options);
    backends_->host = connect_gloo(backends_->store, world_, timeout_seconds);
    backends_->device = device.is_cuda()
                            ? connect_nccl(backends_->store, world_, device, timeout_seconds)
                            : backends_->host;
  } catch (const c10::Error&) {
    throw;
  } catch (const std::exception& error) {
    const std::string cause = error.what();
    SERPENTINE_CHECK(false, "process group", "rank ", world_.rank, " of ", world_.size, " (",
                     world_.source, ") could not meet the others at ", world_.address, ":",
                     world_.port, " (", cause.substr(0, cause.find('\n')), ")");
  }
}

ProcessGroup::~ProcessGroup() = default;

torch::Tensor ProcessGroup::host_sum(const torch::Tensor& values) {
  std::vector<torch::Tensor> sums = {values.to(torch::kCPU, false, /*copy=*/true).contiguous()};
  backends_->guarded(world_, "a sum", [&] { backends_->host->allreduce(sums)->wait(); });
  return sums.front();
}

torch::Tensor ProcessGroup::host_gather(const torch::Tensor& bytes) {
  torch::Tensor sizes = torch::zeros({size()}, torch::kInt64);
  sizes[rank()] = bytes.numel();
  const int64_t longest = host_sum(sizes).max().item<int64_t>();
  torch::Tensor rows = torch::zeros({size(), longest}, torch::kUInt8);
  rows[rank()].slice(0, 0, bytes.numel()).copy_(bytes);
  return host_sum(rows);
}

void ProcessGroup::sum(std::vector<torch::Tensor>& tensors) {
  backends_->guarded(world_, "the sum of gradients", [&] {
    std::vector<c10::intrusive_ptr<c10d::Work>> works;
    for (auto& tensor : tensors) {
      std::vector<torch::Tensor> one = {tensor};
      works.push_back(backends_->device->allreduce(one));
    }
    for (auto& work : works) work->wait();
  });
}

void ProcessGroup::broadcast(const std::vector<torch::Tensor>& tensors) {
  const torch::NoGradGuard no_grad;
  backends_->guarded(world_, "the broadcast of weights", [&] {
    for (const auto& tensor : tensors) {
      std::vector<torch::Tensor> one = {tensor.detach().contiguous()};
      backends_->device->broadcast(one)->wait();
      if (!tensor.is_contiguous()) tensor.detach().copy_(one.front());
    }
  });
}

void ProcessGroup::barrier() { host_sum(torch::zeros({1})); }

}  // namespace serpentine
