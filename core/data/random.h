// Random numbers that are a function of their keys: the same on every machine and thread.
#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace serpentine {

/// A text as a key or a mark: FNV-1a's steps, from a number that saved runs have always been marked
/// by.
inline uint64_t text_key(std::string_view text) {
  uint64_t key = 1469598103934665603ULL;
  for (const char c : text) key = (key ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return key;
}

/// SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): the standard library's distributions differ by
/// vendor.
class Random {
 public:
  /// A stream of its own for every (seed, epoch).
  Random(int64_t seed, int64_t epoch)
      : state_(static_cast<uint64_t>(seed) * kGolden + static_cast<uint64_t>(epoch)) {
    state_ = next();
  }
  /// The same with further keys, such as an example's index.
  Random(int64_t seed, int64_t epoch, std::initializer_list<int64_t> keys) : Random(seed, epoch) {
    for (const int64_t key : keys) {
      state_ += static_cast<uint64_t>(key) * kGolden;
      state_ = next();
    }
  }

  uint64_t next() {
    uint64_t z = (state_ += kGolden);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
  }
  /// Uniform in [0, bound), without bias.
  uint64_t below(uint64_t bound) {
    const uint64_t reject = (0 - bound) % bound;
    for (;;) {
      const uint64_t value = next();
      if (value >= reject) return value % bound;
    }
  }
  int64_t below(int64_t bound) { return static_cast<int64_t>(below(static_cast<uint64_t>(bound))); }
  /// Uniform in [0, 1), of 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  bool chance(double probability) { return uniform() < probability; }
  /// Normal (Box & Muller 1958).
  double normal(double mean = 0, double deviation = 1) {
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return mean + deviation * radius * std::cos(6.283185307179586 * uniform());
  }
  /// Gamma of shape `alpha` and scale 1 (Marsaglia & Tsang 2000), in logarithms for small shapes.
  double log_gamma(double alpha) {
    if (alpha < 1) return log_gamma(alpha + 1) + std::log(1 - uniform()) / alpha;
    const double d = alpha - 1.0 / 3, c = 1 / std::sqrt(9 * d);
    for (;;) {
      const double x = normal(), v = std::pow(1 + c * x, 3);
      if (v <= 0) continue;
      if (std::log(1 - uniform()) < 0.5 * x * x + d - d * v + d * std::log(v))
        return std::log(d * v);
    }
  }
  /// Beta(alpha, alpha).
  double beta(double alpha) {
    const double a = log_gamma(alpha), b = log_gamma(alpha);
    return 1 / (1 + std::exp(b - a));
  }

 private:
  static constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ULL;
  uint64_t state_;
};

}  // namespace serpentine
