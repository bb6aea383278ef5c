// Models of bags: what each says of a bag and of its tiles, and the parts that several share.
//
// B bags, T tiles of all bags together, F features of a tile, C classes (or time bins), A rows of
// attention, H hidden channels. Bags lie one after another; see pathology.h for a Batch's fields.
#pragma once

#include <string>
#include <vector>

#include <torch/nn/modules/linear.h>

#include "core/config.h"
#include "core/train/task.h"

namespace serpentine {

/// What a model says of the bags of a batch. Undefined: the model has no such thing.
struct BagOutput {
  torch::Tensor logits;           // [B, C]
  torch::Tensor attention;        // [T, A] before the softmax over a bag's tiles; A is 1 or C
  torch::Tensor instance_logits;  // [T, C]: what the model would say of each tile alone
  torch::Tensor second_logits;    // [B, C] of a second branch, which the task gives the same loss
  torch::Tensor loss;             // scalar of the model's own, a mean over the bags
  double second_weight = 0;       // of second_logits' loss; the bag's has 1 - all weights
  double loss_weight = 0;         // of `loss`
};

class BagModel : public Model {
 public:
  torch::Tensor forward(const Batch& batch) final { return read(batch, false).logits; }

  /// `with_loss`: also what only training needs; takes batch.target where the model's own loss
  /// depends on the classes.
  virtual BagOutput read(const Batch& batch, bool with_loss) = 0;
};

struct BagModelOptions {
  int64_t in_dim = 0, classes = 0, hidden = 512;
  double dropout = 0.25;
  std::string activation = "relu", memory_budget;
  void fields(Fields& f);
  /// Throws unless in_dim and classes are known.
  void check(const char* who) const;
};

/// `memory_budget`, which says how pathology/memory_budget.h cuts a bag into parts.
void memory_budget_field(Fields& f, std::string& budget);
/// Throws where one is set, for models that compute a bag in one piece.
void refuse_memory_budget(const char* who, const std::string& budget);

/// Where each bag begins and ends, on the host: B + 1 numbers. A batch without offsets is one bag.
/// Throws unless input is [T, F] and every bag holds a tile.
std::vector<int64_t> bag_bounds(const char* who, const Batch& batch, int64_t in_dim);

/// The softmax over each bag's tiles: [T, A] -> [T, A].
torch::Tensor bag_softmax(const torch::Tensor& scores, const std::vector<int64_t>& bounds);

/// Sums weighted by [T, A] over each bag's tiles: values [T, H] -> [B, A, H].
torch::Tensor bag_sum(const torch::Tensor& weights, const torch::Tensor& values,
                      const std::vector<int64_t>& bounds);

/// "relu" or "gelu" (exact).
torch::Tensor activate(const torch::Tensor& x, const std::string& activation);

/// Which values a dropout keeps, so that a part computed twice drops the same ones: bool
/// [T, channels]; nothing where nothing is dropped.
std::vector<torch::Tensor> dropout_mask(const torch::Tensor& like, int64_t channels, double dropout,
                                        bool training);
torch::Tensor dropped(const torch::Tensor& x, const torch::Tensor& mask, double dropout);

/// A layer, its activation and dropout on rows x [T, F] -> [T, H], at most `rows` of them at a time
/// (0: all): in parts only the result and which values were dropped are kept.
torch::Tensor embedded_rows(const torch::Tensor& x, const torch::nn::Linear& layer,
                            const std::string& activation, double dropout, bool training,
                            int64_t rows);

/// Layers under the names of Python's Sequential and of nested modules: "0", "3", "q".
class PartsImpl : public torch::nn::Module {
 public:
  torch::nn::Linear linear(const std::string& name, int64_t in, int64_t out);
  std::shared_ptr<PartsImpl> group(const std::string& name);
  template <class Layer>
  Layer add(const std::string& name, Layer layer) {
    return register_module(name, std::move(layer));
  }
};

/// The blanket start of several published models: every Linear Xavier-normal with a zero bias,
/// every LayerNorm 1 and 0.
void xavier_everywhere(torch::nn::Module& module);

}  // namespace serpentine
