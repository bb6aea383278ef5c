// What the checkers of vision models share.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "golden/golden.h"
#include "vision/image_model.h"

namespace serpentine::golden {

/// {ours, theirs}: copies the reference's options under our names; absent ones keep our defaults.
using OptionNames = std::vector<std::pair<const char*, const char*>>;
void copy_options(nlohmann::json& to, const nlohmann::json& from, const OptionNames& names);

/// Lays the fixture's weights into the module; each must fit, and come back bit for bit.
void load_exactly(Fixture& fixture, torch::nn::Module& module);

/// The model of these options with the fixture's weights, in eval mode.
std::shared_ptr<ImageModel> build_image_model(Fixture& fixture, const nlohmann::json& options);

/// Compares every recorded tensor whose name `trace` has.
void check_trace(Fixture& fixture, const std::map<std::string, torch::Tensor>& trace);

/// `grad.*` of the parameters, and of `input` where it is recorded.
void check_gradients(Fixture& fixture, const torch::nn::Module& module, const torch::Tensor& input);

/// Output, trace and gradients of a classifier whose trace names are the fixture's.
void check_image_model(Fixture& fixture, ImageModel& model);

void add_vmamba_checkers(Checkers& all);
void add_vim_checkers(Checkers& all);
void add_visual_family_checkers(Checkers& all);
void add_vision_layer_checkers(Checkers& all);

}  // namespace serpentine::golden
