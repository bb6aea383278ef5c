// How large a model of bags is, how fast it reads a bag, and what memory that takes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace serpentine {

struct BagInfoRequest {
  std::string run;  // a run folder, or a YAML file whose `model` says in_dim and classes
  std::vector<std::string> overrides;
  std::string device = "auto";
  std::vector<int64_t> tiles;
  int64_t warmup = 1, repeats = 5;
  double seconds = 10;
  bool train = false, json = false;
};

/// Prints a line a bag size; bags are one slide of random features on a square of tiles.
int bag_info(const BagInfoRequest& request);

}  // namespace serpentine
