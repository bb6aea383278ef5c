// Cases, classes and channels of a dataset.json.
#include <algorithm>
#include <fstream>
#include <map>

#include <nlohmann/json.hpp>

#include "segmentation/case_group.h"
#include "segmentation/case_lists.h"
#include "segmentation/file_error.h"
#include "segmentation/text_header.h"

namespace serpentine {
namespace {

namespace fs = std::filesystem;
using OrderedJson = nlohmann::ordered_json;  // regions are written in their sequence

constexpr int64_t kMostValue = 32767;  // that label files are written with

OrderedJson read_dataset(const fs::path& file) {
  std::ifstream stream(file);
  OrderedJson json;
  try {
    json = OrderedJson::parse(stream);
  } catch (const OrderedJson::parse_error& error) {
    const std::string what = error.what();
    const auto end = what.find("] ");
    fail_file(file, "is not JSON: " + (end == std::string::npos ? what : what.substr(end + 2)));
  }
  if (!json.is_object()) fail_file(file, "is not a JSON object");
  return json;
}

bool is_number(const std::string& text) {
  return !text.empty() && text.size() < 10 &&
         std::all_of(
             text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

/// A label's value, also one that was written as text.
int64_t value_of(const fs::path& file, const std::string& key, const OrderedJson& json) {
  int64_t value = -1;
  if (json.is_number_integer()) {
    value = json.get<int64_t>();
  } else if (json.is_string() && is_number(json.get<std::string>())) {
    value = std::stoll(json.get<std::string>());
  } else {
    fail_file(file, "`" + key + "` must be a whole number, got " + json.dump());
  }
  if (value < 0 || value > kMostValue) {
    fail_file(file, "`" + key + "` must be from 0 to " + std::to_string(kMostValue) + ", got " +
                        json.dump());
  }
  return value;
}

std::vector<int64_t> values_of(const fs::path& file, const std::string& key,
                               const OrderedJson& json) {
  if (!json.is_array() || json.empty())
    fail_file(file, "`" + key + "` must be a list of whole numbers, got " + json.dump());
  std::vector<int64_t> values;
  for (const auto& one : json) values.push_back(value_of(file, key, one));
  return values;
}

void check_single_values(const fs::path& file, const CaseList& list) {
  std::map<int64_t, std::string> names;
  for (const auto& one : list.classes) {
    const auto [at, added] = names.emplace(one.values.at(0), one.name);
    if (!added) {
      fail_file(file, "`labels` gives '" + at->second + "' and '" + one.name + "' the same value " +
                          std::to_string(at->first));
    }
  }
  if (names.count(0) == 0) fail_file(file, "`labels` has no background (the value 0)");
}

/// nnU-Net: names to values, regions to lists of values; the Decathlon: values to names.
void read_classes(const fs::path& file, const OrderedJson& json, CaseList& list) {
  if (!json.contains("labels") || !json["labels"].is_object())
    fail_file(file, "has no object `labels`");
  for (const auto& [key, value] : json["labels"].items()) {
    const std::string place = "labels." + key;
    LabelClass found;
    if (value.is_array()) {
      found = {key, values_of(file, place, value)};
      list.regions = list.regions || lower_case(key) != "ignore";
    } else if (value.is_string() && is_number(key)) {
      found = {value.get<std::string>(), {value_of(file, place, OrderedJson(key))}};
    } else if (value.is_number() || value.is_string()) {
      found = {key, {value_of(file, place, value)}};
    } else {
      fail_file(file, "label '" + key + "' is neither a name with a value nor a value with a name");
    }
    if (lower_case(found.name) == "ignore") {
      list.ignore = found.values.at(0);
    } else {
      list.classes.push_back(std::move(found));
    }
  }
  if (!list.regions) {
    std::sort(list.classes.begin(), list.classes.end(),
              [](const auto& a, const auto& b) { return a.values < b.values; });
    return check_single_values(file, list);
  }
  std::erase_if(list.classes,
                [](const auto& one) { return one.values == std::vector<int64_t>{0}; });
  if (!json.contains("regions_class_order"))
    fail_file(file, "has regions but no `regions_class_order`");
  list.region_order = values_of(file, "regions_class_order", json["regions_class_order"]);
  if (list.region_order.size() != list.classes.size())
    fail_file(file, "`regions_class_order` needs one value a region");
}

void read_channels_of(const fs::path& file, const OrderedJson& json, CaseList& list) {
  for (const std::string key : {"channel_names", "modality"}) {
    if (!json.contains(key)) continue;
    const auto& given = json[key];
    if (!given.is_object() && !given.is_array())
      fail_file(file, "`" + key + "` must be an object of numbers and names, got " + given.dump());
    std::map<int64_t, std::string> names;
    for (const auto& [number, name] : given.items()) {
      if (!is_number(number) || !name.is_string()) {
        fail_file(file, "`" + key + "` must give names to the numbers 0, 1, ..., got '" + number +
                            "': " + name.dump());
      }
      names[std::stoll(number)] = name.get<std::string>();
    }
    for (const auto& [number, name] : names) list.channels.push_back(name);
    return;
  }
}

fs::path path_of(const fs::path& file, const OrderedJson& entry, const char* key) {
  if (!entry.is_object() || !entry.contains(key) || !entry[key].is_string())
    fail_file(file,
              "an entry of `training` has no text `" + std::string(key) + "`: " + entry.dump());
  return (file.parent_path() / entry[key].get<std::string>()).lexically_normal();
}

void read_training(const fs::path& file, const OrderedJson& entries, CaseList& list) {
  for (const auto& entry : entries) {
    const auto image = path_of(file, entry, "image"), label = path_of(file, entry, "label");
    if (!fs::exists(image) || !fs::exists(label)) {
      list.notes.push_back(image.string() + ": left out, " +
                           (fs::exists(image) ? label : image).string() + " is missing");
      continue;
    }
    list.cases.push_back({"", {image.string()}, label.string(), "", ""});
  }
  name_cases(list.cases, file.string());
}

}  // namespace

CaseList cases_of_json(const fs::path& root) {
  CaseList list;
  const auto file = root / "dataset.json";
  const auto json = read_dataset(file);
  read_classes(file, json, list);
  read_channels_of(file, json, list);
  const bool listed = json.contains("training") && json["training"].is_array() &&
                      !json["training"].empty() && json["training"][0].is_object();
  const auto channels = static_cast<int64_t>(list.channels.size());
  if (listed) {
    read_training(file, json["training"], list);
  } else {
    add_pairs(list, root / "imagesTr", root / "labelsTr", channels);
  }
  if (fs::is_directory(root / "imagesTs"))
    list.unlabelled = group_images(root / "imagesTs", listed ? 1 : channels, nullptr, list.notes);
  return list;
}

}  // namespace serpentine
