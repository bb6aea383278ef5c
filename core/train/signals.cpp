#include "core/train/signals.h"

#include <csignal>

namespace serpentine {

namespace {

// a signal handler can reach nothing but a global of this type
volatile std::sig_atomic_t noted = 0;

void note(int signal) { noted = signal; }

}  // namespace

StopSignal::StopSignal() {
  noted = 0;
  struct sigaction action = {};
  action.sa_handler = note;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

StopSignal::~StopSignal() {
  noted = 0;
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

int StopSignal::received() { return noted; }

}  // namespace serpentine
