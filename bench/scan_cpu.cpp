// Serpentine's selective scan as a timed worker; `scan_cpu reference` runs the plain definition.
#include <torch/torch.h>

#include <string>
#include <utility>
#include <vector>

#include "bench/worker.h"
#include "core/ops/selective_scan.h"

namespace serpentine::bench {
namespace {

class Scan : public Implementation {
 public:
  explicit Scan(bool reference) : reference_(reference) {}

  void load(const Case& shape) override {
    at::set_num_threads(shape.threads);
    const auto [folder, b, d, l, n, threads] = shape;
    args_.u = tensor(folder + "/u.f32", {b, l, d});
    args_.delta = tensor(folder + "/delta.f32", {b, l, 1, d});
    args_.A = tensor(folder + "/A.f32", {1, d, n});
    args_.B = tensor(folder + "/B.f32", {b, l, 1, n});
    args_.C = tensor(folder + "/C.f32", {b, l, 1, n});
    dy_ = tensor(folder + "/dy.f32", {b, l, d});
    order_ = identity_order(l);
  }

  void run(bool backward) override { compute(backward); }

  void save(bool backward, const std::string& prefix) override {
    const std::vector<at::Tensor> results = compute(backward);
    const char* names[] = {"y", "du", "ddelta", "dA", "dB", "dC"};
    for (size_t i = 0; i < results.size(); ++i) {
      const at::Tensor result = results[i].contiguous();
      write_floats(prefix + "." + names[i] + ".f32", result.const_data_ptr<float>(),
                   result.numel());
    }
  }

 private:
  static at::Tensor tensor(const std::string& path, at::IntArrayRef sizes) {
    return torch::tensor(read_floats(path, c10::multiply_integers(sizes))).view(sizes);
  }

  at::Tensor scan(const SelectiveScanArgs& args) const {
    return (reference_ ? selective_scan_reference(args, order_) : selective_scan(args, order_)).y;
  }

  // y, and with `backward` the gradients of u, delta, A, B and C for the output gradient dy.
  std::vector<at::Tensor> compute(bool backward) const {
    const c10::AutoGradMode mode(backward);
    if (!backward) return {scan(args_)};
    SelectiveScanArgs args = args_;
    std::vector<at::Tensor> inputs;
    for (at::Tensor* input : {&args.u, &args.delta, &args.A, &args.B, &args.C}) {
      *input = input->detach().requires_grad_();
      inputs.push_back(*input);
    }
    std::vector<at::Tensor> results = {scan(args)};
    for (at::Tensor& gradient : torch::autograd::grad({results[0]}, inputs, {dy_})) {
      results.push_back(std::move(gradient));
    }
    results[0] = results[0].detach();
    return results;
  }

  bool reference_;
  SelectiveScanArgs args_;
  at::Tensor dy_;  // [B, L, D]
  ScanOrder order_;
};

}  // namespace
}  // namespace serpentine::bench

int main(int argc, char** argv) {
  serpentine::bench::Scan scan(argc > 1 && std::string(argv[1]) == "reference");
  return serpentine::bench::serve(scan);
}
