// Threads for our own loops: LibTorch's pool and thread count.
#pragma once

#include <cstdint>
#include <functional>

namespace serpentine {

/// Runs `body` on parts of [begin, end), at least `grain` items each, on torch::get_num_threads()
/// threads. at::parallel_for is a template over an OpenMP pragma: called from a file compiled
/// without OpenMP it runs on one thread and says nothing, so this one file is compiled with it.
void parallel_for(int64_t begin, int64_t end, int64_t grain,
                  const std::function<void(int64_t, int64_t)>& body);

}  // namespace serpentine
