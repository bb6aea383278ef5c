// Starting several processes of this program on one machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace serpentine {

/// Starts `arguments` (the program's path first; without the option that asked for processes)
/// `nproc` times with torchrun's variables on a free local port and waits. When one fails, the
/// others are told to end (SIGTERM, after 30 s SIGKILL). SIGINT and SIGTERM are passed on. Returns
/// the exit code of the first that failed (128 + signal if a signal killed it), else 0. Call it
/// before torch starts threads.
int launch(int64_t nproc, const std::vector<std::string>& arguments);

}  // namespace serpentine
