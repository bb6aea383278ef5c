// serpentine schema: the JSON Schema of a run's YAML, for editors.
#include <fstream>
#include <iostream>

#include <c10/util/Exception.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/packages.h"
#include "apps/run.h"

namespace serpentine {
namespace {

constexpr const char* kSchemaFooter =
    R"(Editors with the YAML language server complete and check keys when a file's first line is
  # yaml-language-server: $schema=serpentine.schema.json
Example:
  serpentine schema --out configs/serpentine.schema.json)";

int print_schema(const std::string& out) {
  const auto text = all_packages().catalog().schema<RunOptions>("A run of Serpentine").dump(2);
  if (out.empty()) {
    std::cout << text << "\n";
    return 0;
  }
  std::ofstream file(out);
  file << text << "\n";
  file.close();
  TORCH_CHECK(file.good(), out, ": cannot be written");
  return 0;
}

}  // namespace

void add_schema_command(CLI::App& app, Action& action) {
  auto* command =
      app.add_subcommand("schema", "Print the JSON Schema of a run's YAML, for editors");
  command->footer(kSchemaFooter);
  auto out = std::make_shared<std::string>();
  command->add_option("--out", *out, "File to write instead of standard output");
  command->callback([&action, out] { action = [out] { return print_schema(*out); }; });
}

}  // namespace serpentine
