// Every image source, on good data and on what people really have.
#include <set>

#include <gtest/gtest.h>
#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "core/data/loader.h"
#include "core/io/files.h"
#include "vision/image_dataset.h"
#include "vision/pictures.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

class ImageSources : public FolderTest {
 protected:
  static std::shared_ptr<DataSource> build(const nlohmann::json& yaml) {
    Registry<DataSource> sources{"data"};
    add_vision_sources(sources);
    return sources.build(Config::parse(yaml.dump(1)));
  }
  static std::string error(const nlohmann::json& yaml) {
    try {
      build(yaml);
    } catch (const c10::Error& caught) {
      return caught.what_without_backtrace();
    } catch (const std::exception& caught) {
      return caught.what();
    }
    return "no error";
  }
  static Batch all_of(const Dataset& part) {
    std::vector<int64_t> indices(static_cast<size_t>(part.size()));
    for (size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<int64_t>(i);
    return part.get_batch(indices);
  }
  static bool said(const DataSource& source, const std::string& words) {
    for (const auto& note : source.notes()) {
      if (note.find(words) != std::string::npos) return true;
    }
    return false;
  }
  /// `count` PNGs a class: red and blue.
  void write_two_classes(int64_t count, const std::string& below = "") const {
    for (int64_t i = 0; i < count; ++i) {
      const std::string name = std::to_string(i) + ".png";
      write_picture(folder_ / below / "blue" / name, flat_picture(12, 0, 0, 200 + i % 50));
      write_picture(folder_ / below / "red" / name, flat_picture(12, 200 + i % 50, 0, 0));
    }
  }
};

class PictureSources : public ImageSources {
 protected:
  void SetUp() override {
    if (!images_available()) GTEST_SKIP() << "built without OpenCV";
    FolderTest::SetUp();
  }
};

nlohmann::json plain(const std::string& type, const std::string& path) {
  return {{"type", type},
          {"path", path},
          {"image_size", {8}},
          {"normalize", "none"},
          {"crop_ratio", 1}};
}

TEST_F(PictureSources, AFolderIsDividedInEqualSharesOfItsClasses) {
  write_two_classes(20);
  const auto source = build(plain("image_folder", folder_.string()));
  const auto train = source->part(Part::kTrain), validation = source->part(Part::kValidation),
             test = source->part(Part::kTest);
  EXPECT_EQ(train->size(), 32);
  EXPECT_EQ(validation->size(), 4);
  EXPECT_EQ(test->size(), 4);
  const auto batch = all_of(*test);
  EXPECT_EQ(batch.target.sum().item<int64_t>(), 2);
  EXPECT_EQ(batch.input.sizes(), (std::vector<int64_t>{4, 3, 8, 8}));
  // class 1 is "red": by name
  EXPECT_TRUE(
      batch.input.select(1, 0).mean({1, 2}).gt(0.5).eq(batch.target.eq(1)).all().item<bool>());
  std::set<std::string> names;
  for (const auto& part : {train, validation, test}) {
    const auto* images = dynamic_cast<const ImageDataset*>(part.get());
    for (int64_t i = 0; i < part->size(); ++i) names.insert(images->name(i));
  }
  EXPECT_EQ(names.size(), 40U);  // nothing lies in two parts
}

TEST_F(PictureSources, PartsThatAreThereAreTaken) {
  write_two_classes(6, "train");
  write_two_classes(2, "val");
  write_two_classes(3, "test");
  auto yaml = plain("image_folder", folder_.string());
  const auto source = build(yaml);
  EXPECT_EQ(source->part(Part::kTrain)->size(), 12);
  EXPECT_EQ(source->part(Part::kValidation)->size(), 4);
  EXPECT_EQ(source->part(Part::kTest)->size(), 6);
}

TEST_F(PictureSources, WhatIsNoPictureIsLeftOutAndSaid) {
  write_two_classes(6);
  write_bytes(folder_ / "red" / "empty.png", "");
  write_bytes(folder_ / "red" / "text.jpg", "this is no picture at all");
  write_bytes(folder_ / "red" / "notes.txt", "ignored");
  std::filesystem::create_directories(folder_ / "green");
  const auto cut = encode_image(flat_picture(64, 3, 90, 200), "png");
  write_bytes(folder_ / "blue" / "cut.png", cut.substr(0, cut.size() / 2));
  const auto jpeg = encode_image(flat_picture(64, 3, 90, 200), "jpg");
  write_bytes(folder_ / "blue" / "cut.jpg", jpeg.substr(0, jpeg.size() * 3 / 4));
  write_bytes(folder_ / "blue" / "really_a_png.jpg",
              encode_image(flat_picture(9, 0, 0, 250), "png"));
  auto yaml = plain("image_folder", folder_.string());
  yaml["validation"] = yaml["test"] = 0;
  testing::internal::CaptureStderr();
  const auto source = build(yaml);
  EXPECT_TRUE(said(*source, "2 pictures cannot be read"));
  EXPECT_TRUE(said(*source, "class folder 'green' holds no picture"));
  EXPECT_TRUE(said(*source, "1 files do not end as pictures do"));
  const auto train = source->part(Part::kTrain);
  EXPECT_EQ(train->size(), 15);  // two of them break when they are decoded
  EXPECT_EQ(all_of(*train).size(), 13);
  EXPECT_EQ(all_of(*train).size(), 13);
  EXPECT_TRUE(said(*source, "2 pictures cannot be read"));  // beside the two of before
  const std::string printed = testing::internal::GetCapturedStderr();
  for (const char* name : {"empty.png", "text.jpg", "cut.png", "cut.jpg"}) {
    const size_t first = printed.find(name);
    EXPECT_NE(first, std::string::npos) << name;
    EXPECT_EQ(printed.find("left out", first), printed.find("left out", first + 1)) << name;
  }
}

TEST_F(PictureSources, OddPicturesBecomeTheRightSize) {
  write_two_classes(3);
  write_picture(folder_ / "red" / "one_pixel.png", torch::full({1, 1, 3}, 255, torch::kUInt8));
  write_picture(folder_ / "red" / "wide.png", torch::full({2, 900, 3}, 255, torch::kUInt8));
  write_picture(folder_ / "red" / "deep.png",
                torch::full({9, 9, 3}, 65535, torch::kInt).to(torch::kUInt16));
  write_picture(folder_ / "red" / "alpha.png", torch::full({9, 9, 4}, 255, torch::kUInt8));
  write_picture(folder_ / "red" / "grey.png", torch::full({9, 9, 1}, 255, torch::kUInt8));
  auto yaml = plain("image_folder", folder_.string());
  yaml["validation"] = yaml["test"] = 0;
  const auto source = build(yaml);
  const auto batch = all_of(*source->part(Part::kTrain));
  EXPECT_EQ(batch.input.sizes(), (std::vector<int64_t>{11, 3, 8, 8}));
  EXPECT_TRUE(batch.input.slice(0, 6).ge(0).all().item<bool>());
  yaml["augment"] = {{"crop", "random_resized"}};
  const auto train = build(yaml)->part(Part::kTrain);
  EXPECT_EQ(train->draw({3, 4, 5, 6, 7, 8, 9, 10}, {1, 0, {}}).size(), 8);
}

TEST_F(PictureSources, CmykAndTurnedPhotographs) {
  // both made with Pillow: one colour of ink; left blue, right red, to be turned by 90 degrees
  const std::string data = std::string(SERPENTINE_SOURCE_DIR) + "/tests/vision/data/";
  const auto inks = read_image(data + "cmyk.jpg").to(torch::kFloat32).mean(c10::IntArrayRef{0, 1});
  EXPECT_GT(inks[0].item<double>(), 150);
  EXPECT_LT(inks[1].item<double>(), 100);
  EXPECT_LT(inks[2].item<double>(), 100);
  const auto turned = read_image(data + "turned.jpg");
  ASSERT_EQ(turned.sizes(), (std::vector<int64_t>{16, 12, 3}));
  EXPECT_GT(turned[1][6][2].item<int>(), 150);   // blue is above
  EXPECT_GT(turned[14][6][0].item<int>(), 150);  // red below
}

TEST_F(PictureSources, AHugePictureIsRefusedBeforeItIsDecoded) {
  write_two_classes(3);
  std::string bomb = encode_image(flat_picture(9, 1, 2, 3), "png");
  bomb.replace(16, 8, std::string("\0\x01\0\0\0\x01\0\0", 8));  // 65,536 x 65,536
  write_bytes(folder_ / "red" / "huge.png", bomb);
  auto yaml = plain("image_folder", folder_.string());
  yaml["validation"] = yaml["test"] = 0;
  const auto source = build(yaml);
  testing::internal::CaptureStderr();
  EXPECT_EQ(all_of(*source->part(Part::kTrain)).size(), 6);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("65536 x 65536 pixels"), std::string::npos);
}

