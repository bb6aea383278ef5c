// What a training run writes down and shows while it goes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/io/progress.h"
#include "core/io/run_folder.h"
#include "core/train/task.h"
#include "core/train/trainer.h"

namespace serpentine {

/// Logs losses and evaluations to the run folder's tables and shows progress with the time left.
/// A log that cannot be written is said once; training matters more.
class RunRecord : public Observer {
 public:
  /// `resumed`: what was logged beyond the step of the checkpoint is dropped first.
  RunRecord(std::string folder, const TrainerOptions& options, bool resumed);

  void after_step(TrainState& state) override;
  void after_evaluation(TrainState& state, const std::map<std::string, double>& metrics) override;
  void after_fit(TrainState& state) override;

 private:
  void start(int64_t step, int64_t total);
  void log(int64_t step, const std::map<std::string, double>& values);
  std::string note(const TrainState& state) const;

  std::string path_;
  TrainerOptions options_;
  bool resumed_, failed_ = false;
  int64_t logged_step_ = -1;
  std::optional<RunFolder> folder_;
  std::unique_ptr<Progress> progress_;
};

/// One evaluation of a run, as metrics.jsonl has it.
struct RecordedEvaluation {
  double epoch = 0, loss = 0;
  std::map<std::string, double> metrics;
};

std::vector<RecordedEvaluation> read_evaluations(const std::string& folder);

}  // namespace serpentine
