#include "core/io/hdf5.h"

#include <thread>

#include <torch/torch.h>

#include "core/io/files.h"
#include "support/close.h"

namespace serpentine {
namespace {

class Hdf5 : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    if (!hdf5_available()) GTEST_SKIP() << "built without HDF5";
  }
};

TEST_F(Hdf5, KeepsEveryTypeShapeAndAttribute) {
  torch::manual_seed(0);
  const Hdf5Attributes given = {{"patch_size", int64_t{256}},
                                {"mpp", 0.25},
                                {"name", std::string("slide \xc3\xa9")},
                                {"level_dim", std::vector<int64_t>{4, 5}},
                                {"downsample", std::vector<double>{1, 4.5}}};
  const auto types = {torch::kFloat, torch::kDouble, torch::kByte, torch::kChar,
                      torch::kShort, torch::kInt,    torch::kLong};
  {
    Hdf5Writer file(at("a.h5"));
    for (const auto type : types) {
      file.write(std::string("deep/") + c10::toString(type),
                 torch::randint(0, 100, {3, 2}).to(type));
    }
    file.write("half", torch::tensor({1.5F, -65504.F, 6e-8F}).to(torch::kHalf));
    file.write("none", torch::empty({0, 7}));
    file.write("one", torch::tensor(3.0));
    file.write_texts("texts", {"a", "", "longer"});
    file.set_attributes("half", given);
    file.set_attributes("", {{"root", std::string("yes")}});
    file.finish();
  }
  EXPECT_EQ(count_files(), 1U);
  const Hdf5Reader file(at("a.h5"));
  EXPECT_EQ(file.arrays().size(), 11U);
  torch::manual_seed(0);
  for (const auto type : types) {
    const auto expected = torch::randint(0, 100, {3, 2}).to(type);
    testing::expect_equal(file.read(std::string("deep/") + c10::toString(type)), expected);
  }
  testing::expect_equal(file.read("half"),
                        torch::tensor({1.5F, -65504.F, 6e-8F}).to(torch::kHalf).to(torch::kFloat));
  EXPECT_EQ(file.read("none").sizes(), (at::IntArrayRef{0, 7}));
  EXPECT_EQ(file.read("one").item<float>(), 3);
  EXPECT_EQ(file.read_texts("texts"), (std::vector<std::string>{"a", "", "longer"}));
  EXPECT_EQ(file.attributes("half"), given);
  EXPECT_EQ(std::get<std::string>(file.attributes().at("root")), "yes");
  EXPECT_EQ(file.read_as("deep/Long", torch::kFloat).scalar_type(), torch::kFloat);
}

TEST_F(Hdf5, GrowsByRowsAndReadsSomeOfThem) {
  const auto all = torch::arange(70, torch::kLong).view({35, 2});
  {
    Hdf5Writer file(at("a.h5"));
    for (const auto& part : all.split({1, 30, 0, 4})) file.append("coords", part, 8);
    file.append("empty", torch::empty({0, 5}));
    EXPECT_THROW(file.append("coords", torch::zeros({1, 3}, torch::kLong)), c10::Error);
    file.finish();
  }
  const Hdf5Reader file(at("a.h5"));
  testing::expect_equal(file.read("coords"), all);
  testing::expect_equal(file.rows("coords", 29, 4), all.narrow(0, 29, 4));
  EXPECT_EQ(file.rows("coords", 35, 0).size(0), 0);
  EXPECT_THROW(file.rows("coords", 30, 6), c10::Error);
  EXPECT_EQ(file.shape("empty"), (std::vector<int64_t>{0, 5}));
}

TEST_F(Hdf5, AppearsWholeOrNotAtAll) {
  write("a.h5", "before");
  {
    Hdf5Writer file(at("a.h5"));
    file.write("x", torch::ones({5}));
  }
  EXPECT_EQ(read_bytes(at("a.h5")), "before");
  EXPECT_EQ(count_files(), 1U);
  expect_sentence(error_of([&] { Hdf5Writer file(at("no/a.h5")); }), at("no/a.h5"));
}

TEST_F(Hdf5, SaysWhatIsWrong) {
  expect_sentence(error_of([&] { Hdf5Reader file(at("missing.h5")); }), at("missing.h5"));
  expect_sentence(error_of([&] { Hdf5Reader file(write("text.h5", "no HDF5")); }), at("text.h5"));
  {
    Hdf5Writer file(at("a.h5"));
    file.write("x", torch::ones({1000}));
    file.finish();
  }
  const Hdf5Reader file(at("a.h5"));
  expect_sentence(error_of([&] { file.read("y"); }), at("a.h5"));
  expect_sentence(error_of([&] { file.read_texts("x"); }), at("a.h5"));
  const std::string bytes = read_bytes(at("a.h5"));
  const std::string path = write("cut.h5", bytes.substr(0, bytes.size() - 100));
  expect_sentence(error_of([&] { Hdf5Reader(path).read("x"); }), path);
}

TEST_F(Hdf5, ServesSeveralThreads) {
  for (int i = 0; i < 4; ++i) {
    Hdf5Writer file(at(std::to_string(i)));
    file.write("x", torch::full({100}, i));
    file.finish();
  }
  std::vector<std::thread> threads;
  std::array<bool, 4> right{};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      bool all = true;
      for (int turn = 0; turn < 20; ++turn)
        all = all && Hdf5Reader(at(std::to_string(i))).read("x").eq(i).all().item<bool>();
      right[static_cast<size_t>(i)] = all;
    });
  }
  for (auto& thread : threads) thread.join();
  for (const bool one : right) {
    EXPECT_TRUE(one);
  }
}

}  // namespace
}  // namespace serpentine
