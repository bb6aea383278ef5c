#include "core/io/safetensors.h"

#include <torch/torch.h>

#include <cstring>

#include "core/io/files.h"

namespace serpentine {
namespace {

class SafeTensorsTest : public FolderTest {
 protected:
  /// A file of this header and so many data bytes.
  std::string file(const std::string& header, size_t data) const {
    const uint64_t size = header.size();
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &size, 8);
    return write("x.safetensors", bytes + header + std::string(data, '\1'));
  }
  std::string error(const std::string& header, size_t data) const {
    const auto path = file(header, data);
    const auto message = error_of([&] { read_safetensors(path); });
    expect_sentence(message, path);
    return message.substr(std::min(message.size(), path.size()));
  }
};

TEST_F(SafeTensorsTest, RoundTripsEveryType) {
  StateDict tensors;
  for (const auto type :
       {torch::kFloat64, torch::kFloat32, torch::kFloat16, torch::kBFloat16, torch::kInt64,
        torch::kInt32, torch::kInt16, torch::kInt8, torch::kUInt8, torch::kBool}) {
    const torch::Tensor values = (torch::rand({3, 5}) * 100).to(type).t();
    tensors.emplace_back(std::string("t.") + c10::toString(type), values);
  }
  tensors.emplace_back("scalar", torch::tensor(2.5));
  tensors.emplace_back("empty", torch::empty({0, 7}));
  write_safetensors(at("types"), tensors, {{"format", "pt"}});
  const SafeTensors read = read_safetensors(at("types"));
  EXPECT_EQ(read.metadata.at("format"), "pt");
  ASSERT_EQ(read.tensors.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(read.tensors[i].first, tensors[i].first);
    EXPECT_EQ(read.tensors[i].second.scalar_type(), tensors[i].second.scalar_type());
    EXPECT_TRUE(torch::equal(read.tensors[i].second, tensors[i].second)) << tensors[i].first;
    EXPECT_TRUE(read.tensors[i].second.is_contiguous());
  }
}

TEST_F(SafeTensorsTest, ReadsTheDocumentedBytes) {
  const auto path = file(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 2);
  const auto read = read_safetensors(path).tensors;
  ASSERT_EQ(read.size(), 1U);
  EXPECT_TRUE(torch::equal(read[0].second, torch::ones({2}, torch::kUInt8)));
}

TEST_F(SafeTensorsTest, TruncatedAtAnyByteIsRefused) {
  write_safetensors(at("whole"), {{"a", torch::arange(6)}, {"b", torch::ones({2, 2})}});
  const std::string whole = read_bytes(at("whole"));
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto path = write("cut", whole.substr(0, size));
    expect_sentence(error_of([&] { read_safetensors(path); }), path);
  }
  const auto longer = write("longer", whole + "x");
  expect_sentence(error_of([&] { read_safetensors(longer); }), longer);
}

TEST_F(SafeTensorsTest, BitFlipsInTheHeaderNeverCrash) {
  write_safetensors(at("whole"), {{"a", torch::arange(6)}, {"b", torch::ones({2, 2})}});
  const std::string whole = read_bytes(at("whole"));
  const size_t header = 8 + static_cast<uint8_t>(whole[0]);
  for (size_t bit = 0; bit < 8 * header; ++bit) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const auto path = write("flipped", flipped);
    const auto message = error_of([&] { read_safetensors(path); });
    if (message != "no error") expect_sentence(message, path);  // a flipped name is still a name
  }
}

TEST_F(SafeTensorsTest, RefusesWrongHeaders) {
  EXPECT_EQ(error("[]", 0), ": the header is not a JSON object");
  EXPECT_NE(error("{", 0).find("not valid JSON"), std::string::npos);
  EXPECT_EQ(error(R"({"a":{"dtype":"F4","shape":[],"data_offsets":[0,4]}})", 4),
            ": tensor 'a': the dtype \"F4\" is not supported");
  EXPECT_EQ(error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4),
            ": tensor 'a': shape [2] of F32 needs 8 bytes, but data_offsets are [0,4]");
  EXPECT_EQ(error(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4),
            ": tensor 'a': shape must hold non-negative integers, got -1");
  EXPECT_EQ(error(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})", 4),
            ": tensor 'a' ends at byte 8 of the data, but the file has only 4");
  EXPECT_EQ(error(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                  R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                  3),
            ": tensor 'b' begins at byte 1 of the data, but the one before ends at 2");
  EXPECT_EQ(error(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                  2),
            ": the header names 'a' twice");
  EXPECT_EQ(error(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 3),
            ": the tensors end at byte 1 of the data, but the file has 3");
  EXPECT_EQ(error(R"({"__metadata__":{"a":1}})", 0), ": __metadata__ must map text to text");
}

TEST_F(SafeTensorsTest, ProductsBeyond64BitsAreRefused) {
  EXPECT_NE(
      error(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0)
          .find("too many elements"),
      std::string::npos);
  EXPECT_NE(
      error(R"({"a":{"dtype":"F32","shape":[9223372036854775807,3,0],"data_offsets":[0,0]}})", 0)
          .find("too many elements"),
      std::string::npos);
  const auto path = write("huge", std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10));
  EXPECT_NE(error_of([&] { read_safetensors(path); }).find("the header claims"), std::string::npos);
}

TEST_F(SafeTensorsTest, RefusesToWriteANameTwice) {
  const StateDict twice = {{"a", torch::ones(1)}, {"a", torch::ones(1)}};
  EXPECT_NE(error_of([&] { write_safetensors(at("x"), twice); }).find("'a' is given twice"),
            std::string::npos);
  EXPECT_EQ(count_files(), 0U);
}

}  // namespace
}  // namespace serpentine
