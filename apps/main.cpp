// The program: parses the command line, runs one action, turns every failure into one sentence.
#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <new>

#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <CLI/CLI.hpp>

#include "apps/build_info.h"
#include "apps/command.h"
#include "core/config.h"
#include "core/train/precision.h"

namespace serpentine {
namespace {

constexpr int kFailed = 1, kUsage = 2;

constexpr const char* kExamples = R"(Examples:
  serpentine demo                                     train and draw on bundled data, 5 minutes
  serpentine train configs/timeseries/custom_s_mamba.yaml data.path=my.csv --out runs/mine
  serpentine forecast runs/mine my.csv --horizon 48   a CSV, a JSON and a plot of the future
  serpentine backtest runs/mine my.csv                how good it would have been
  serpentine doctor                                   what is built in, and how to add the rest

`serpentine COMMAND --help` explains one command. Exit codes: 0 done, 1 failed, 2 wrong command line
or configuration, 128 + n ended by signal n.)";

/// The chosen subcommand of the chosen subcommand, and their names.
struct ChosenCommand {
  const CLI::App* app;
  std::string path;  // " wsi info"

  explicit ChosenCommand(const CLI::App& root) : app(&root) {
    while (!app->get_subcommands().empty()) {
      app = app->get_subcommands().front();
      path += " " + app->get_name();
    }
  }
};

/// The options of a command and of those above it, without what `--help` alone does.
std::vector<std::string> option_names(const CLI::App* app) {
  std::vector<std::string> names;
  for (; app; app = app->get_parent())
    for (const auto* option : app->get_options())
      for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

/// What CLI11 leaves out: which word is unknown, and the nearest known one. "" where it is not a
/// word that is wrong.
std::string unknown_word(const CLI::App& root) {
  const ChosenCommand chosen(root);
  std::vector<std::string> commands;
  for (const auto* command : chosen.app->get_subcommands([](const CLI::App*) { return true; }))
    commands.push_back(command->get_name());
  for (const auto& word : root.remaining(/*recurse=*/true)) {
    const bool is_option = word.rfind("--", 0) == 0 && word.size() > 2;
    if (!is_option && (commands.empty() || word.rfind('-', 0) == 0)) continue;
    const std::string name = is_option ? word.substr(0, word.find('=')) : word;
    const std::string near = nearest(name, is_option ? option_names(chosen.app) : commands);
    const std::string within = chosen.path.empty() ? "" : chosen.path.substr(1) + ": ";
    return within + "there is no " + (is_option ? "option '" : "command '") + name + "'" +
           (near.empty() ? "." : "; did you mean '" + near + "'?");
  }
  return "";
}

/// Tensors of some megabytes come and go all the time. By default glibc gives them back to the
/// system at once, and every new one then costs a page fault each 4 KB: up to a third of a step.
void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 256 << 20);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  setenv("THP_MEM_ALLOC_ENABLE", "1", /*replace=*/0);  // LibTorch: large tensors on pages of 2 MB
#endif
}

int parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    app.exit(success);
    return -1;
  } catch (const CLI::ParseError& error) {
    const std::string unknown = unknown_word(app);
    throw UsageError((unknown.empty() ? std::string(error.what()) + "." : unknown) +
                     " See `serpentine" + ChosenCommand(app).path + " --help`.");
  }
  return 0;
}

int run(int argc, char** argv) {
  keep_freed_memory();
  CLI::App app("Serpentine: state-space models, from a YAML file to a result.", "serpentine");
  app.footer(kExamples);
  app.set_version_flag("--version", std::string("serpentine ") + build_info().version);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  int threads = 0;
  app.add_option("--threads", threads, "CPU threads of the mathematics (0: all cores)")
      ->check(CLI::Range(0, 4096));
  app.fallthrough();

  Action action;
  add_demo_command(app, action);
  add_train_command(app, action);
  add_evaluate_command(app, action);
  add_forecast_command(app, action);
  add_backtest_command(app, action);
  add_predict_command(app, action);
  add_embed_command(app, action);
  add_explain_command(app, action);
  add_info_command(app, action);
  add_export_command(app, action);
  add_cloud_command(app, action);
  add_draw_scan_command(app, action);
  add_convert_command(app, action);
  add_crossval_command(app, action);
  add_tile_command(app, action);
  add_embed_slides_command(app, action);
  add_wsi_command(app, action);
  add_serve_command(app, action);
  add_segment_command(app, action);
  add_parity_command(app, action);
  add_weights_command(app, action);
  add_schema_command(app, action);
  add_doctor_command(app, action);
  add_selftest_command(app, action);

  if (argc < 2) {
    std::cout << app.help();
    return kUsage;
  }
  if (parse(app, argc, argv) < 0) return 0;
  if (threads > 0) at::set_num_threads(threads);
  return action();
}

int report(int code, const std::string& sentence) {
  std::cout.flush();
  std::cerr << "serpentine: " << sentence << "\n";
  return code;
}

/// LibTorch's out-of-memory text names a source line of its own; users need the number only.
std::string without_source_line(std::string text) {
  if (text.rfind("[enforce fail at ", 0) == 0) {
    const auto end = text.find("] ");
    if (end != std::string::npos) text = text.substr(end + 2);
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace
}  // namespace serpentine

/// LibTorch's threads wait for work by turning in a loop for milliseconds; on a machine with other
/// work that made a short training 8 to 37 times slower. Large results come from the system page by
/// page. Both are settled by variables that the libraries read as they are loaded, so the program
/// begins once more with them; who sets one of them is left alone.
void begin_with_settings(int argc, char** argv) {
  if (argc < 2 || std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY")) return;
  constexpr std::array kLong = {"train",   "demo",     "backtest",    "crossval",
                                "segment", "evaluate", "predict",     "embed",
                                "cloud",   "wsi",      "embed-slides"};
  if (std::find(kLong.begin(), kLong.end(), std::string(argv[1])) == kLong.end()) return;
  setenv("GOMP_SPINCOUNT", "10000", 0);
  setenv("THP_MEM_ALLOC_ENABLE", "1", 0);
  execv("/proc/self/exe", argv);  // where that fails, all goes on as it was
}

int main(int argc, char** argv) {
  using serpentine::kFailed, serpentine::kUsage, serpentine::report;
  begin_with_settings(argc, argv);

  // a reader that closes its pipe (head) must not kill a training run; writes fail instead
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    serpentine::apply_precision("fp32");  // commands that have the option settle it anew
    return serpentine::run(argc, argv);
  } catch (const serpentine::ConfigError& error) {
    std::cout.flush();
    std::cerr << error.what() << (std::string(error.what()).ends_with('\n') ? "" : "\n");
    return kUsage;
  } catch (const serpentine::UsageError& error) {
    return report(kUsage, error.what());
  } catch (const c10::Error& error) {
    return report(kFailed, serpentine::without_source_line(error.what_without_backtrace()));
  } catch (const std::filesystem::filesystem_error& error) {
    return report(kFailed, error.path1().string() + ": " + error.code().message());
  } catch (const std::bad_alloc&) {
    return report(kFailed, "there is not enough memory");
  } catch (const std::exception& error) {
    return report(kFailed, error.what());
  }
}
