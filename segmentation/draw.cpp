#include "segmentation/draw.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include <torch/torch.h>

#include "core/io/atomic_file.h"
#include "core/io/image.h"
#include "segmentation/distance.h"

namespace serpentine {
namespace {

using torch::Tensor;
constexpr int64_t kLeastSide = 320;  // small slices are enlarged

// apart for most kinds of colour blindness (Okabe and Ito)
constexpr std::array<std::array<int, 3>, 7> kColours = {{{230, 159, 0},
                                                         {86, 180, 233},
                                                         {0, 158, 115},
                                                         {240, 228, 66},
                                                         {0, 114, 178},
                                                         {213, 94, 0},
                                                         {204, 121, 167}}};

std::pair<double, double> grey_range(const Volume& image) {
  if (image.picture) return {0, image.data.max().item<double>() > 255 ? 65535. : 255.};
  auto values = image.data[0].flatten();
  if (values.numel() > 200000) values = values.slice(0, 0, values.numel(), values.numel() / 200000);
  const auto sorted = std::get<0>(values.sort());
  const auto at = [&](double share) {
    return sorted[static_cast<int64_t>(share * static_cast<double>(sorted.numel() - 1))]
        .item<double>();
  };
  const double low = at(0.005), high = at(0.995);
  return {low, high > low ? high : low + 1};
}

/// z runs to the head and y to the front: rows from the front, as radiologists look at slices.
Tensor upright(const Tensor& slice, const Volume& image) {
  return image.picture || !image.header ? slice : slice.flip(-2);
}

constexpr int64_t kStrip = 22;  // pixels of a line of text

/// `text` in white on black, `width` pixels wide.
Tensor strip_of(const std::string& text, int64_t width) {
  auto strip = torch::zeros({kStrip, width, 3}, torch::kByte);
  draw_text(strip, 6, kStrip - 7, text, {255, 255, 255}, 0.45);
  return strip;
}

/// The image, prediction and truth of a slice side by side. Small slices are enlarged first, so
/// that outlines are fine whatever the voxels' size.
Tensor panels(const Volume& image, const Tensor& guess, const Tensor& truth, int64_t z, double low,
              double high) {
  const auto slice = upright(image.data.select(1, z), image);
  const int64_t rows = slice.size(1), columns = slice.size(2), least = std::min(rows, columns);
  const double ratio = image.spacing[1] / image.spacing[2];
  const auto scale = static_cast<double>(std::max<int64_t>(1, (kLeastSide + least - 1) / least));
  const auto height = std::llround(static_cast<double>(rows) * scale * std::max(1., ratio)),
             width = std::llround(static_cast<double>(columns) * scale * std::max(1., 1 / ratio));
  const auto fine = [&](const Tensor& picture, Resampling how) {
    return resize_image(picture.contiguous(), height, width, how);
  };
  const auto grey = fine(overlay(slice, torch::zeros({rows, columns}, torch::kInt), low, high),
                         Resampling::kCubic);
  const auto colours = grey.permute({2, 0, 1}).to(torch::kFloat);
  const auto labelled = [&](const Tensor& labels) {
    const auto values = upright(labels[z], image).to(torch::kUInt16).unsqueeze(-1);
    return overlay(colours, fine(values, Resampling::kNearest).squeeze(-1).to(torch::kInt), 0, 255);
  };
  const std::pair<const char*, Tensor> parts[] = {
      {"image", grey}, {"predicted", labelled(guess)}, {"truth", labelled(truth)}};
  std::vector<Tensor> row;
  for (const auto& [name, picture] : parts) {
    if (!row.empty()) row.push_back(torch::zeros({height + kStrip, 4, 3}, torch::kByte));
    const std::string place = row.empty() && !image.picture ? ", slice " + std::to_string(z) : "";
    row.push_back(torch::cat({strip_of(name + place, width), picture}));
  }
  return torch::cat(row, 1).contiguous();
}

std::string base64(const std::string& bytes) {
  static const char* kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t three = 0;
    for (size_t k = 0; k < 3; ++k)
      three = three << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    for (size_t k = 0; k < 4; ++k)
      text += i + k > bytes.size() ? '=' : kDigits[three >> (18 - 6 * k) & 63U];
  }
  return text;
}

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    if (c == '<') {
      safe += "&lt;";
    } else if (c == '&') {
      safe += "&amp;";
    } else {
      safe += c;
    }
  }
  return safe;
}

