// The fuzzers' corpus, and what is left of each file when it is cut or a byte changes: every reader
// gives a result or one error, and nothing ends the process.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#define SERPENTINE_FUZZERS(each)                                                               \
  each(cloud_arrays) each(config) each(csv) each(las) each(off) each(packed_images) each(pcd) \
      each(pickle) each(ply) each(safetensors) each(xyz)

#define SERPENTINE_DECLARE(name) extern "C" int fuzz_##name(const uint8_t* data, size_t size);
SERPENTINE_FUZZERS(SERPENTINE_DECLARE)

namespace {

struct Fuzzer {
  const char* name;
  int (*run)(const uint8_t*, size_t);
};

#define SERPENTINE_ENTRY(name) {#name, fuzz_##name},
constexpr Fuzzer kFuzzers[] = {SERPENTINE_FUZZERS(SERPENTINE_ENTRY)};

class Replay : public ::testing::TestWithParam<Fuzzer> {};

TEST_P(Replay, EndsNothing) {
  const auto run = [](const std::string& bytes) {
    EXPECT_EQ(GetParam().run(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()), 0);
  };
  const std::string folder =
      std::string(SERPENTINE_SOURCE_DIR) + "/tests/fuzz/corpus/" + GetParam().name;
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    SCOPED_TRACE(entry.path().string());
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string whole{std::istreambuf_iterator<char>(file), {}};
    ASSERT_FALSE(whole.empty());
    ++files;
    run(whole);
    constexpr size_t kPlaces = 32;  // all of a small file
    const size_t stride = std::max<size_t>(1, whole.size() / kPlaces);
    for (size_t at = 0; at < whole.size(); at += stride) {
      run(whole.substr(0, at));
      std::string changed = whole;
      for (const int bits : {0x01, 0xff}) {
        changed[at] = static_cast<char>(whole[at] ^ bits);
        run(changed);
      }
    }
  }
  EXPECT_GT(files, 0);
}

INSTANTIATE_TEST_SUITE_P(Readers, Replay, ::testing::ValuesIn(kFuzzers),
                         [](const auto& each) { return std::string(each.param.name); });

}  // namespace
