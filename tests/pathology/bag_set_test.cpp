// Bags from files, good and bad ones.
#include "pathology/bag_set.h"

#include <fstream>

#include <gtest/gtest.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/io/files.h"
#include "core/io/hdf5.h"
#include "core/io/safetensors.h"
#include "core/io/torch_pickle.h"
#include "pathology/bag_source.h"
#include "support/close.h"

namespace serpentine {
namespace {

class BagFiles : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    if (!hdf5_available()) GTEST_SKIP() << "built without HDF5";
    std::filesystem::create_directories(at("features"));
  }
  std::string file(const std::string& name) const { return at("features/" + name); }
  void write_h5(const std::string& name, const torch::Tensor& features,
                const char* key = "features", bool coords = true) const {
    Hdf5Writer out(file(name));
    out.append(key, features);
    const int64_t tiles = features.size(features.dim() - 2);
    if (coords) out.append("coords", torch::arange(2 * tiles, torch::kLong).view({tiles, 2}) * 256);
    out.finish();
  }
  BagSet read(const std::string& table, const std::string& level = "slide") const {
    std::ofstream(at("table.csv")) << table;
    BagSetOptions options;
    options.path = at("table.csv");
    options.features = at("features");
    options.level = level;
    return read_bag_set(options);
  }
  std::string notes(const BagSet& set) const {
    std::string all;
    for (const auto& note : set.notes) all += note + "\n";
    return all;
  }
};

TEST_F(BagFiles, ReadsEveryKind) {
  const auto values = torch::randn({5, 4});
  write_h5("clam.h5", values);
  write_h5("trident.h5", values.unsqueeze(0), "features", false);
  write_h5("stamp_features.h5", values, "feats");
  write_safetensors(file("st.safetensors"),
                    {{"features", values}, {"coords", torch::ones({5, 2})}});
  write_torch_state_dict(file("dict.pt"), {{"features", values}});
  const BagSet set =
      read("slide_id,case_id,label\nclam.svs,a,x\ntrident,b,y\nstamp,c,x\nst,d,y\ndict,e,x\n");
  ASSERT_EQ(set.bags.size(), 5U) << notes(set);
  EXPECT_EQ(set.classes, (std::vector<std::string>{"x", "y"}));
  for (const Bag& bag : set.bags) testing::expect_equal(set.read(bag).features, values, bag.name);
  EXPECT_EQ(set.bags[0].name, "clam");
  testing::expect_equal(set.bags[0].coords, torch::arange(10, torch::kFloat).view({5, 2}) * 256);
  EXPECT_FALSE(set.bags[1].coords.defined());
}

TEST_F(BagFiles, LeavesOutWhatCannotBeUsedAndNamesIt) {
  write_h5("good.h5", torch::randn({3, 4}));
  write_h5("fine.h5", torch::randn({2, 4}));
  write_h5("empty.h5", torch::empty({0, 4}));
  write_h5("wide.h5", torch::randn({3, 5}));
  auto bad = torch::randn({3, 4});
  bad[1][2] = std::nan("");
  write_h5("nan.h5", bad);
  std::ofstream(file("broken.h5")) << "not HDF5";
  const std::string table =
      "slide_id,label\ngood,a\nempty,a\nwide,a\nnan,a\nbroken,a\nmissing,a\nunlabelled,\n"
      "fine,b\ngood,b\n";
  const std::map<std::string, std::string> reasons = {
      {"empty", "holds no tile"}, {"wide", "5 features, most have 4"}, {"nan", "not finite"},
      {"broken", "no HDF5 file"}, {"missing", "no file of features"},  {"unlabelled", "no label"}};
  const BagSet set = read(table);
  EXPECT_EQ(set.bags.size(), 2U);
  EXPECT_NE(notes(set).find("7 bags are left out"), std::string::npos) << notes(set);
  for (const auto& [name, reason] : reasons) {  // each alone, so that it is among the named ones
    const BagSet one = read("slide_id,label\ngood,a\n" + name + "," +
                            (name == "unlabelled" ? "" : "a") + "\nfine,b\n");
    EXPECT_EQ(one.bags.size(), 2U) << name;
    EXPECT_NE(notes(one).find(name), std::string::npos) << notes(one);
    EXPECT_NE(notes(one).find(reason), std::string::npos) << notes(one);
  }
  EXPECT_THROW(read("slide_id,label\nempty,a\nmissing,b\n"), c10::Error);
  EXPECT_THROW(read("slide_id,label\ngood,a\nfine,a\n"), c10::Error);  // one class
  EXPECT_THROW(read("slide_id,other\ngood,a\nfine,b\n"), c10::Error);
}

TEST_F(BagFiles, TheMostFrequentWidthCounts) {
  write_h5("odd.h5", torch::randn({3, 7}));
  write_h5("good.h5", torch::randn({3, 4}));
  write_h5("fine.h5", torch::randn({2, 4}));
  const std::string table = "slide_id,label\nodd,b\ngood,a\nfine,b\n";
  const BagSet set = read(table);
  EXPECT_EQ(set.width, 4);
  EXPECT_EQ(set.bags.size(), 2U);
  ASSERT_EQ(set.left_out.size(), 1U);
  EXPECT_EQ(set.left_out[0].first, "odd");
  EXPECT_EQ(set.left_out[0].second, "its tiles have 7 features, most have 4");
  EXPECT_NE(notes(set).find("classes, with their bags: a (1), b (1)"), std::string::npos);
  try {  // too few classes: the error repeats why bags were left out
    read("slide_id,label\nodd,b\ngood,a\nfine,a\n");
    FAIL() << "one class";
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    EXPECT_NE(text.find("a (2); 1 bag is left out: odd (its tiles have 7 features"),
              std::string::npos)
        << text;
  }
  BagSetOptions options;
  options.path = at("table.csv");
  options.features = at("features");
  options.width = 7;
  std::ofstream(at("table.csv")) << table << "odd2,a\n";
  write_h5("odd2.h5", torch::randn({3, 7}));
  EXPECT_EQ(read_bag_set(options).width, 7);
}