constexpr const char* kPage = R"(<style>
body{font:15px sans-serif;background:#111;color:#ddd;text-align:center}
img{image-rendering:pixelated;max-width:96vw;max-height:80vh}
input{width:60%}
</style>
<p>turn the wheel or move the slider</p>
<img id=i><br><input type=range id=s min=0><span id=n></span>
<script>
const s=document.getElementById('s'),i=document.getElementById('i'),n=document.getElementById('n');
s.max=slices.length-1;s.value=first;
function show(){i.src='data:image/jpeg;base64,'+slices[s.value];n.textContent=' '+(+s.value+1)+' / '+slices.length}
s.oninput=show;
i.onwheel=e=>{e.preventDefault();s.value=+s.value+(e.deltaY>0?1:-1);show()};
show();
</script>)";

int64_t worst_of(const Tensor& guess, const Tensor& truth) {
  const auto differ = guess.ne(truth).flatten(1).sum(1);
  if (differ.max().item<int64_t>() > 0) return differ.argmax().item<int64_t>();
  return truth.gt(0).flatten(1).sum(1).argmax().item<int64_t>();
}

}  // namespace

std::array<int, 3> label_colour(int64_t value) {
  return kColours[static_cast<size_t>(std::max<int64_t>(value - 1, 0) % 7)];
}

Tensor overlay(const Tensor& image, const Tensor& labels, double low, double high) {
  const auto grey =
      image.size(0) >= 3 ? image.narrow(0, 0, 3) : image.narrow(0, 0, 1).expand({3, -1, -1});
  auto picture = ((grey - low) / (high - low)).clamp(0, 1).mul(255).permute({1, 2, 0}).contiguous();
  const auto values = std::get<0>(torch::_unique(labels));
  for (int64_t i = 0; i < values.numel(); ++i) {
    const auto value = values[i].item<int64_t>();
    if (value <= 0) continue;
    const auto colour = label_colour(value);
    const auto ink = torch::tensor({colour[0], colour[1], colour[2]}, torch::kFloat);
    const auto mask = labels.eq(value);
    // two pixels of outline round a light tint, through which the image stays visible
    const auto edge = surface_of(mask.unsqueeze(0).contiguous())[0];
    const auto border = edge | surface_of((mask & ~edge).unsqueeze(0).contiguous())[0];
    const auto share =
        (mask.to(torch::kFloat) * 0.2 + border.to(torch::kFloat) * 0.8).unsqueeze(-1);
    picture = picture * (1 - share) + ink * share;
  }
  return picture.round().to(torch::kByte);
}

Tensor worst_slice(const Volume& image, const Tensor& guess, const Tensor& truth) {
  const auto [low, high] = grey_range(image);
  return panels(image, guess, truth, worst_of(guess, truth), low, high);
}

std::vector<std::string> write_case_pages(const std::string& folder, const std::string& name,
                                          const std::string& title, const Volume& image,
                                          const Tensor& guess, const Tensor& truth) {
  const auto [low, high] = grey_range(image);
  const std::string overlays = folder + "/overlays/" + name;
  std::filesystem::create_directories(overlays);
  std::string slices;
  for (int64_t z = 0; z < guess.size(0); ++z) {
    const auto picture = panels(image, guess, truth, z, low, high);
    slices += (z > 0 ? ",'" : "'") + base64(encode_image(picture, "jpg")) + "'";
    if (!(guess[z].gt(0) | truth[z].gt(0)).any().item<bool>()) continue;
    char file[32];
    std::snprintf(file, sizeof file, "/slice_%04lld.png", static_cast<long long>(z));
    write_atomically(overlays + file, encode_image(picture, "png"));
  }
  const std::string page = folder + "/" + name + ".html";
  write_atomically(page, "<!doctype html><meta charset=utf-8><title>" + escaped(title) +
                             "</title><h3>" + escaped(title) + "</h3>\n<script>const first=" +
                             std::to_string(worst_of(guess, truth)) + ",slices=[" + slices +
                             "]</script>\n" + kPage + "\n");
  return {page, overlays};
}

