// The data section of a run over bags.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/data/source.h"
#include "pathology/bag_set.h"
#include "pathology/splits.h"

namespace serpentine {

struct BagSourceOptions : BagSetOptions {
  SplitOptions splits;
  int64_t bins = 4;
  bool standardize = false;
  void fields(Fields& f);
};

/// Some bags of a set. Besides the fields of pathology.h: named "index" int64 [B], the bag's place
/// in the data set, "of" int64 [B], the size of the data set, and with survival "time" and "event",
/// float32 [B].
class BagDataset : public Dataset {
 public:
  /// mean, scale: [F] of a standardisation, or undefined. targets: class or time bin of every bag
  /// of the set.
  BagDataset(std::shared_ptr<const BagSet> set, std::vector<int64_t> rows,
             std::vector<int64_t> targets, torch::Tensor mean, torch::Tensor scale);
  int64_t size() const override { return static_cast<int64_t>(rows_.size()); }
  Batch get(int64_t index) const override;
  Batch get_batch(at::ArrayRef<int64_t> indices) const override;
  /// With augmented copies each tile is drawn from itself and them.
  Batch draw(at::ArrayRef<int64_t> indices, const Draw& how) const override;
  const Bag& bag(int64_t index) const;
  int64_t target(int64_t index) const;

 private:
  Batch example(int64_t index, TileFeatures tiles) const;
  Batch packed(std::vector<Batch> examples) const;

  std::shared_ptr<const BagSet> set_;
  std::vector<int64_t> rows_, targets_;
  torch::Tensor mean_, scale_;
};

class BagSource : public DataSource {
 public:
  explicit BagSource(const BagSourceOptions& options);

  std::shared_ptr<const Dataset> part(Part which) const override;
  std::shared_ptr<const BagDataset> bags(Part which) const;
  void fill_model(Config& model, const Config& task) override;
  nlohmann::json description() const override;
  std::vector<std::string> notes() const override { return notes_; }

  const BagSet& set() const { return *set_; }
  int64_t fold() const { return options_.splits.fold; }
  const Split& split() const { return split_; }
  std::vector<BagInfo> infos() const;

 private:
  void standardize();

  BagSourceOptions options_;
  std::shared_ptr<BagSet> set_;
  Split split_;
  std::vector<double> edges_;  // of time bins
  std::vector<int64_t> targets_;
  torch::Tensor mean_, scale_;
  std::vector<std::string> notes_;
};

}  // namespace serpentine
