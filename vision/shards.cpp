// Tar shards in the layout of WebDataset: members of one sample share the name before the first
// dot; the extension says what they are (jpg, png, ... the picture; cls or json its class).
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>

#include <nlohmann/json.hpp>

#include "core/check.h"
#include "core/io/image.h"
#include "core/io/tar.h"
#include "vision/image_source.h"
#include "vision/vision.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;

struct ShardOptions : ImageDataOptions {
  std::vector<std::string> classes;
  void fields(Fields& f) {
    ImageDataOptions::fields(f);
    f("classes", classes,
      "names of the classes; empty: those of the shards, sorted (numbers by their value)");
  }
};

/// Where a picture lies in which file.
struct Place {
  size_t file = 0;
  TarMember member;
};

class ShardImages : public ImageStore {
 public:
  ShardImages(std::vector<std::shared_ptr<InputFile>> files, std::vector<Place> places,
              int64_t channels)
      : files_(std::move(files)), places_(std::move(places)), channels_(channels) {}
  int64_t size() const override { return static_cast<int64_t>(places_.size()); }
  torch::Tensor picture(int64_t index, int64_t least_side) const override {
    const Place& place = places_[static_cast<size_t>(index)];
    const std::string bytes = files_[place.file]->read_text(place.member.size, place.member.offset);
    return decode_image(bytes, name(index), channels_ == 1 ? Pixels::kGrey : Pixels::kRgb,
                        least_side);
  }
  std::string name(int64_t index) const override {
    const Place& place = places_[static_cast<size_t>(index)];
    return files_[place.file]->path() + ":" + place.member.name;
  }

 private:
  std::vector<std::shared_ptr<InputFile>> files_;
  std::vector<Place> places_;
  int64_t channels_;
};

/// The class that a `cls` or `json` member states, as text; "" when it states none.
std::string stated_class(const std::string& bytes, bool json) {
  if (!json) {
    const size_t begin = bytes.find_first_not_of(" \t\r\n"),
                 end = bytes.find_last_not_of(" \t\r\n");
    return begin == std::string::npos ? "" : bytes.substr(begin, end - begin + 1);
  }
  const auto object = nlohmann::json::parse(bytes, nullptr, false);
  for (const char* key : {"label", "cls", "class"}) {
    if (!object.is_object() || !object.contains(key)) continue;
    if (object[key].is_string()) return object[key].get<std::string>();
    if (object[key].is_number_integer()) return std::to_string(object[key].get<int64_t>());
  }
  return "";
}

struct Sample {
  Place place;
  std::string category;
  bool has_picture = false;
};

bool is_number(const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 0 && value < 100000;
}

/// Names by themselves are sorted; numbers give every class up to the largest.
std::vector<std::string> class_names(const std::map<std::string, int64_t>& counts) {
  std::vector<std::string> names;
  int64_t most = -1;
  for (const auto& [name, count] : counts) {
    names.push_back(name);
    most = is_number(name) && most > -2 ? std::max<int64_t>(most, std::stoll(name)) : -2;
  }
  if (most < 0) return names;
  names.clear();
  for (int64_t k = 0; k <= most; ++k) names.push_back(std::to_string(k));
  return names;
}

std::vector<std::string> shard_files(const std::string& path) {
  std::vector<std::string> files;
  if (fs::is_regular_file(path)) files.push_back(path);
  if (fs::is_directory(path)) {
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
      if (entry.is_regular_file() && entry.path().extension() == ".tar")
        files.push_back(entry.path().string());
    }
  }
  SERPENTINE_CHECK(!files.empty(), path, "is neither a tar file nor a folder with *.tar shards");
  std::sort(files.begin(), files.end());
  return files;
}

/// By the shard's folder or the beginning of its name: train-0001.tar, val/0001.tar.
std::string split_of_shard(const std::string& path) {
  const std::string folder = split_name(fs::path(path).parent_path().filename().string());
  if (!folder.empty()) return folder;
  const std::string stem = fs::path(path).stem().string();
  return split_name(stem.substr(0, stem.find_first_of("-_.0123456789")));
}

LabelledImages read_shards(const ShardOptions& options) {
  LabelledImages all;
  std::vector<std::shared_ptr<InputFile>> files;
  std::vector<Sample> samples;
  std::vector<std::string> splits;
  std::map<std::string, int64_t> counts;
  int64_t incomplete = 0;
  for (const auto& path : shard_files(options.path)) {
    files.push_back(std::make_shared<InputFile>(path));
    const TarList list = list_tar(*files.back());
    if (!list.fault.empty()) all.notes.push_back(list.fault);
    std::map<std::string, Sample> of_key;
    for (const auto& member : list.members) {
      const size_t slash = member.name.rfind('/');
      const size_t dot = member.name.find('.', slash == std::string::npos ? 0 : slash + 1);
      if (dot == std::string::npos) continue;
      Sample& sample = of_key[member.name.substr(0, dot)];
      const std::string extension = member.name.substr(dot);
      if (extension == ".cls" || extension == ".json") {
        const std::string category = stated_class(
            files.back()->read_text(std::min<uint64_t>(member.size, 1 << 20), member.offset),
            extension == ".json");
        if (!category.empty()) sample.category = category;
      } else if (has_picture_extension(member.name)) {
        sample.place = {files.size() - 1, member};
        sample.has_picture = true;
      }
    }
    for (const auto& [key, sample] : of_key) {
      if (!sample.has_picture || sample.category.empty()) {
        ++incomplete;
        continue;
      }
      samples.push_back(sample);
      splits.push_back(split_of_shard(path));
      ++counts[sample.category];
    }
  }
  all.classes = options.classes.empty() ? class_names(counts) : options.classes;
  std::vector<Place> places;
  int64_t strangers = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    auto at = std::find(all.classes.begin(), all.classes.end(), samples[i].category);
    // names are given, the shards hold numbers
    if (at == all.classes.end() && is_number(samples[i].category) &&
        std::stoull(samples[i].category) < all.classes.size())
      at = all.classes.begin() + std::stoll(samples[i].category);
    if (at == all.classes.end()) {
      ++strangers;
      continue;
    }
    places.push_back(samples[i].place);
    all.labels.push_back(at - all.classes.begin());
    all.splits.push_back(splits[i]);
  }
  if (incomplete > 0)
    all.notes.push_back(std::to_string(incomplete) +
                        " samples lack a picture or a class and are left out");
  if (strangers > 0)
    all.notes.push_back(std::to_string(strangers) +
                        " samples are of classes that `classes` does not name and are left out");
  all.store = std::make_shared<ShardImages>(std::move(files), std::move(places),
                                            options.channels == 1 ? 1 : 3);
  return all;
}

}  // namespace

void add_shards(Registry<DataSource>& all) {
  all.add<ShardOptions>("shards", [](const ShardOptions& options) {
    return std::make_shared<ImageSource>(options, read_shards(options));
  });
}

}  // namespace serpentine
