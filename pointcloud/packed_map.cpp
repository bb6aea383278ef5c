#include "pointcloud/packed_map.h"

#include <optional>
#include <string_view>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>

namespace serpentine::cpu {
namespace {

using Scalars = c10::List<std::optional<at::Scalar>>;
using Bias = std::optional<at::Tensor>;
using Reorder = at::Tensor(const at::Tensor&, std::optional<c10::SymInt>);
using Linear = at::Tensor(const at::Tensor&, const at::Tensor&, const Bias&, std::string_view,
                          Scalars, std::optional<std::string_view>);
using LinearAdd = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const Bias&,
                             std::string_view);

/// LibTorch's operators of oneDNN have no functions of their own: they are found by name.
struct Operators {
  c10::TypedOperatorHandle<Reorder> reorder;
  c10::TypedOperatorHandle<Linear> linear;
  c10::TypedOperatorHandle<LinearAdd> linear_add;
};

const std::optional<Operators>& operators() {
  static const std::optional<Operators> found = [] {
    const auto find = [](const char* name, const char* overload) {
      return c10::Dispatcher::singleton().findSchema({name, overload});
    };
    const auto reorder = find("mkldnn::_reorder_linear_weight", "");
    const auto linear = find("mkldnn::_linear_pointwise", "");
    const auto add = find("mkldnn::_linear_pointwise", "binary");
    std::optional<Operators> all;
    if (at::hasMKLDNN() && reorder && linear && add) {
      all = {reorder->typed<Reorder>(), linear->typed<Linear>(), add->typed<LinearAdd>()};
    }
    return all;
  }();
  return found;
}

}  // namespace

PackedMap::PackedMap(const FoldedMap& map, int64_t rows, at::ScalarType type)
    : weight_(map.weight.to(type)),
      bias_(map.bias.to(type)),
      // oneDNN's relu makes 0 of NaN; what came in as NaN stays, by the sum that follows
      packed_(operators() && at::globalContext().userEnabledMkldnn() &&
              at::isfinite(weight_).all().item<bool>() && at::isfinite(bias_).all().item<bool>()) {
  if (packed_) weight_ = operators()->reorder.call(weight_, c10::SymInt(rows));
}

at::Tensor PackedMap::relu_of(const at::Tensor& x) const {
  if (packed_) return operators()->linear.call(x, weight_, bias_, "relu", Scalars(), "");
  return at::addmm(bias_, x, weight_.t()).relu_();
}

at::Tensor PackedMap::plus(const at::Tensor& x, const at::Tensor& y) const {
  if (packed_) return operators()->linear_add.call(x, y, weight_, bias_, "add");
  return at::addmm(bias_, x, weight_.t()).add_(y);
}

}  // namespace serpentine::cpu
