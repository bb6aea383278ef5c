// The subcommands of `serpentine`, and what they share with main.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

// NOLINTNEXTLINE(readability-identifier-naming): the library's own name
namespace CLI {
class App;
}

namespace serpentine {

/// What the command line chose to do; returns the exit code: 0 done, 1 failed or beyond a
/// tolerance.
using Action = std::function<int()>;

/// A command line that asks for the impossible; the program ends with exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Each adds one subcommand, which sets `action` when it is chosen.
void add_train_command(CLI::App& app, Action& action);
void add_evaluate_command(CLI::App& app, Action& action);
void add_forecast_command(CLI::App& app, Action& action);
void add_backtest_command(CLI::App& app, Action& action);
void add_parity_command(CLI::App& app, Action& action);
void add_weights_command(CLI::App& app, Action& action);
void add_schema_command(CLI::App& app, Action& action);
void add_doctor_command(CLI::App& app, Action& action);
void add_selftest_command(CLI::App& app, Action& action);
void add_demo_command(CLI::App& app, Action& action);
void add_cloud_command(CLI::App& app, Action& action);
void add_draw_scan_command(CLI::App& app, Action& action);
void add_convert_command(CLI::App& app, Action& action);
void add_predict_command(CLI::App& app, Action& action);
void add_embed_command(CLI::App& app, Action& action);
void add_info_command(CLI::App& app, Action& action);
void add_explain_command(CLI::App& app, Action& action);
void add_export_command(CLI::App& app, Action& action);
void add_crossval_command(CLI::App& app, Action& action);
void add_tile_command(CLI::App& app, Action& action);
void add_embed_slides_command(CLI::App& app, Action& action);
void add_serve_command(CLI::App& app, Action& action);
void add_wsi_command(CLI::App& app, Action& action);
void add_segment_command(CLI::App& app, Action& action);

/// The words of this process's command line.
std::vector<std::string> command_line();

}  // namespace serpentine
