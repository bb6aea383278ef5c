// serpentine info --io: how fast a model of any domain is on what a recording holds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace serpentine {

struct ModelInfoRequest {
  std::string run;  // a run folder, a YAML file or a config.json of the reference
  std::vector<std::string> overrides;
  std::string weights, io;  // no weights: those of the run, or new ones
  std::string device, precision;
  int64_t warmup = 3, repeats = 15;
  double seconds = 10;
  bool train = false, json = false, profile = false, graph = false;
};

int model_info(const ModelInfoRequest& request);

}  // namespace serpentine
