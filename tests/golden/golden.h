// Golden fixtures: outputs of the authors' own code on tiny sizes, and the checks that read them.
//
// A fixture is a folder <root>/<area>/<case> with config.json (the reference's arguments),
// io.safetensors (inputs, recorded tensors, gradients) and, for models, weights.safetensors.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/state_dict.h"

namespace serpentine::golden {

/// Thrown by a checker for a variant that no code exists for yet: the case is skipped with this
/// reason.
struct NotBuilt : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// One case. Every tensor of io must be read or compared before the case ends, or the case fails.
class Fixture {
 public:
  explicit Fixture(const std::filesystem::path& folder);

  /// Where inputs and models are put: what SERPENTINE_GOLDEN_DEVICE names ("cuda"), else the CPU.
  torch::Device device;
  nlohmann::json config;
  StateDict weights;  // empty for pure operations; on the CPU
  std::string name;   // as in "core_add_norm"

  /// For cases of what only ever runs on a CPU: files, splits, statistics.
  void stay_on_cpu() { device = torch::kCPU; }

  bool has(const std::string& tensor) const { return io_.count(tensor) > 0; }
  std::vector<std::string> names() const;

  /// An input (or a cotangent), on the device: marks it as read.
  torch::Tensor input(const std::string& tensor);
  torch::Tensor input_or_undefined(const std::string& tensor);

  /// Compares with the recorded tensor, relative to its largest magnitude, if the fixture holds it;
  /// a difference is a test failure. Returns whether it does. The tolerance follows from the name
  /// ("grad"), the dtype and, where the fixture holds the tensor in float64 too, from the
  /// reference's own distance from that.
  bool check(const std::string& tensor, const torch::Tensor& actual);
  bool check(const std::string& tensor, const torch::Tensor& actual, double tolerance);
  double tolerance_of(const std::string& tensor) const;

  /// Bit for bit.
  void check_equal(const std::string& tensor, const torch::Tensor& actual);

  /// Marks tensors that need no comparison; say why at the call.
  void ignore(const std::string& tensor) { seen_.insert(tensor); }

  /// What was neither read nor compared.
  std::vector<std::string> unseen() const;

  double forward_tolerance = 2e-5, gradient_tolerance = 1e-4;  // float32

 private:
  std::map<std::string, torch::Tensor> io_;
  std::set<std::string> seen_;
};

/// `kind` is the fixture's "op" or "model" entry; an object there is known by its "NAME".
using Checker = void (*)(Fixture& fixture);
using Checkers = std::map<std::string, Checker>;

/// Each file of checkers adds its own; golden_test.cpp calls them all.
void add_operator_checkers(Checkers& all);
void add_scan_checkers(Checkers& all);
void add_mamba_checkers(Checkers& all);
void add_language_model_checkers(Checkers& all);
void add_timeseries_checkers(Checkers& all);
void add_order_checkers(Checkers& all);
void add_shuffle_checkers(Checkers& all);
void add_pointcloud_checkers(Checkers& all);
void add_vision_checkers(Checkers& all);
void add_segmentation_checkers(Checkers& all);
void add_pathology_checkers(Checkers& all);
void add_ssm_checkers(Checkers& all);
void add_s4_checkers(Checkers& all);
void add_mamba2_checkers(Checkers& all);
void add_hydra_checkers(Checkers& all);

}  // namespace serpentine::golden
