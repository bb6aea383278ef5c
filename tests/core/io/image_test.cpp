#include "core/io/image.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "core/io/files.h"

namespace serpentine {
namespace {

class Image : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!images_available()) GTEST_SKIP() << "built without OpenCV";
  }
};

torch::Tensor gradient(int64_t height, int64_t width) {
  auto out = torch::zeros({height, width, 3}, torch::kUInt8);
  out.select(2, 0).copy_(torch::arange(width).remainder(256).expand({height, width}));
  out.select(2, 2).fill_(200);
  return out;
}

TEST_F(Image, PngKeepsEveryPixelAndTheOrderOfColours) {
  const auto picture = gradient(5, 7);
  const auto bytes = encode_image(picture, "png");
  EXPECT_TRUE(torch::equal(decode_image(bytes, "memory"), picture));
}

TEST_F(Image, SixteenBitsAreKeptOnRequestAndScaledOtherwise) {
  const auto deep = torch::full({3, 4, 1}, 257 * 100, torch::kInt).to(torch::kUInt16);
  const auto bytes = encode_image(deep, "png");
  EXPECT_TRUE(torch::equal(decode_image(bytes, "memory", Pixels::kKeep), deep));
  EXPECT_TRUE(torch::equal(decode_image(bytes, "memory", Pixels::kGrey),
                           torch::full({3, 4, 1}, 100, torch::kUInt8)));
}

TEST_F(Image, AlphaIsBlendedOverWhite) {
  auto clear = torch::zeros({2, 2, 4}, torch::kUInt8);
  EXPECT_TRUE(torch::equal(decode_image(encode_image(clear, "png"), "memory"),
                           torch::full({2, 2, 3}, 255, torch::kUInt8)));
}

TEST_F(Image, ADamagedFileIsNamed) {
  const std::string bytes = encode_image(gradient(40, 40), "png").substr(0, 20);
  try {
    decode_image(bytes, "cells/a.png");
    FAIL() << "nothing thrown";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("cells/a.png"), std::string::npos) << error.what();
  }
  EXPECT_THROW(decode_image("", "empty.png"), std::runtime_error);
}

TEST_F(Image, ResizingAConstantKeepsIt) {
  const auto flat = torch::full({9, 5, 3}, 77, torch::kUInt8);
  EXPECT_TRUE(torch::equal(resize_image(flat, 4, 11), torch::full({4, 11, 3}, 77, torch::kUInt8)));
}

TEST_F(Image, ASheetHoldsEveryPicture) {
  const auto sheet = contact_sheet({gradient(10, 20), gradient(20, 10)}, {"a", "b"}, 2, 64);
  EXPECT_EQ(sheet.dim(), 3);
  EXPECT_GT((sheet != 255).sum().item<int64_t>(), 64 * 32);
}

}  // namespace
}  // namespace serpentine
