// ggml's CPU ssm_scan as a timed worker: softplus of delta and the recurrence, one head a channel.
#include <ggml-cpu.h>
#include <ggml.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/worker.h"

namespace serpentine::bench {
namespace {

struct FreeContext {
  void operator()(ggml_context* context) const { ggml_free(context); }
};

class GgmlScan : public Implementation {
 public:
  void load(const Case& shape) override {
    const auto [folder, b, d, l, n, threads] = shape;
    const auto floats = static_cast<size_t>(b * l * d * 3 + b * l * n * 2 + d * n + 3 * b * d * n);
    const size_t room = size_t{64} << 20;  // the graph and the tensors' own records
    context_.reset(ggml_init({floats * sizeof(float) + room, nullptr, false}));
    if (!context_) throw std::runtime_error("ggml_init failed");
    ggml_context* context = context_.get();
    ggml_tensor* state = ggml_new_tensor_4d(context, GGML_TYPE_F32, n, 1, d, b);
    std::memset(state->data, 0, ggml_nbytes(state));
    ggml_tensor* u = fill(ggml_new_tensor_4d(context, GGML_TYPE_F32, 1, d, l, b), folder + "/u");
    ggml_tensor* delta =
        fill(ggml_new_tensor_3d(context, GGML_TYPE_F32, d, l, b), folder + "/delta");
    ggml_tensor* A = fill(ggml_new_tensor_2d(context, GGML_TYPE_F32, n, d), folder + "/A");
    ggml_tensor* B = fill(ggml_new_tensor_4d(context, GGML_TYPE_F32, n, 1, l, b), folder + "/B");
    ggml_tensor* C = fill(ggml_new_tensor_4d(context, GGML_TYPE_F32, n, 1, l, b), folder + "/C");
    ggml_tensor* ids = ggml_new_tensor_1d(context, GGML_TYPE_I32, b);
    for (int64_t i = 0; i < b; ++i) static_cast<int32_t*>(ids->data)[i] = static_cast<int32_t>(i);

    result_ = ssm_scan(context, state, u, delta, A, B, C, ids);
    graph_ = ggml_new_graph(context);
    ggml_build_forward_expand(graph_, result_);
    plan_ = ggml_graph_plan(graph_, threads, nullptr);
    work_.resize(plan_.work_size + 1);
    plan_.work_data = work_.data();
    outputs_ = b * l * d;
  }

  void run(bool backward) override {
    if (backward) throw std::runtime_error("ggml has no backward of ssm_scan");
    ggml_graph_compute(graph_, &plan_);
  }

  void save(bool backward, const std::string& prefix) override {
    run(backward);
    write_floats(prefix + ".y.f32", static_cast<const float*>(result_->data), outputs_);
  }

 private:
  static ggml_tensor* fill(ggml_tensor* tensor, const std::string& path) {
    const std::vector<float> values = read_floats(path + ".f32", ggml_nelements(tensor));
    std::copy(values.begin(), values.end(), static_cast<float*>(tensor->data));
    return tensor;
  }

  // Newer releases take one more argument, the number of states kept a sequence.
  template <class... Tensors>
  static ggml_tensor* ssm_scan(ggml_context* context, Tensors... tensors) {
    if constexpr (requires { ggml_ssm_scan(context, tensors...); }) {
      return ggml_ssm_scan(context, tensors...);
    } else {
      return ggml_ssm_scan(context, tensors..., 1);
    }
  }

  std::unique_ptr<ggml_context, FreeContext> context_;
  ggml_tensor* result_ = nullptr;
  ggml_cgraph* graph_ = nullptr;
  ggml_cplan plan_{};
  std::vector<uint8_t> work_;
  int64_t outputs_ = 0;
};

}  // namespace
}  // namespace serpentine::bench

int main() {
  serpentine::bench::GgmlScan scan;
  return serpentine::bench::serve(scan);
}
