#include "pathology/splits.h"

#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "core/io/files.h"

namespace serpentine {
namespace {

/// 120 bags of 50 patients from 7 sites, two classes 2 : 1.
std::vector<BagInfo> bags() {
  std::vector<BagInfo> all;
  for (int64_t i = 0; i < 120; ++i) {
    const int64_t patient = 7 * i % 50;
    all.push_back({"s" + std::to_string(i),
                   "p" + std::to_string(patient),
                   "c" + std::to_string(patient % 7),
                   patient % 3 == 0 ? 1 : 0,
                   {}});
  }
  return all;
}

std::set<std::string> groups_of(const std::vector<int64_t>& rows, const std::vector<BagInfo>& all,
                                bool site) {
  std::set<std::string> found;
  for (const int64_t row : rows) {
    const BagInfo& bag = all[static_cast<size_t>(row)];
    found.insert(site ? bag.site : bag.patient);
  }
  return found;
}

void expect_apart(const Split& split, const std::vector<BagInfo>& all, bool site) {
  const auto train = groups_of(split.train, all, site),
             validation = groups_of(split.validation, all, site),
             test = groups_of(split.test, all, site);
  for (const auto& group : test) {
    EXPECT_EQ(train.count(group), 0U) << group;
    EXPECT_EQ(validation.count(group), 0U) << group;
  }
  for (const auto& group : validation) {
    EXPECT_EQ(train.count(group), 0U) << group;
  }
}

TEST(Splits, FoldsTestEachBagOnceAndKeepPatientsTogether) {
  const auto all = bags();
  for (const char* group : {"patient", "site"}) {
    std::map<int64_t, int64_t> tested;
    SplitOptions options;
    options.folds = 5;
    options.group = group;
    for (options.fold = 0; options.fold < 5; ++options.fold) {
      const Split split = make_split(all, options, "toy");
      expect_apart(split, all, std::string(group) == "site");
      EXPECT_EQ(split.train.size() + split.validation.size() + split.test.size(), all.size());
      for (const int64_t row : split.test) ++tested[row];
      if (std::string(group) != "patient") continue;
      const auto ones = std::count_if(split.test.begin(), split.test.end(), [&](int64_t row) {
        return all[static_cast<size_t>(row)].stratum == 1;
      });
      EXPECT_NEAR(static_cast<double>(ones) / static_cast<double>(split.test.size()), 1.0 / 3,
                  0.12);
      EXPECT_NEAR(static_cast<double>(split.test.size()), 24, 4);
      EXPECT_NEAR(static_cast<double>(split.validation.size()), 12, 4);
      EXPECT_EQ(make_split(all, options, "toy").validation, split.validation);
    }
    EXPECT_EQ(tested.size(), all.size()) << group;
    for (const auto& [row, times] : tested) {
      EXPECT_EQ(times, 1);
    }
  }
}

TEST(Splits, MonteCarloDrawsAnew) {
  const auto all = bags();
  SplitOptions options;
  options.scheme = "monte_carlo";
  options.test = 0.2;
  const Split first = make_split(all, options, "toy");
  options.fold = 1;
  const Split second = make_split(all, options, "toy");
  expect_apart(first, all, false);
  EXPECT_NE(first.test, second.test);
  EXPECT_NEAR(static_cast<double>(first.test.size()), 24, 5);
}

TEST(Splits, RefusesSharedPatientsAndNamesThem) {
  std::vector<BagInfo> all = bags();
  for (auto& bag : all) bag.parts = {"train"};
  all[0].parts = {"test"};  // patient p0 has other bags in train
  all[1].parts = {"val"};
  SplitOptions options;
  options.scheme = "columns";
  const std::string message = error_of([&] { make_split(all, options, "table.csv"); });
  EXPECT_NE(message.find("p0 (train and test)"), std::string::npos) << message;
  EXPECT_NE(message.find("p7 (train and val)"), std::string::npos) << message;
  EXPECT_NE(message.find("2 patients are in two parts"), std::string::npos) << message;
  options.shared_patients = true;
  std::vector<std::string> notes;
  EXPECT_EQ(make_split(all, options, "table.csv", &notes).test.size(), 1U);
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_NE(notes[0].find("p0"), std::string::npos);
}

class SplitFiles : public FolderTest {};

TEST_F(SplitFiles, AreReadAsTheyAreWritten) {
  const auto all = bags();
  SplitOptions options;
  options.folds = 5;
  options.fold = 3;
  const Split split = make_split(all, options, "toy");
  write_split(folder_.string(), 3, split, all, {"benign", "malignant"});
  options.scheme = "files";
  options.path = folder_.string();
  const Split again = make_split(all, options, "toy");
  EXPECT_EQ(again.train, split.train);
  EXPECT_EQ(again.validation, split.validation);
  EXPECT_EQ(again.test, split.test);
  const std::string counts = read_bytes(at("splits_3_descriptor.csv"));
  EXPECT_NE(counts.find("malignant,"), std::string::npos);
  EXPECT_NE(read_bytes(at("splits_3_bool.csv")).find("s0,"), std::string::npos);
}

TEST_F(SplitFiles, TakePatientsToo) {
  const auto all = bags();
  std::vector<std::string> notes;
  write("splits_0.csv", ",train,val,test\n0,p1,p4,p9\n1,p0,,s999\n");
  const Split split = read_split(at("splits_0.csv"), all, &notes);
  for (const int64_t row : split.test) {
    EXPECT_EQ(all[static_cast<size_t>(row)].patient, "p9");
  }
  EXPECT_FALSE(split.test.empty());
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_NE(notes[0].find("s999"), std::string::npos);
  write("splits_1.csv", ",train,test\n0,p1,p4\n");
  EXPECT_THROW(read_split(at("splits_1.csv"), all), c10::Error);
}

}  // namespace
}  // namespace serpentine
