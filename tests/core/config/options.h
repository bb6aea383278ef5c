// Options that the tests of core/config read.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/config.h"

namespace serpentine::testing_options {

struct Inner {
  double rate = 0.5;
  std::string mode = "fast";
  void fields(Fields& f) {
    f("rate", rate, "A share.", {.least = 0, .most = 1});
    f("mode", mode, "How.", {.choices = {"fast", "exact"}});
  }
};

struct Outer {
  int64_t dim = 8;
  bool bias = true;
  std::string name = "x";
  std::vector<int64_t> sizes = {1, 2};
  std::vector<double> levels;
  Inner inner;
  void fields(Fields& f) {
    f("dim", dim, "Channels.", {.least = 1});
    f("bias", bias, "Adds a bias.");
    f("name", name, "What it is called.");
    f("sizes", sizes, "Extents.", {.least = 0});
    f("levels", levels, "Quantiles.", {.least = 0, .most = 1});
    f.group("inner", inner, "More.");
  }
};

inline std::string error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace serpentine::testing_options
