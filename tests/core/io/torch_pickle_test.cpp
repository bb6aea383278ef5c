// Pickles made by hand: what Python's own files look like is in python_test.cpp.
#include "core/io/torch_pickle.h"

#include <torch/torch.h>

#include <cstdlib>

#include "core/io/files.h"
#include "core/io/pickle.h"

namespace serpentine {
namespace {

std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
std::string text(const std::string& value) {
  return std::string("\x8c") + static_cast<char>(value.size()) + value;
}

class TorchPickleTest : public FolderTest {
 protected:
  /// A file of the format before torch 1.6: the object, and storages "0" of four floats 1.
  std::string legacy(const std::string& object,
                     const std::string& storages = "]" + text("0") + "a.") {
    const std::string magic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
    const std::string version("\x80\x02M\xe9\x03.", 6);
    const std::string machine("\x80\x02}.", 4);
    std::string data("\4\0\0\0\0\0\0\0", 8);
    for (int i = 0; i < 4; ++i) data += std::string("\0\0\x80\x3f", 4);
    return write("x.pth",
                 magic + version + machine + "\x80\x02" + object + "\x80\x02" + storages + data);
  }
  /// The opcodes of one float tensor on storage "0".
  static std::string tensor(const std::string& offset, const std::string& sizes,
                            const std::string& strides, const std::string& count = "K\4") {
    return global("torch._utils", "_rebuild_tensor_v2") + "((" + text("storage") +
           global("torch", "FloatStorage") + text("0") + text("cpu") + count + "NtQ" + offset +
           sizes + strides + "\x89}tR";
  }
  std::string error(const std::string& object) {
    const auto path = legacy(object);
    const auto message = error_of([&] { read_torch_pickle(path); });
    expect_sentence(message, path);
    return message;
  }
};

const std::string kZero("K\0", 2);

TEST_F(TorchPickleTest, ReadsStridedViewsOfOneStorage) {
  const auto path = legacy("}(" + text("a") + tensor(kZero, "K\2K\2\x86", "K\1K\2\x86") +
                           text("b") + tensor("K\3", "K\1\x85", "K\1\x85") + "u.");
  const auto read = read_torch_pickle(path);
  ASSERT_EQ(read.tensors.size(), 2U);
  EXPECT_TRUE(torch::equal(read.tensors[0].second, torch::ones({2, 2})));
  EXPECT_TRUE(read.tensors[0].second.is_contiguous());
  EXPECT_EQ(read.tensors[1].second.numel(), 1);
  EXPECT_NE(read.tensors[0].second.storage().data(), read.tensors[1].second.storage().data());
}

/// Files that torch 2.11 wrote: data/make_torch_files.py.
TEST(TorchFiles, OfEveryFormatAreRead) {
  const std::string folder = std::string(SERPENTINE_SOURCE_DIR) + "/tests/core/io/data/";
  const auto ramp = torch::arange(6, torch::kFloat).view({2, 3});
  for (const char* name : {"plain.pth", "legacy.pth", "nested.pth", "ddp.pth"}) {
    SCOPED_TRACE(name);
    const auto read = read_state_dict(folder + name);
    const std::map<std::string, torch::Tensor> all(read.begin(), read.end());
    ASSERT_EQ(all.size(), 5U);
    EXPECT_EQ(read.front().first, "w");
    EXPECT_TRUE(torch::equal(all.at("w"), ramp));
    EXPECT_TRUE(torch::equal(all.at("t"), ramp.t()));
    EXPECT_TRUE(torch::equal(all.at("half"), ramp.to(torch::kHalf)));
    EXPECT_TRUE(torch::equal(all.at("brain"), ramp.to(torch::kBFloat16)));
    EXPECT_EQ(all.at("steps").item<int64_t>(), 7);
  }
  const auto skipped = read_torch_pickle(folder + "nested.pth").skipped;
  EXPECT_NE(std::find(skipped.begin(), skipped.end(), "argparse.Namespace"), skipped.end());
}

TEST_F(TorchPickleTest, NothingIsExecuted) {
  // os.system('touch ...'), beside an honest tensor
  const std::string attack = global("os", "system") + text("touch " + at("owned")) + "\x85R";
  const auto path =
      legacy("}(" + text("w") + tensor(kZero, "K\4\x85", "K\1\x85") + text("x") + attack + "u.");
  const auto read = read_torch_pickle(path);
  EXPECT_EQ(read.tensors.size(), 1U);
  EXPECT_EQ(read.skipped, std::vector<std::string>{"os.system"});
  EXPECT_FALSE(std::filesystem::exists(at("owned")));
  const auto lone = legacy(attack + ".", "].");
  EXPECT_NE(error_of([&] {
              read_torch_pickle(lone);
            }).find("holds no state dict but an object of os.system"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(at("owned")));
}

TEST_F(TorchPickleTest, ViewsBeyondTheirStorageAreRefused) {
  const auto one = [&](const std::string& value) { return error("}" + text("w") + value + "s."); };
  EXPECT_NE(one(tensor("K\1", "K\4\x85", "K\1\x85")).find("reaches beyond its storage of 4"),
            std::string::npos);
  EXPECT_NE(one(tensor(kZero, "K\4\x85", "K\2\x85")).find("reaches beyond"), std::string::npos);
  EXPECT_NE(one(tensor(kZero, "K\5\x85", "K\1\x85", "K\5")).find("claims 5 elements"),
            std::string::npos);
  EXPECT_NE(one(tensor("J\xff\xff\xff\xff", "K\4\x85", "K\1\x85")).find("no valid sizes"),
            std::string::npos);
  const std::string huge = "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
  EXPECT_NE(one(tensor(kZero, huge + huge + "\x86", kZero + kZero + "\x86")).find("reaches beyond"),
            std::string::npos);
  EXPECT_NE(
      one(tensor(kZero, "J\xff\xff\xff\x7f\x85", kZero + "\x85")).find("far more than the file"),
      std::string::npos);
}

TEST_F(TorchPickleTest, TruncatedAtAnyByteIsRefused) {
  const std::string whole =
      read_bytes(legacy("}(" + text("a") + tensor(kZero, "K\2K\2\x86", "K\1K\2\x86") + "u."));
  write_torch_state_dict(at("zip"), {{"a", torch::arange(4)}});
  const std::string zip = read_bytes(at("zip"));
  for (const auto& bytes : {whole, zip}) {
    for (size_t size = 0; size < bytes.size(); ++size) {
      const auto path = write("cut", bytes.substr(0, size));
      expect_sentence(error_of([&] { read_state_dict(path); }), path);
    }
  }
}

TEST_F(TorchPickleTest, BitFlipsNeverPassUnseenInAZip) {
  write_torch_state_dict(at("zip"), {{"a", torch::arange(4)}});
  const std::string whole = read_bytes(at("zip"));
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string flipped = whole;
    flipped[i] = static_cast<char>(flipped[i] ^ (1 << (i % 8)));
    const auto path = write("flipped", flipped);
    const auto message = error_of([&] {
      const auto read = read_state_dict(path);
      // padding and time stamps may flip unseen; the weights may not
      ASSERT_EQ(read.size(), 1U);
      EXPECT_TRUE(torch::equal(read[0].second, torch::arange(4))) << "byte " << i;
    });
    if (message != "no error") expect_sentence(message, path);
  }
}

TEST_F(TorchPickleTest, RefusesDamagedPickles) {
  for (const std::string bytes : {".", "(.", "K", "R", "]K\1s.", "h\1.", "a.", "\xff", "t.",
                                  "(K\1t(R.", "X\xff\xff\xff\xff.", "}(K\1u."}) {
    const auto message = error_of([&] { parse_pickle(bytes, "file"); });
    EXPECT_EQ(message.rfind("file: the pickle is damaged at byte ", 0), 0U) << message;
  }
}

TEST_F(TorchPickleTest, DeepNestingCostsNoStack) {
  const std::string deep = std::string(1000000, ']') + std::string(999999, 'a') + ".";
  EXPECT_EQ(parse_pickle(deep, "file").root->items.size(), 1U);
  expect_sentence(error(deep), at("x.pth"));
}

TEST_F(TorchPickleTest, WritesWhatItReads) {
  StateDict tensors = {{"half", torch::rand({3, 2}).to(torch::kHalf)},
                       {"brain", torch::rand({4}).to(torch::kBFloat16)},
                       {"view", torch::rand({4, 5}).t()},
                       {"empty", torch::empty({0, 3})},
                       {"flag", torch::tensor({true, false})},
                       {"step", torch::tensor(int64_t{-7})}};
  write_torch_state_dict(at("w.bin"), tensors);
  const auto read = read_state_dict(at("w.bin"));
  ASSERT_EQ(read.size(), tensors.size());
  for (size_t i = 0; i < read.size(); ++i) {
    EXPECT_EQ(read[i].first, tensors[i].first);
    EXPECT_EQ(read[i].second.scalar_type(), tensors[i].second.scalar_type());
    EXPECT_TRUE(torch::equal(read[i].second, tensors[i].second)) << read[i].first;
  }
}

}  // namespace
}  // namespace serpentine
