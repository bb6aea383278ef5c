// Stands in for graphs in a build without CUDA: every pass is refused.
#include "core/train/step_graph.h"

namespace serpentine {

StepGraph::Recorded StepGraph::record(const Pass& pass, Model&, const Batch& batch) {
  return {pass(batch), nullptr, "this build has no CUDA (SERPENTINE_CUDA=ON)"};
}

}  // namespace serpentine
