#include "core/ops/flop_count.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>

namespace serpentine {
namespace {

thread_local FlopCount* current = nullptr;

using Inputs = c10::ArrayRef<const c10::IValue>;

double extent(const at::Tensor& tensor, int64_t axis) {
  return static_cast<double>(tensor.size(axis));
}

double product(const at::Tensor& left, const at::Tensor& right) {
  return 2.0 * static_cast<double>(left.numel()) * extent(right, -1);
}

/// aten::convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding,
/// groups): every output value costs one product for each weight of its channel.
double convolution(Inputs in) {
  const auto& input = in[0].toTensor();
  const auto& weight = in[1].toTensor();
  if (in[6].toBool()) {  // transposed: every input value meets each weight of its channel
    return 2.0 * static_cast<double>(input.numel()) *
           static_cast<double>(weight.numel() / weight.size(0));
  }
  const auto stride = in[3].toIntVector(), pad = in[4].toIntVector(),
             dilation = in[5].toIntVector();
  double outputs = extent(input, 0) * extent(weight, 0);
  for (int64_t axis = 2; axis < input.dim(); ++axis) {
    const auto at = static_cast<size_t>(axis - 2);
    const auto of = [&](const std::vector<int64_t>& all) {
      return all.size() > at ? all[at] : all[0];
    };
    const int64_t reach = of(dilation) * (weight.size(axis) - 1) + 1;
    outputs *= static_cast<double>((input.size(axis) + 2 * of(pad) - reach) / of(stride) + 1);
  }
  return 2.0 * outputs * static_cast<double>(weight.numel() / weight.size(0));
}

double attention(Inputs in) {
  const auto& query = in[0].toTensor();
  const auto& key = in[1].toTensor();
  return 4.0 * static_cast<double>(query.numel()) * extent(key, -2);
}

double count(const std::string& name, Inputs in) {
  if (name == "aten::mm" || name == "aten::bmm") return product(in[0].toTensor(), in[1].toTensor());
  if (name == "aten::addmm" || name == "aten::baddbmm")
    return product(in[1].toTensor(), in[2].toTensor());
  if (name == "aten::convolution") return convolution(in);
  if (name == "aten::scaled_dot_product_attention") return attention(in);
  if (name == "serpentine::selective_scan") {
    const auto& u = in[0].toTensor();
    const double positions = static_cast<double>(in[2].toInt());
    return extent(u, 0) * positions * extent(u, 2) * (9 * extent(in[1].toTensor(), -1) + 2);
  }
  if (name == "serpentine::causal_conv1d") {
    const auto& x = in[0].toTensor();
    return 2 * extent(x, 0) * static_cast<double>(in[2].toInt()) * extent(x, 2) *
           extent(in[1].toTensor(), -1);
  }
  return 0;
}

std::unique_ptr<at::ObserverContext> observe(const at::RecordFunction& function) {
  if (current == nullptr || function.inputs().size() < 2) return nullptr;
  const std::string name = function.name();
  const double counted = count(name, function.inputs());
  if (counted > 0) current->add(name.substr(name.rfind(':') + 1), counted);
  return nullptr;
}

}  // namespace

FlopCount::FlopCount() : outer_(current) {
  current = this;
  if (outer_ != nullptr) return;  // one callback serves all that are nested
  handle_ = at::addThreadLocalCallback(
      at::RecordFunctionCallback(observe).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
}

FlopCount::~FlopCount() {
  if (outer_ == nullptr) at::removeCallback(handle_);
  current = outer_;
}

double FlopCount::total() const {
  double sum = 0;
  for (const auto& [name, value] : counts_) sum += value;
  return sum;
}

}  // namespace serpentine
