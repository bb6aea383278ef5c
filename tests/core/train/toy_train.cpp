// toy_train FOLDER [key=value ...]: trains the toy with checkpoints in FOLDER, going on from the
// newest. Prints one line a step. toy.end_step and toy.end_signal make it signal itself, as a
// machine that fails.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <iostream>

#include "core/config.h"
#include "core/dist/launch.h"
#include "core/dist/process_group.h"
#include "core/train/checkpoint.h"
#include "core/train/trainer.h"
#include "toy.h"

namespace serpentine {

struct ToyOptions {
  double dropout = 0.3;
  int64_t width = 16, examples = 53, end_step = -1, end_signal = 0, end_rank = 0, nproc = 1;
  double timeout = 60;
  void fields(Fields& f) {
    f("dropout", dropout, "");
    f("width", width, "");
    f("examples", examples, "");
    f("end_step", end_step, "");
    f("end_signal", end_signal, "");
    f("end_rank", end_rank, "");
    f("nproc", nproc, "");
    f("timeout", timeout, "");
  }
};

struct ToyRun {
  FitOptions fit;
  CheckpointOptions checkpoint;
  ToyOptions toy;
  void fields(Fields& f) {
    fit.fields(f);
    f.group("checkpoint", checkpoint, "");
    f.group("toy", toy, "");
  }
};

class Ending : public Observer {
 public:
  Ending(ToyOptions toy, int64_t rank) : toy_(toy), rank_(rank) {}
  void after_step(TrainState& state) override {
    if (rank_ == 0) std::printf("step %ld\n", static_cast<long>(state.step));
    std::fflush(stdout);
    if (state.step == toy_.end_step && rank_ == toy_.end_rank)
      raise(static_cast<int>(toy_.end_signal));
  }

 private:
  ToyOptions toy_;
  int64_t rank_;
};

int train(const std::string& folder, const ToyRun& run) {
  const World world = world_from_environment();
  std::shared_ptr<ProcessGroup> group;
  if (world.size > 1) group = std::make_shared<ProcessGroup>(world, torch::kCPU, run.toy.timeout);
  seed_everything(run.fit.trainer.seed + world.rank, run.fit.trainer.deterministic);
  const auto model = std::make_shared<toy::Net>(run.toy.dropout, run.toy.width);
  Trainer trainer(run.fit, model, std::make_shared<toy::Squares>(), torch::kCPU, group);
  trainer.observe(std::make_shared<CheckpointObserver>(trainer, run.checkpoint, folder, "",
                                                       "toy_train " + folder));
  trainer.observe(std::make_shared<Ending>(run.toy, world.rank));
  const auto saved = list_checkpoints(folder);
  if (!saved.empty()) load_checkpoint(saved.front().path, trainer);
  const TrainState state = trainer.fit(toy::Points(run.toy.examples), toy::Points(29));
  return exit_code(state);
}

}  // namespace serpentine

int main(int argc, char** argv) {
  using namespace serpentine;
  try {
    std::vector<std::string> arguments(argv, argv + argc);
    const std::vector<std::string> overrides(arguments.begin() + 2, arguments.end());
    const ToyRun run = Config::parse("{}", "toy", overrides).read<ToyRun>();
    if (run.toy.nproc > 1 && std::getenv("RANK") == nullptr)
      return launch(run.toy.nproc, arguments);
    at::set_num_threads(1);
    return train(arguments.at(1), run);
  } catch (const c10::Error& error) {
    std::cerr << error.what_without_backtrace() << std::endl;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
  }
  return 1;
}