TEST_F(PictureSources, FoldersWithoutClassesAreExplained) {
  EXPECT_NE(error(plain("image_folder", at("nowhere"))).find("is not a folder"), std::string::npos);
  EXPECT_NE(error(plain("image_folder", folder_.string())).find("no class folders"),
            std::string::npos);
  write_picture(folder_ / "only" / "a.png", flat_picture(8, 1, 2, 3));
  EXPECT_NE(error(plain("image_folder", folder_.string())).find("only 'only'"), std::string::npos);
  auto yaml = plain("image_folder", folder_.string());
  yaml["classes"] = {"only", "other"};
  EXPECT_NE(error(yaml).find("no class folder 'other'"), std::string::npos);
}

TEST_F(PictureSources, AListNamesPathsLabelsAndParts) {
  write_two_classes(4);
  std::string text = "label,path,split\r\n";
  for (int i = 0; i < 4; ++i) {
    const std::string file = std::to_string(i) + ".png";
    const char* part = i < 2 ? "train" : i == 2 ? "val" : "test";
    text += "\"the \"\"blue\"\"\",blue/" + file + "," + part + "\r\nred,red/" + file + "," + part +
            "\r\n";
  }
  text += "red,red/missing.png,train\r\npurple,red/0.png,train\r\n";
  auto yaml = plain("image_list", write("list.csv", text));
  yaml["classes"] = {"red", "the \"blue\""};
  testing::internal::CaptureStderr();
  const auto source = build(yaml);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("missing.png"), std::string::npos);
  EXPECT_EQ(source->part(Part::kTrain)->size(), 4);
  EXPECT_EQ(source->part(Part::kValidation)->size(), 2);
  EXPECT_EQ(source->part(Part::kTest)->size(), 2);
  EXPECT_TRUE(
      said(*source, "1 rows have a label that is not among `classes` and are left out: 'purple'"));
  EXPECT_NE(
      error(plain("image_list", write("bad.csv", "a,b\n1,2\n"))).find("must name the columns"),
      std::string::npos);
  EXPECT_NE(error(plain("image_list", write("rag.csv", "path,label\nx\n"))).find("rag.csv:2"),
            std::string::npos);
}

