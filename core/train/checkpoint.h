// Files from which training goes on as if it had never stopped.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/io/state_dict.h"
#include "core/train/task.h"

namespace serpentine {

class Trainer;

/// Writes weights, optimiser, schedule, averages, scaler, every rank's generators and the position
/// to one .safetensors file, whole or not at all. Every rank calls it; rank 0 writes. `config_hash`
/// names the settings that must be the same when training goes on ("" : any). Throws c10::Error
/// with the file.
///
/// Tensors: model.*, optimizer.*, ema.*, best.*, rank.{rng_cpu,rng_cuda,loss} [ranks, n]. Metadata:
/// format, training (JSON), checksum (CRC-32 of all of it).
void save_checkpoint(const std::string& path, Trainer& trainer,
                     const std::string& config_hash = "");

/// Sets a fresh trainer to where the file was written. Throws c10::Error with file and cause: not a
/// checkpoint, truncated, damaged, of another model, of another configuration.
void load_checkpoint(const std::string& path, Trainer& trainer,
                     const std::string& config_hash = "");

/// Throws c10::Error with file and cause when the file is no checkpoint, truncated or damaged.
void verify_checkpoint(const std::string& path);

/// The weights in a checkpoint under the model's own names: averaged ones if there are. Checks the
/// sum.
StateDict read_checkpoint_weights(const std::string& path);

/// A file of weights of any format (read_state_dict), or a checkpoint's own.
StateDict read_weights(const std::string& path);

struct CheckpointFile {
  std::string path;
  int64_t step = 0;
};

/// The checkpoints `step_<number>.safetensors` of a folder, newest first; none if there is no
/// folder.
std::vector<CheckpointFile> list_checkpoints(const std::string& folder);

struct CheckpointOptions {
  int64_t every_steps = 0;
  bool every_evaluation = true;
  int64_t keep = 2;
  bool best = true;
  void fields(Fields& f);
};

/// Writes checkpoints while training, and one when it ends or a signal ends it; removes old ones.
///
/// A file that cannot be written does not stop training: the older ones stay, stderr gets one
/// sentence, and the next occasion tries again. If the last one fails as well, state.failure says
/// so.
class CheckpointObserver : public Observer {
 public:
  /// `folder` is made when missing. `resume_hint`: the command that goes on, shown after a signal.
  CheckpointObserver(Trainer& trainer, CheckpointOptions options, std::string folder,
                     std::string config_hash = "", std::string resume_hint = "");

  void after_step(TrainState& state) override;
  void after_evaluation(TrainState& state, const std::map<std::string, double>& metrics) override;
  void after_fit(TrainState& state) override;

  std::string best_path() const { return folder_ + "/best.safetensors"; }

 private:
  bool save(const TrainState& state);
  bool attempt(const TrainState& state, const std::string& path, bool best);
  void write_best(const TrainState& state);
  void remove_old() const;

  Trainer& trainer_;
  CheckpointOptions options_;
  std::string folder_, config_hash_, resume_hint_;
  std::string last_path_, failure_, best_failure_;
  int64_t last_step_ = -1;
};

}  // namespace serpentine
