// Any text: a mapping of options or one ConfigError, and the resolved text reads back the same.
#include <cstdlib>
#include <string>

#include "core/config.h"

namespace {

using serpentine::Config;
using serpentine::Fields;

struct Inner {
  double rate = 0.5;
  std::string mode = "fast";
  Config nested;
  void fields(Fields& f) {
    f("rate", rate, "", {.least = 0, .most = 1});
    f("mode", mode, "", {.choices = {"fast", "exact"}});
    f.nested("nested", nested, "", "none");
  }
};

struct Outer {
  int64_t dim = 8;
  bool bias = true;
  std::string name = "x";
  std::vector<int64_t> sizes = {1, 2};
  std::vector<double> levels;
  std::vector<std::string> names;
  Inner inner;
  std::vector<Config> list;
  void fields(Fields& f) {
    f("dim", dim, "", {.least = 1});
    f("bias", bias, "");
    f("name", name, "");
    f("sizes", sizes, "");
    f("levels", levels, "");
    f("names", names, "");
    f.group("inner", inner, "");
    f.nested("list", list, "", "none");
  }
};

}  // namespace

// An input's first line is an override, the rest the document.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t line = text.find('\n');
  const std::string document = line == std::string::npos ? text : text.substr(line + 1);
  if (document.find("base") != std::string::npos) return 0;  // no file of this machine
  try {
    const Config config = Config::parse(document, "fuzz", {text.substr(0, line)});
    config.read<Outer>();
    const std::string resolved = config.yaml();
    const Config again = Config::parse(resolved, "again");
    again.read<Outer>();
    if (again.yaml() != resolved) std::abort();
  } catch (const serpentine::ConfigError&) {
  }
  try {
    Config::parse(document, "fuzz").read<Outer>();
  } catch (const serpentine::ConfigError&) {
  }
  return 0;
}
