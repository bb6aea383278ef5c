// Options of Mamba-2 from the reference's own arguments.
#pragma once

#include <limits>

#include <nlohmann/json.hpp>

#include "core/nn/mamba2.h"

namespace serpentine::golden {

inline double limit_of(const nlohmann::json& value) {
  return value.is_string() ? std::numeric_limits<double>::infinity() : value.get<double>();
}

/// Mamba2's defaults are the options' own; a caller sets other ones, and d_model, before or after.
inline Mamba2Options mamba2_options(const nlohmann::json& arguments, Mamba2Options options = {}) {
  const auto whole = [&](const char* key, int64_t& value) {
    if (arguments.contains(key) && arguments.at(key).is_number()) value = arguments.at(key);
  };
  whole("d_model", options.d_model);
  whole("d_state", options.d_state);
  whole("d_conv", options.d_conv);
  whole("headdim", options.headdim);
  whole("d_ssm", options.d_ssm);
  whole("ngroups", options.ngroups);
  whole("chunk_size", options.chunk_size);
  options.expand = arguments.value("expand", options.expand);
  options.D_has_hdim = arguments.value("D_has_hdim", options.D_has_hdim);
  options.rmsnorm = arguments.value("rmsnorm", options.rmsnorm);
  options.norm_before_gate = arguments.value("norm_before_gate", options.norm_before_gate);
  options.bias = arguments.value("bias", options.bias);
  options.conv_bias = arguments.value("conv_bias", options.conv_bias);
  options.learnable_init_states =
      arguments.value("learnable_init_states", options.learnable_init_states);
  if (arguments.contains("dt_limit")) {
    options.dt_least = limit_of(arguments.at("dt_limit")[0]);
    options.dt_most = limit_of(arguments.at("dt_limit")[1]);
  }
  return options;
}

}  // namespace serpentine::golden
