// serpentine serve: look at slides and predictions in a browser.
#include <iostream>

#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/slide_options.h"
#include "apps/viewer.h"

namespace serpentine {
namespace {

constexpr const char* kServeFooter =
    R"(Pan and zoom slides, lay the attention over them, jump to the tiles that counted most. FOLDER is what
`serpentine wsi predict` wrote, or a folder of slides. Only this machine can connect unless --host says
otherwise; there is no password then. Examples:
  serpentine serve predictions/
  serpentine serve slides/ --port 9000)";

}  // namespace

void add_serve_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("serve", "Look at slides and predictions in a browser");
  command->footer(kServeFooter);
  auto options = std::make_shared<ViewerOptions>();
  auto slides = std::make_shared<SlideArguments>();
  command->add_option("FOLDER", options->folder, "Predictions, or slides")->required();
  command->add_option("--host", options->host, "Address to listen at")->capture_default_str();
  command->add_option("--port", options->port, "Port; 0: a free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  add_mpp_options(*command, *slides);
  command->callback([&action, options, slides] {
    action = [options, slides] {
      options->slide = slides->finished().slide;
      options->ready = [](const std::string& url) {
        std::cout << "viewer     " << url << "  (Ctrl-C ends it)" << std::endl;
      };
      serve_viewer(*options);
      return 0;
    };
  });
}

}  // namespace serpentine