TEST_F(PictureSources, ShardsGiveTheirSamples) {
  std::string tar;
  for (int i = 0; i < 6; ++i) {
    const auto picture = i % 2 ? flat_picture(9, 250, 0, 0) : flat_picture(9, 0, 0, 250);
    const std::string key = "x/sample" + std::to_string(i);
    tar += tar_member(key + ".png", encode_image(picture, "png"));
    tar += i < 4 ? tar_member(key + ".cls", std::to_string(i % 2) + "\n")
                 : tar_member(key + ".json", "{\"label\": " + std::to_string(i % 2) + "}");
  }
  tar += tar_member("lonely.png", "not even a picture");
  write_bytes(folder_ / "train-0.tar", tar + std::string(1024, '\0'));
  write_bytes(folder_ / "test-0.tar", tar.substr(0, tar.size() - 700));  // cut off
  const auto source = build(plain("shards", folder_.string()));
  EXPECT_TRUE(said(*source, "samples lack a picture or a class"));
  EXPECT_TRUE(said(*source, "cut off"));
  const auto test = source->part(Part::kTest);
  ASSERT_GE(test->size(), 5);
  const auto batch = all_of(*test);
  EXPECT_TRUE(
      batch.input.select(1, 0).mean({1, 2}).gt(0.5).eq(batch.target.eq(1)).all().item<bool>());
  write_bytes(folder_ / "bad.tar", std::string(2000, 'x'));
  EXPECT_NE(error(plain("shards", at("bad.tar"))).find("is not a tar file"), std::string::npos);
}

