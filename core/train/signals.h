// Noticing that someone wants the program to end, without losing work.
#pragma once

namespace serpentine {

/// While it lives, the first SIGINT or SIGTERM is only noted; a second one ends the program at
/// once.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  /// The signal's number, or 0.
  static int received();
};

}  // namespace serpentine