void write_sheet(const std::string& file, const std::vector<SheetEntry>& entries) {
  constexpr int64_t kWidth = 960;
  std::vector<Tensor> rows;
  for (const auto& entry : entries) {
    const auto& picture = entry.picture;
    const int64_t height = std::max<int64_t>(1, picture.size(0) * kWidth / picture.size(1));
    rows.push_back(strip_of(entry.caption, kWidth));
    rows.push_back(resize_image(picture, height, kWidth, Resampling::kArea));
  }
  write_image(file, torch::cat(rows).contiguous());
}

std::string box_plot_svg(const std::string& title, const std::vector<BoxGroup>& groups) {
  double low = INFINITY, high = -INFINITY;
  for (const auto& group : groups) {
    for (const double value : group.values) {
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  if (!(low <= high)) low = 0, high = 1;
  if (high - low < 1e-9) high = low + 1;
  const double pad = 0.05 * (high - low);
  low -= pad;
  high += pad;
  const double width = 120 + 110 * static_cast<double>(groups.size()), height = 360;
  const auto y = [&](double value) { return 320 - (value - low) / (high - low) * 270; };
  std::string svg;
  char line[400];
  std::snprintf(line, sizeof line,
                "<svg xmlns='http://www.w3.org/2000/svg' width='%.0f' height='%.0f' "
                "font-family='sans-serif' font-size='13'><rect width='100%%' height='100%%' "
                "fill='white'/><text x='12' y='24' font-size='16'>%s</text>\n",
                width, height, escaped(title).c_str());
  svg += line;
  for (int tick = 0; tick <= 5; ++tick) {
    const double value = low + (high - low) * tick / 5;
    std::snprintf(
        line, sizeof line,
        "<line x1='60' x2='%.0f' y1='%.1f' y2='%.1f' stroke='#ddd'/><text x='54' y='%.1f' "
        "text-anchor='end'>%.3g</text>\n",
        width - 10, y(value), y(value), y(value) + 4, value);
    svg += line;
  }
  for (size_t g = 0; g < groups.size(); ++g) {
    auto values = groups[g].values;
    const double x = 115 + 110 * static_cast<double>(g);
    std::snprintf(line, sizeof line,
                  "<text x='%.0f' y='345' text-anchor='middle'>%s (%zu)</text>\n", x,
                  escaped(groups[g].name).c_str(), values.size());
    svg += line;
    if (values.empty()) continue;
    std::sort(values.begin(), values.end());
    const auto at = [&](double share) {
      const double rank = share * static_cast<double>(values.size() - 1);
      const auto below = static_cast<size_t>(rank);
      const double above = values[std::min(below + 1, values.size() - 1)];
      return values[below] + (rank - static_cast<double>(below)) * (above - values[below]);
    };
    const double q1 = at(0.25), q2 = at(0.5), q3 = at(0.75), reach = 1.5 * (q3 - q1);
    const double least = *std::lower_bound(values.begin(), values.end(), q1 - reach);
    const double most = *(std::upper_bound(values.begin(), values.end(), q3 + reach) - 1);
    std::snprintf(line, sizeof line,
                  "<line x1='%.0f' x2='%.0f' y1='%.1f' y2='%.1f' stroke='black'/>"
                  "<rect x='%.0f' y='%.1f' width='60' height='%.1f' fill='#56b4e9' "
                  "fill-opacity='.5' stroke='black'/>"
                  "<line x1='%.0f' x2='%.0f' y1='%.1f' y2='%.1f' stroke='black' "
                  "stroke-width='2'/>\n",
                  x, x, y(least), y(most), x - 30, y(q3), std::max(0.5, y(q1) - y(q3)), x - 30,
                  x + 30, y(q2), y(q2));
    svg += line;
    for (size_t i = 0; i < values.size(); ++i) {
      std::snprintf(line, sizeof line, "<circle cx='%.1f' cy='%.1f' r='2' fill='#333'/>\n",
                    x - 12 + 24 * static_cast<double>(i % 5) / 4, y(values[i]));
      svg += line;
    }
  }
  return svg + "</svg>\n";
}

}  // namespace serpentine
