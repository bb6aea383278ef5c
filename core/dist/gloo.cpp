#include <chrono>
#include <string>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "core/dist/backends.h"

namespace serpentine {

c10::intrusive_ptr<c10d::Backend> connect_gloo(const c10::intrusive_ptr<c10d::Store>& store,
                                               const World& world, double timeout_seconds) {
  using Gloo = c10d::ProcessGroupGloo;
  const std::string& host = world.address;
  const bool this_machine = host == "localhost" || host == "::1" || host.rfind("127.", 0) == 0;
  auto options = Gloo::Options::create();
  options->timeout = std::chrono::milliseconds(static_cast<int64_t>(timeout_seconds * 1000));
  options->devices.push_back(this_machine
                                 ? Gloo::createDeviceForHostname("127.0.0.1", /*lazyInit=*/false)
                                 : Gloo::createDefaultDevice(/*lazyInit=*/false));
  return c10::make_intrusive<Gloo>(c10::make_intrusive<c10d::PrefixStore>("host", store),
                                   static_cast<int>(world.rank), static_cast<int>(world.size),
                                   options);
}

}  // namespace serpentine