TEST_F(BagFiles, TrainingDrawsFromAugmentedCopies) {
  std::string table = "slide_id,label\n";
  for (const char* name : {"a", "b", "c", "d", "e", "f"}) {
    Hdf5Writer out(file(std::string(name) + ".h5"));
    out.write("features", torch::zeros({40, 3}));
    out.write("augmented",
              torch::tensor({1.F, 2.F}).view({2, 1, 1}).expand({2, 40, 3}).contiguous());
    out.finish();
    table += std::string(name) + "," + (*name < 'd' ? "x" : "y") + "\n";
  }
  std::ofstream(at("table.csv")) << table;
  for (const bool keep : {true, false}) {
    BagSourceOptions options;
    options.path = at("table.csv");
    options.features = at("features");
    options.augmented = true;
    options.keep = keep;
    options.splits.folds = 3;
    const auto train = BagSource(options).bags(Part::kTrain);
    EXPECT_EQ(train->get(0).input.abs().max().item<float>(), 0) << "only training draws";
    const std::vector<int64_t> both = {0, 1};
    const auto drawn = [&](int64_t seed, int64_t epoch) {
      return train->draw(both, {seed, epoch, {}}).input;
    };
    const auto first = drawn(1, 0);
    for (const float value : {0.F, 1.F, 2.F})
      EXPECT_GT(first.select(1, 0).eq(value).sum().item<int64_t>(), 10) << value;
    EXPECT_TRUE(first.select(1, 0).equal(first.select(1, 2))) << "a tile is drawn as a whole";
    EXPECT_TRUE(first.equal(drawn(1, 0)));
    EXPECT_FALSE(first.equal(drawn(1, 1)));
    EXPECT_FALSE(first.equal(drawn(2, 0)));
  }
  write_h5("f.h5", torch::zeros({40, 3}));
  BagSetOptions options;
  options.path = at("table.csv");
  options.features = at("features");
  options.augmented = true;
  const BagSet set = read_bag_set(options);
  ASSERT_EQ(set.left_out.size(), 1U);
  EXPECT_NE(set.left_out[0].second.find("holds no augmented copies"), std::string::npos);
  options.path = std::string(SERPENTINE_SOURCE_DIR) + "/tests/pathology/data/bags.csv";
  options.features = "";
  EXPECT_THROW(read_bag_set(options), c10::Error);
}

TEST_F(BagFiles, JoinsThePatientsSlides) {
  write_h5("a1.h5", torch::ones({2, 3}));
  write_h5("a2.h5", torch::ones({3, 3}) * 2);
  write_h5("b1.h5", torch::ones({1, 3}));
  const BagSet set = read("slide_id,case_id,label\na1,A,x\nb1,B,y\na2,A,x\n", "patient");
  ASSERT_EQ(set.bags.size(), 2U);
  EXPECT_EQ(set.bags[0].name, "A");
  EXPECT_EQ(set.read(set.bags[0]).features.size(0), 5);
}

TEST_F(BagFiles, TcgaNamesGiveThePatient) {
  write_h5("TCGA-05-4250-01Z-00-DX1.abc.h5", torch::ones({2, 3}));
  write_h5("other.h5", torch::ones({2, 3}));
  const BagSet set = read("slide_id,label\nTCGA-05-4250-01Z-00-DX1.abc,x\nother,y\n");
  EXPECT_EQ(set.bags[0].patient, "TCGA-05-4250");
  EXPECT_EQ(set.bags[1].patient, "other");
}

BagSourceOptions toy(const std::string& file) {
  BagSourceOptions options;
  options.path = std::string(SERPENTINE_SOURCE_DIR) + "/tests/pathology/data/" + file;
  return options;
}

TEST(BagSource, ReadsTablesOfInstances) {
  BagSourceOptions options = toy("bags.csv");
  options.splits.folds = 3;
  options.standardize = true;
  const BagSource source(options);
  EXPECT_EQ(source.set().bags.size(), 36U);
  EXPECT_EQ(source.set().width, 6);
  EXPECT_EQ(source.part(Part::kTest)->size(), 12);
  std::vector<torch::Tensor> tiles;
  const auto train = source.bags(Part::kTrain);
  for (int64_t i = 0; i < train->size(); ++i) tiles.push_back(train->get(i).input);
  const auto all = torch::cat(tiles);
  EXPECT_LT(all.mean(0).abs().max().item<float>(), 1e-5);
  EXPECT_LT((all.std(0, false) - 1).abs().max().item<float>(), 1e-4);
  EXPECT_EQ(source.description()["mean"].size(), 6U);
}

TEST(BagSource, BinsTimesOfTheTrainingBags) {
  BagSourceOptions options = toy("survival.index.csv");
  options.columns.time = "survival_months";
  options.splits.scheme = "columns";
  options.bins = 3;
  const BagSource source(options);
  EXPECT_TRUE(source.set().survival);
  const Batch batch = source.part(Part::kTrain)->get_batch({0, 1, 2});
  EXPECT_EQ(batch.offsets[-1].item<int64_t>(), batch.input.size(0));
  EXPECT_EQ(batch.get("time").size(0), 3);
  EXPECT_LT(batch.target.max().item<int64_t>(), 3);
  options.columns.censorship = "no such column";
  EXPECT_THROW(BagSource{options}, c10::Error);
}

}  // namespace
}  // namespace serpentine
