// Nothing may be lost when writing fails.
#include "core/io/atomic_file.h"

#include <sys/resource.h>
#include <torch/torch.h>

#include <csignal>

#include "core/io/files.h"
#include "core/io/safetensors.h"
#include "core/io/torch_pickle.h"

namespace serpentine {
namespace {

class AtomicFileTest : public FolderTest {};

/// While alive, no file may grow beyond `bytes`: as on a full disk, but without root.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit small = {bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &small);
  }
  ~SmallDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

 private:
  void (*handler_)(int);
  rlimit before_ = {};
};

TEST_F(AtomicFileTest, AppearsWholeAtCommit) {
  {
    AtomicFile file(at("a"));
    file.write("new");
    EXPECT_FALSE(std::filesystem::exists(at("a")));
  }
  EXPECT_EQ(count_files(), 0U);
  write_atomically(at("a"), "one");
  write_atomically(at("a"), "two");
  EXPECT_EQ(read_bytes(at("a")), "two");
  EXPECT_EQ(count_files(), 1U);
}

TEST_F(AtomicFileTest, AFullDiskLeavesTheOldFile) {
  const StateDict old = {{"a", torch::arange(3)}};
  const StateDict large = {{"a", torch::zeros({100000})}};
  write_safetensors(at("w.safetensors"), old);
  write_torch_state_dict(at("w.pth"), old);
  std::string first, second;
  {
    const SmallDisk disk(65536);
    first = error_of([&] { write_safetensors(at("w.safetensors"), large); });
    second = error_of([&] { write_torch_state_dict(at("w.pth"), large); });
  }
  EXPECT_EQ(first, at("w.safetensors") +
                       " cannot be written: File too large; the file that was there is unchanged");
  EXPECT_EQ(second, at("w.pth") +
                        " cannot be written: File too large; the file that was there is unchanged");
  EXPECT_TRUE(torch::equal(read_state_dict(at("w.safetensors"))[0].second, torch::arange(3)));
  EXPECT_TRUE(torch::equal(read_state_dict(at("w.pth"))[0].second, torch::arange(3)));
  EXPECT_EQ(count_files(), 2U);
}

TEST_F(AtomicFileTest, AMissingFolderIsOneSentence) {
  EXPECT_EQ(error_of([&] { write_atomically(at("none/a"), "x"); }),
            at("none/a") + " cannot be written: No such file or directory");
  std::filesystem::create_directory(at("folder"));
  expect_sentence(error_of([&] { write_atomically(at("folder"), "x"); }), at("folder"));
}

}  // namespace
}  // namespace serpentine
