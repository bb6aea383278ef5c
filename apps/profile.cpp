#include "apps/profile.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <tuple>

#include <torch/csrc/autograd/profiler_kineto.h>
#include <torch/torch.h>

namespace serpentine {
namespace {

namespace recorder = torch::autograd::profiler;

/// "void at::native::reduce_kernel<512, 1, ...>(...)" -> "at::native::reduce_kernel<512, 1, ...>"
std::string short_name(std::string name) {
  constexpr size_t kMost = 96;
  if (name.starts_with("void ")) name.erase(0, 5);
  for (const char* noise : {"(anonymous namespace)::", "<unnamed>::", "at::native::"}) {
    for (size_t at = name.find(noise); at != std::string::npos; at = name.find(noise))
      name.erase(at, std::string(noise).size());
  }
  int depth = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (name[i] == '(' && depth == 0) {
      name.resize(i);
      break;
    }
  }
  if (name.size() > kMost) name = name.substr(0, kMost - 3) + "...";
  return name;
}

struct Span {
  uint64_t start, end, thread;
  std::string name;
  uint64_t inner = 0;  // of what it called
};

std::vector<Span> spans_of(const recorder::ProfilerResult& result, bool on_gpu) {
  std::vector<Span> spans;
  for (const auto& event : result.events()) {
    if ((event.deviceType() == c10::DeviceType::CUDA) != on_gpu || event.isHiddenEvent()) continue;
    spans.push_back({event.startNs(), event.startNs() + event.durationNs(), event.startThreadId(),
                     on_gpu ? short_name(event.name()) : event.name()});
  }
  return spans;
}

/// Takes from each span what ran within it on its thread.
void subtract_inner(std::vector<Span>& spans) {
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) {
    return std::tuple(a.thread, a.start, b.end) < std::tuple(b.thread, b.start, a.end);
  });
  std::vector<size_t> open;
  for (size_t i = 0; i < spans.size(); ++i) {
    while (!open.empty() && (spans[open.back()].thread != spans[i].thread ||
                             spans[open.back()].end <= spans[i].start))
      open.pop_back();
    if (!open.empty()) spans[open.back()].inner += spans[i].end - spans[i].start;
    open.push_back(i);
  }
}

}  // namespace

std::vector<ProfileRow> profile(const std::function<void()>& act, c10::Device device) {
  using torch::profiler::impl::ActivityType;
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  std::set<ActivityType> activities = {ActivityType::CPU};
  if (device.is_cuda()) activities.insert(ActivityType::CUDA);
  recorder::prepareProfiler(config, activities);
  recorder::enableProfiler(config, activities);
  act();
  const auto result = recorder::disableProfiler();
  std::vector<Span> spans = spans_of(*result, device.is_cuda());
  if (!device.is_cuda()) subtract_inner(spans);

  std::map<std::string, ProfileRow> rows;
  for (const Span& span : spans) {
    ProfileRow& row = rows[span.name];
    row.name = span.name;
    row.seconds += 1e-9 * static_cast<double>(span.end - span.start -
                                              std::min(span.inner, span.end - span.start));
    ++row.calls;
  }
  std::vector<ProfileRow> sorted;
  for (auto& [name, row] : rows) sorted.push_back(std::move(row));
  std::sort(sorted.begin(), sorted.end(),
            [](const ProfileRow& a, const ProfileRow& b) { return a.seconds > b.seconds; });
  return sorted;
}

std::string profile_text(const std::vector<ProfileRow>& rows, size_t most) {
  double seconds = 0;
  int64_t calls = 0;
  for (const auto& row : rows) {
    seconds += row.seconds;
    calls += row.calls;
  }
  char line[256];
  std::snprintf(line, sizeof line, "%10s %6s %7s  %s\n", "ms", "share", "calls", "name");
  std::string text = line;
  for (size_t i = 0; i < std::min(most, rows.size()); ++i) {
    std::snprintf(line, sizeof line, "%10.3f %5.1f%% %7lld  ", 1e3 * rows[i].seconds,
                  seconds > 0 ? 100 * rows[i].seconds / seconds : 0,
                  static_cast<long long>(rows[i].calls));
    text += line + rows[i].name + "\n";
  }
  std::snprintf(line, sizeof line, "%10.3f %5.1f%% %7lld  all %zu\n", 1e3 * seconds, 100.0,
                static_cast<long long>(calls), rows.size());
  return text + line;
}

}  // namespace serpentine
