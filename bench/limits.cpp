// What this machine can do at best: vector arithmetic of a scan, and memory traffic of its kind.
//
// limits THREADS: one JSON object, in lanes (state steps) and bytes a second; median and best
// of 41.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "bench/limits_vector.h"

namespace serpentine::bench {
namespace {

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Runs work(thread) on each thread at once.
void on_threads(int count, const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 1; i < count; ++i) threads.emplace_back(work, i);
  work(0);
  for (std::thread& thread : threads) thread.join();
}

void print_rate(const std::string& name, double units, const std::function<void()>& work) {
  work();
  std::vector<double> times(41);
  for (double& time : times) time = seconds(work);
  std::sort(times.begin(), times.end());
  std::printf("\"%s\": {\"median\": %.5g, \"best\": %.5g}", name.c_str(),
              units / times[times.size() / 2], units / times[0]);
}

// A scan reads u and delta and writes y; a third input stands for z or B and C. Four arrays of
// `mib` MiB in all, so that small cases are held against the cache that they fit.
void print_bandwidth(int threads, size_t mib) {
  const size_t count = (mib << 20) / (4 * sizeof(float));
  const size_t repeats = std::max<size_t>(1, 16 / mib);
  std::vector<std::vector<float>> arrays(4, std::vector<float>(count, 1.0f));
  const double bytes = static_cast<double>(repeats * 4 * count * sizeof(float));
  print_rate(std::to_string(mib), bytes, [&] {
    on_threads(threads, [&](int thread) {
      const size_t begin = count * static_cast<size_t>(thread) / static_cast<size_t>(threads);
      const size_t end = count * static_cast<size_t>(thread + 1) / static_cast<size_t>(threads);
      const float *a = arrays[0].data(), *b = arrays[1].data(), *c = arrays[2].data();
      for (size_t r = 0; r < repeats; ++r) {
        float* d = arrays[3].data();
        for (size_t i = begin; i < end; ++i) d[i] = a[i] + b[i] * c[i];
        asm volatile("" : : "r"(d) : "memory");  // keeps every repetition
      }
    });
  });
}

void print_limits(int threads) {
  const int64_t count = 1 << 18;  // about a millisecond
  std::printf("{\"threads\": %d, \"vector\": {", threads);
  const char* separator = "";
  std::vector<std::string> sets = instruction_sets();
  sets.resize(std::min<size_t>(sets.size(), 2));  // the older ones say nothing of a scan
  for (const std::string& set : sets) {
    std::printf("%s\"%s\": {", separator, set.c_str());
    separator = ", ";
    const double lanes = static_cast<double>(run_loop(set, Loop::kExp2, count));
    const std::pair<const char*, Loop> loops[] = {
        {"exp2", Loop::kExp2}, {"forward", Loop::kForward}, {"backward", Loop::kBackward}};
    for (const auto& [name, loop] : loops) {
      if (loop != Loop::kExp2) std::printf(", ");
      print_rate(name, lanes * threads, [&, which = loop] {
        on_threads(threads, [&](int) { run_loop(set, which, count); });
      });
    }
    std::printf("}");
  }
  std::printf("}, \"bytes\": {");
  for (const size_t mib : {1, 16, 256}) {
    if (mib > 1) std::printf(", ");
    print_bandwidth(threads, mib);
  }
  std::printf("}}\n");
}

}  // namespace
}  // namespace serpentine::bench

int main(int argc, char** argv) {
  serpentine::bench::print_limits(argc > 1 ? std::max(1, std::stoi(argv[1])) : 1);
  return 0;
}
