#include "apps/encoder.h"

#include <filesystem>
#include <map>

#include <torch/script.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/model_file.h"
#include "core/check.h"
#include "core/dist/process_group.h"
#include "core/io/json_file.h"
#include "core/io/state_dict.h"
#include "core/train/checkpoint.h"
#include "core/train/precision.h"
#include "core/train/trainer.h"
#include "pathology/colour_encoder.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

/// Of values in [0, 1]; ImageNet's, unless the run says otherwise.
struct Scaling {
  std::vector<float> mean = {0.485F, 0.456F, 0.406F}, deviation = {0.229F, 0.224F, 0.225F};
};

using Network = std::function<torch::Tensor(const torch::Tensor& images)>;  // [B, 3, H, W]

std::shared_ptr<Model> loaded(std::shared_ptr<Model> model, const StateDict& weights,
                              const std::string& path) {
  const LoadReport fit = load_state_dict(*model, weights, model->tolerated_keys());
  TORCH_CHECK(fit.ok(), path, " does not fit the model\n", fit.text());
  model->eval();
  return model;
}

Scaling scaling_of_run(const std::string& run) {
  const auto json = read_json(run + "/data.json");
  Scaling scaling;
  if (!json.is_object()) return scaling;
  if (json.contains("mean") && json["mean"].size() == 3) json["mean"].get_to(scaling.mean);
  if (json.contains("std") && json["std"].size() == 3) json["std"].get_to(scaling.deviation);
  return scaling;
}

std::shared_ptr<Model> model_of_run(const std::string& run) {
  const std::string weights = weights_of_run(run);
  const Config config = Config::load(yaml_of(run)).child("model");
  return loaded(all_packages().models.build(config), read_weights(weights), weights);
}

/// A ResNet of torchvision's layout; its classifier is left out.
std::shared_ptr<Model> resnet_of(const std::string& path) {
  StateDict weights;
  std::map<std::string, bool> has;
  for (auto& [name, tensor] : read_weights(path)) {
    if (name.starts_with("fc.")) continue;
    has[name] = true;
    weights.emplace_back(name, tensor);
  }
  if (!has.count("layer4.0.conv1.weight")) {
    throw std::runtime_error(path + ": is not the state dict of a ResNet (torchvision's layout)");
  }
  const std::string size = has.count("layer1.0.conv3.weight")   ? "50"
                           : has.count("layer3.5.conv1.weight") ? "34"
                                                                : "18";
  const Config config = Config::parse("type: resnet\nsize: \"" + size + "\"\nhead: false\n", path);
  return loaded(all_packages().models.build(config), weights, path);
}

/// What the model's head reads: the tensor it leaves as the trace `features`, else its output.
Network network_of(const std::shared_ptr<Model>& model) {
  return [model](const torch::Tensor& images) {
    std::map<std::string, torch::Tensor> trace;
    model->trace = &trace;
    Batch batch;
    batch.input = images;
    const auto output = model->forward(batch);
    model->trace = nullptr;
    const auto found = trace.find("features");
    return found == trace.end() ? output : found->second;
  };
}

Network torchscript_of(const std::string& path, torch::Device device) {
  std::shared_ptr<torch::jit::Module> module;
  try {
    module = std::make_shared<torch::jit::Module>(torch::jit::load(path, device));
  } catch (const c10::Error& error) {
    throw std::runtime_error(path + ": is no TorchScript file: " +
                             std::string(error.what_without_backtrace()).substr(0, 200));
  }
  module->eval();
  return [module](const torch::Tensor& images) {
    auto output = module->forward({images});
    if (output.isTuple()) output = output.toTuple()->elements()[0];
    return output.toTensor();
  };
}

bool is_torchscript(const std::string& path) {
  return path.ends_with(".ts") || path.ends_with(".torchscript") || path.ends_with(".jit") ||
         path.ends_with(".ptl");
}

/// The sentence of an error; TorchScript's stands below a traceback of many lines.
std::string cause_of(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  const std::string text = torch_error ? torch_error->what_without_backtrace() : error.what();
  const auto at = text.rfind("RuntimeError: ");
  const std::string from = at == std::string::npos ? text : text.substr(at + 14);
  return from.substr(0, from.find('\n'));
}

torch::Tensor answer_of(const Network& network, const torch::Tensor& images,
                        const std::string& name) {
  try {
    return network(images);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const std::exception& error) {
    throw std::runtime_error("the encoder " + name + " fails on tiles of " +
                             std::to_string(images.size(3)) + " pixels: " + cause_of(error) +
                             "; --input-size resizes tiles for it");
  }
}

/// uint8 tiles to scaled images on the device, through the network, back as float32.
TileEncoder encoder_of(Network network, const Scaling& scaling, torch::Device device,
                       const EncoderOptions& options) {
  const std::string name = options.source;
  const auto plane = [&](const std::vector<float>& values) {
    return torch::tensor(values).view({1, 3, 1, 1}).to(device);
  };
  const auto mean = plane(scaling.mean), deviation = plane(scaling.deviation);
  const auto type = apply_precision(options.precision);
  const int64_t side = options.input_size;
  return [=](const torch::Tensor& pictures) {
    const torch::NoGradGuard no_grad;
    auto images = pictures.to(device).permute({0, 3, 1, 2}).to(torch::kFloat).div(255);
    if (side > 0 && images.size(2) != side) {
      namespace F = torch::nn::functional;
      images = F::interpolate(images, F::InterpolateFuncOptions()
                                          .size(std::vector<int64_t>{side, side})
                                          .mode(torch::kBilinear)
                                          .align_corners(false)
                                          .antialias(true));
    }
    images = (images - mean) / deviation;
    torch::Tensor features;
    {
      const Autocast half(device.type(), type);
      features = answer_of(network, images, name);
    }
    if (features.dim() > 2) features = features.flatten(2).mean(2);  // a map: its mean
    return features.to(torch::kCPU, torch::kFloat).contiguous();
  };
}

}  // namespace

Encoder open_encoder(const EncoderOptions& options, int64_t size) {
  Encoder encoder;
  const std::string& source = options.source;
  if (source == "colour") {
    if (options.input_size > 0) throw UsageError("--input-size: colour takes tiles as they are");
    encoder.name = "colour";
    encoder.encode = colour_features;
    encoder.width = kColourFeatures;
    return encoder;
  }
  if (!fs::exists(source)) {
    throw UsageError("--encoder " + source +
                     ": there is no such run, weights or TorchScript file (or say colour)");
  }
  encoder.name = fs::absolute(source).lexically_normal().string();
  const auto device = pick_device(options.device, world_from_environment().local_rank);
  Scaling scaling;
  Network network;
  if (is_torchscript(source)) {
    network = torchscript_of(source, device);
  } else {
    const auto model = fs::is_directory(source) ? model_of_run(source) : resnet_of(source);
    if (fs::is_directory(source)) scaling = scaling_of_run(source);
    model->to(device);
    network = network_of(model);
  }
  encoder.encode = encoder_of(network, scaling, device, options);
  const auto tried = encoder.encode(torch::full({1, size, size, 3}, 255, torch::kUInt8));
  TORCH_CHECK(tried.dim() == 2 && tried.size(0) == 1, source, ": gives features of shape ",
              tried.sizes(), " for one tile, expected [1, F]");
  encoder.width = tried.size(1);
  return encoder;
}

}  // namespace serpentine
