#include "core/train/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <utility>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/dist/process_group.h"
#include "core/io/safetensors.h"
#include "core/train/step.h"
#include "core/train/train_state.h"
#include "core/train/trainer.h"

namespace serpentine {

namespace {

constexpr const char* kFormat = "serpentine-checkpoint-1";

void add(StateDict& all, const std::string& prefix, const StateDict& part) {
  for (const auto& [name, tensor] : part) {
    all.emplace_back(prefix + name, tensor.detach().to(torch::kCPU).contiguous());
  }
}

StateDict part_of(const StateDict& all, const std::string& prefix) {
  StateDict part;
  for (const auto& [name, tensor] : all) {
    if (name.rfind(prefix, 0) == 0) part.emplace_back(name.substr(prefix.size()), tensor);
  }
  return part;
}

/// The generator behind dropout on the trainer's device, if that is a GPU.
std::optional<at::Generator> device_generator(const Trainer& trainer_of) {
  if (!trainer_of.device().is_cuda()) return std::nullopt;
  return at::globalContext().defaultGenerator(trainer_of.device());
}

/// What differs between ranks: [ranks, n] bytes each.
StateDict rank_states(Trainer& trainer) {
  StateDict states;
  const auto gather = [&](const char* name, const torch::Tensor& mine) {
    const torch::Tensor bytes = mine.contiguous().view(torch::kUInt8);
    states.emplace_back(name,
                        trainer.group() ? trainer.group()->host_gather(bytes) : bytes.unsqueeze(0));
  };
  gather("rng_cpu", at::Generator(at::detail::getDefaultCPUGenerator()).get_state());
  if (auto generator = device_generator(trainer)) gather("rng_cuda", generator->get_state());
  const RunningLoss& loss = trainer.stepper().running_loss();
  gather("loss", torch::tensor({loss.sum, loss.count, loss.logged_sum, loss.logged_count},
                               torch::kFloat64));
  return states;
}

void set_rank_state(Trainer& trainer, const StateDict& states) {
  const int64_t rank = trainer.group() ? trainer.group()->rank() : 0;
  for (const auto& [name, rows] : states) {
    if (rank >= rows.size(0)) continue;  // more ranks than before: the new ones keep their seed
    const torch::Tensor mine = rows[rank].clone();
    if (name == "rng_cpu") at::Generator(at::detail::getDefaultCPUGenerator()).set_state(mine);
    if (name == "rng_cuda" && trainer.device().is_cuda())
      device_generator(trainer)->set_state(mine);
    if (name == "loss") {
      const torch::Tensor values = mine.view(torch::kFloat64);
      const double* v = values.const_data_ptr<double>();
      trainer.stepper().set_running_loss({v[0], v[1], v[2], v[3]});
    }
  }
}

struct Opened {
  StateDict tensors;
  nlohmann::json training;
};

Opened open(const std::string& path) {
  SafeTensors file = read_safetensors(path);
  const auto text = [&](const char* key) {
    const auto found = file.metadata.find(key);
    return found == file.metadata.end() ? std::string() : found->second;
  };
  SERPENTINE_CHECK(text("format") == kFormat, "checkpoint", path,
                   " is not a checkpoint of a training run (its format is '", text("format"),
                   "', expected '", kFormat, "')");
  const std::string sum = checksum(file.tensors, text("training"));
  SERPENTINE_CHECK(sum == text("checksum"), "checkpoint", path,
                   " is damaged: its content has the checksum ", sum, ", it was written with ",
                   text("checksum"), ". Use an older checkpoint");
  return {std::move(file.tensors), nlohmann::json::parse(text("training"))};
}

void load_model(const std::string& path, Model& model, const StateDict& weights) {
  const LoadReport report = load_state_dict(model, weights);
  SERPENTINE_CHECK(report.ok(), "checkpoint", path,
                   " was written by another model: ", report.missing.size(), " tensors missing, ",
                   report.unexpected.size(), " unknown, ", report.shapes.size(),
                   " of another shape\n", report.text());
}

}  // namespace

void save_checkpoint(const std::string& path, Trainer& trainer, const std::string& config_hash) {
  const StateDict ranks = rank_states(trainer);
  if (!trainer.first_rank()) return;
  StateDict all;
  add(all, "model.", state_dict(trainer.model()));
  add(all, "optimizer.", optimizer_state(trainer.optimizer(), trainer.model()));
  if (trainer.ema()) add(all, "ema.", trainer.ema()->state());
  add(all, "best.", trainer.best_weights());
  add(all, "rank.", ranks);
  const nlohmann::json training = {{"state", to_json(trainer.state())},
                                   {"schedule", trainer.schedule().state()},
                                   {"scaler", trainer.scaler().state()},
                                   {"ema_updates", trainer.ema() ? trainer.ema()->updates() : 0},
                                   {"optimizer", trainer.options().optimizer.type},
                                   {"config_hash", config_hash}};
  const std::string text = training.dump();
  write_safetensors(path, all,
                    {{"format", kFormat}, {"training", text}, {"checksum", checksum(all, text)}});
}

void load_checkpoint(const std::string& path, Trainer& trainer, const std::string& config_hash) {
  const auto [tensors, training] = open(path);
  const std::string hash = training.value("config_hash", "");
  SERPENTINE_CHECK(hash.empty() || config_hash.empty() || hash == config_hash, "checkpoint", path,
                   " was written with another configuration of the model or the task than this run "
                   "has now");
  const std::string optimizer = training.at("optimizer").get<std::string>();
  load_model(path, trainer.model(), part_of(tensors, "model."));
  SERPENTINE_CHECK(optimizer == trainer.options().optimizer.type, "checkpoint", path,
                   " was written with optimizer ", optimizer, ", this run uses ",
                   trainer.options().optimizer.type);
  set_optimizer_state(trainer.optimizer(), trainer.model(), part_of(tensors, "optimizer."));
  const StateDict averages = part_of(tensors, "ema.");
  SERPENTINE_CHECK((trainer.ema() != nullptr) == !averages.empty(), "checkpoint", path, " has ",
                   averages.empty() ? "no" : "an", " average of the weights, this run ",
                   trainer.ema() ? "keeps one" : "keeps none", " (trainer.ema)");
  if (trainer.ema()) trainer.ema()->set_state(averages, training.at("ema_updates").get<int64_t>());
  trainer.best_weights() = part_of(tensors, "best.");
  trainer.schedule().set_state(training.at("schedule"));
  trainer.scaler().set_state(training.at("scaler"));
  trainer.state() = train_state_from_json(training.at("state"));
  set_rank_state(trainer, part_of(tensors, "rank."));
}

void verify_checkpoint(const std::string& path) { open(path); }

StateDict read_checkpoint_weights(const std::string& path) {
  const Opened opened = open(path);
  const StateDict averages = part_of(opened.tensors, "ema.");
  return averages.empty() ? part_of(opened.tensors, "model.") : averages;
}

StateDict read_weights(const std::string& path) {
  StateDict all = read_state_dict(path);
  const bool training = std::any_of(all.begin(), all.end(),
                                    [](const auto& item) { return item.first == "rank.rng_cpu"; });
  return training ? read_checkpoint_weights(path) : all;
}

std::vector<CheckpointFile> list_checkpoints(const std::string& folder) {
  std::vector<CheckpointFile> found;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    int64_t step = 0;
    int length = 0;
    const std::string name = entry.path().filename().string();
    if (std::sscanf(name.c_str(), "step_%ld.safetensors%n", &step, &length) != 1) continue;
    if (length == static_cast<int>(name.size())) found.push_back({entry.path().string(), step});
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.step > b.step; });
  return found;
}

}  // namespace serpentine
