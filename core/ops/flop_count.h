// Counts the arithmetic of what runs: floating-point operations of matrix products, convolutions,
// attention and scans, from the shapes that they get.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace serpentine {

/// While it lives, operators that this thread calls are counted; a multiply-add is two. Elementwise
/// work (norms, activations) is left out, as is customary.
///   matrix product [M, K] x [K, N]: 2 M K N      convolution: 2 x outputs x inputs of each
///   attention: 4 x queries x keys x channels     causal convolution: 2 x rows x channels x width
///   selective scan: (9 N + 2) x positions x channels (VMamba, arXiv 2401.10166, its own count)
class FlopCount {
 public:
  FlopCount();
  ~FlopCount();
  FlopCount(const FlopCount&) = delete;
  FlopCount& operator=(const FlopCount&) = delete;

  double total() const;
  const std::map<std::string, double>& by_operator() const { return counts_; }
  void add(const std::string& name, double count) { counts_[name] += count; }

 private:
  std::map<std::string, double> counts_;
  uint64_t handle_ = 0;
  FlopCount* outer_ = nullptr;
};

}  // namespace serpentine
