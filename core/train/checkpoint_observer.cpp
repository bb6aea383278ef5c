// When checkpoints are written and removed, and what happens when that fails.
#include <csignal>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <utility>

#include <torch/torch.h>

#include "core/io/state_dict.h"
#include "core/train/checkpoint.h"
#include "core/train/trainer.h"

namespace serpentine {

namespace {

/// The first line of an error without the C++ stack that c10 appends.
std::string sentence_of(const std::exception& error) {
  const auto* c10_error = dynamic_cast<const c10::Error*>(&error);
  const std::string text = c10_error ? c10_error->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

}  // namespace

void CheckpointOptions::fields(Fields& f) {
  f("every_steps", every_steps, "steps between checkpoints; 0: not by steps", {.least = 0});
  f("every_evaluation", every_evaluation, "write one after every evaluation");
  f("keep", keep, "how many checkpoints stay; older ones are removed", {.least = 1});
  f("best", best, "also write the weights of the best evaluation to best.safetensors");
}

CheckpointObserver::CheckpointObserver(Trainer& trainer, CheckpointOptions options,
                                       std::string folder, std::string config_hash,
                                       std::string resume_hint)
    : trainer_(trainer),
      options_(options),
      folder_(std::move(folder)),
      config_hash_(std::move(config_hash)),
      resume_hint_(std::move(resume_hint)) {
  std::error_code ignored;  // writing the first checkpoint names the cause
  if (trainer_.first_rank()) std::filesystem::create_directories(folder_, ignored);
}

void CheckpointObserver::after_step(TrainState& state) {
  if (options_.every_steps > 0 && state.step % options_.every_steps == 0) save(state);
}

void CheckpointObserver::after_evaluation(TrainState& state, const std::map<std::string, double>&) {
  if (options_.best && state.best_step == state.step) attempt(state, best_path(), /*best=*/true);
  if (options_.every_evaluation) save(state);
}

void CheckpointObserver::after_fit(TrainState& state) {
  if (last_step_ != state.step || state.signal != 0 || !failure_.empty()) save(state);
  if (!best_failure_.empty()) attempt(state, best_path(), /*best=*/true);
  if (!trainer_.first_rank()) return;
  if (!best_failure_.empty() && failure_.empty()) state.failure = best_failure_;
  if (!failure_.empty()) {
    state.failure = failure_;
    const auto left = list_checkpoints(folder_);
    std::cerr << "The last checkpoint could not be written either; "
              << (left.empty() ? "there is no older one."
                               : "the newest complete one is " + left.front().path + ".")
              << std::endl;
  }
  if (state.signal == 0) return;
  std::cerr << "Stopped by " << (state.signal == SIGINT ? "SIGINT" : "SIGTERM") << " after step "
            << state.step << " of " << state.total_steps << " (epoch " << state.epoch + 1 << ").";
  if (!last_path_.empty()) std::cerr << " Checkpoint: " << last_path_ << ".";
  if (!resume_hint_.empty()) std::cerr << " Go on with: " << resume_hint_;
  std::cerr << std::endl;
}

bool CheckpointObserver::save(const TrainState& state) {
  char name[64];
  std::snprintf(name, sizeof(name), "/step_%08ld.safetensors", static_cast<long>(state.step));
  const std::string path = folder_ + name;
  if (!attempt(state, path, /*best=*/false)) return false;
  last_path_ = path;
  last_step_ = state.step;
  if (trainer_.first_rank()) remove_old();
  return true;
}

/// The weights of the best evaluation: kept by the trainer, or the present ones, which are it.
void CheckpointObserver::write_best(const TrainState& state) {
  const std::map<std::string, std::string> place = {{"epoch", std::to_string(state.best_epoch)},
                                                    {"step", std::to_string(state.best_step)}};
  if (!trainer_.best_weights().empty())
    return write_weights(best_path(), trainer_.best_weights(), place);
  const EmaScope averaged(trainer_.ema());
  write_weights(best_path(), state_dict(trainer_.model()), place);
}

bool CheckpointObserver::attempt(const TrainState& state, const std::string& path, bool best) {
  std::string& failure = best ? best_failure_ : failure_;
  try {
    if (!best) {
      save_checkpoint(path, trainer_, config_hash_);
    } else if (trainer_.first_rank()) {
      write_best(state);
    }
    failure.clear();
    return true;
  } catch (const c10::Error& error) {
    failure = sentence_of(error);
  } catch (const std::exception& error) {
    failure = sentence_of(error);
  }
  std::cerr << "Step " << state.step << " has no " << (best ? "best weights" : "checkpoint")
            << " on disk, training goes on: " << failure << std::endl;
  return false;
}

void CheckpointObserver::remove_old() const {
  const auto all = list_checkpoints(folder_);
  for (size_t i = static_cast<size_t>(options_.keep); i < all.size(); ++i) {
    std::error_code ignored;  // one file too many is no reason to stop
    std::filesystem::remove(all[i].path, ignored);
  }
}

}  // namespace serpentine