TEST_F(ImageSources, IdxFilesOfTheMnistFamily) {
  const auto pictures = torch::randint(256, {30, 7, 5}, torch::kUInt8);
  const auto labels = torch::arange(30).remainder(3).to(torch::kUInt8);
  write("train-images-idx3-ubyte", idx_bytes(pictures));
  write("train-labels-idx1-ubyte", idx_bytes(labels));
  write("t10k-images-idx3-ubyte", idx_bytes(pictures.slice(0, 0, 6)));
  write("t10k-labels-idx1-ubyte", idx_bytes(labels.slice(0, 0, 6)));
  const auto source = build(
      {{"type", "idx"}, {"path", folder_.string()}, {"normalize", "none"}, {"validation", 0.2}});
  EXPECT_EQ(source->part(Part::kTrain)->size(), 24);
  EXPECT_EQ(source->part(Part::kValidation)->size(), 6);
  const auto test = all_of(*source->part(Part::kTest));
  EXPECT_TRUE(
      torch::allclose(test.input.squeeze(1) * 255, pictures.slice(0, 0, 6).to(torch::kFloat32)));
  EXPECT_TRUE(test.target.equal(labels.slice(0, 0, 6).to(torch::kLong)));
  // one by one is the same as together
  const auto one = source->part(Part::kTest)->get(4);
  EXPECT_TRUE(one.input.equal(test.input[4]));

  const nlohmann::json yaml = {{"type", "idx"}, {"path", folder_.string()}};
  write("train-labels-idx1-ubyte", idx_bytes(labels.slice(0, 0, 29)));
  EXPECT_NE(error(yaml).find("there must be 30 labels"), std::string::npos);
  write("train-images-idx3-ubyte", idx_bytes(pictures).substr(0, 500));
  EXPECT_NE(error(yaml).find("promises 30 x 7 x 5 values, but 484 bytes follow"),
            std::string::npos);
  write("train-images-idx3-ubyte", "");
  EXPECT_NE(error(yaml).find("is not an IDX file"), std::string::npos);
}

TEST_F(ImageSources, CifarRecords) {
  std::string records;
  for (int i = 0; i < 20; ++i)
    records += static_cast<char>(i % 10) + std::string(3072, static_cast<char>(i));
  write("data_batch_1.bin", records);
  write("test_batch.bin", records);
  write("batches.meta.txt", "airplane\nautomobile\n\n");
  const nlohmann::json yaml = {
      {"type", "cifar"}, {"path", folder_.string()}, {"normalize", "none"}, {"validation", 0}};
  const auto source = build(yaml);
  const auto train = all_of(*source->part(Part::kTrain));
  EXPECT_EQ(train.input.sizes(), (std::vector<int64_t>{20, 3, 32, 32}));
  EXPECT_NEAR(train.input[7][0][0][0].item<double>() * 255, 7, 1e-4);
  EXPECT_EQ(source->description()["classes"][1], "automobile");
  EXPECT_EQ(source->description()["classes"].size(), 10U);
  write("test_batch.bin", records.substr(0, 3072));
  EXPECT_NE(error(yaml).find("no whole records of 3073"), std::string::npos);
  write("test_batch.bin", std::string(3073, '\x2a'));
  EXPECT_NE(error(yaml).find("a label is 42"), std::string::npos);
}

TEST_F(ImageSources, TheModelIsToldItsSizes) {
  const auto pictures = torch::zeros({4, 6, 6}, torch::kUInt8);
  write("train-images-idx3-ubyte", idx_bytes(pictures));
  write("train-labels-idx1-ubyte", idx_bytes(torch::arange(4)));
  const auto source = build({{"type", "idx"}, {"path", folder_.string()}});
  Config model = Config::parse("type: something\n");
  source->fill_model(model, Config());
  EXPECT_NE(model.yaml().find("classes: 4"), std::string::npos) << model.yaml();
}

}  // namespace
}  // namespace serpentine
