// One process works on one slide, also when several machines share a folder.
#pragma once

#include <optional>
#include <string>

namespace serpentine {

/// A file `path` that exists while this process works; removed by the destructor. It names host and
/// process. Left behind by a killed process it is taken over: at once on the same host, on others
/// after a day.
class SlideLock {
 public:
  /// Nothing when another process holds it; `holder` then says who.
  static std::optional<SlideLock> take(const std::string& path, std::string& holder);
  ~SlideLock();
  SlideLock(SlideLock&& other) noexcept;
  SlideLock(const SlideLock&) = delete;
  SlideLock& operator=(const SlideLock&) = delete;

 private:
  explicit SlideLock(std::string path);
  std::string path_;
};

}  // namespace serpentine
