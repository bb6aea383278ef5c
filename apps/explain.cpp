// serpentine explain: which parts of a picture an image model's answer rests on.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include <torch/torch.h>
#include <CLI/CLI.hpp>

#include "apps/command.h"
#include "apps/image_run.h"
#include "apps/trained.h"
#include "core/check.h"
#include "core/io/image.h"
#include "vision/image_model.h"

namespace serpentine {
namespace {

constexpr const char* kExplainFooter =
    R"(Writes NAME.explain.png: the picture as the model sees it; the relevance of its tokens (gradient
times input of the answer's logit, summed over a token's pixels; red speaks for the answer, blue
against); and the effective receptive field, how much each pixel moves the middle of the last map.
Example:
  serpentine explain runs/flowers photos/a.jpg photos/b.jpg --out explained
  serpentine explain runs/flowers a.jpg --class tulip)";

struct ExplainArguments {
  std::string run, out, category, device = "auto";
  std::vector<std::string> images;
  int64_t token = 0, tile = 320;
};

/// The scale that maps differ by: image side over the side of the model's first map, at least 1.
int64_t token_side(ImageModel* model, const torch::Tensor& image) {
  if (model == nullptr) return 8;
  const torch::NoGradGuard no_grad;
  const auto maps = model->forward_maps(image);
  return std::max<int64_t>(1, image.size(2) / std::max<int64_t>(1, maps.front().size(2)));
}

/// Gradient x input of one logit, summed over channels and over the pixels of each token: [H, W].
torch::Tensor relevance(Model& model, const torch::Tensor& image, int64_t category, int64_t side) {
  Batch batch;
  batch.input = image.clone().requires_grad_(true);
  const auto logit = model.forward(batch)[0][category];
  const auto gradient = torch::autograd::grad({logit}, {batch.input})[0];
  const auto product = (gradient * image).sum(1, /*keepdim=*/true);  // [1, 1, H, W]
  const int64_t height = product.size(2), width = product.size(3);
  const auto tokens =
      torch::avg_pool2d(product, {side, side}, {side, side}, {0, 0}, /*ceil_mode=*/true);
  const auto pixels = tokens.repeat_interleave(side, 2).repeat_interleave(side, 3);
  return pixels[0][0].slice(0, 0, height).slice(1, 0, width);
}

/// How much each pixel moves the middle of the last map (Luo et al., arXiv 1701.04128): [H, W], or
/// undefined for models without maps.
torch::Tensor receptive_field(ImageModel* model, const torch::Tensor& image) {
  if (model == nullptr) return {};
  const auto input = image.clone().requires_grad_(true);
  const auto map = model->forward_maps(input).back();
  const auto middle = map.select(3, map.size(3) / 2).select(2, map.size(2) / 2).clamp_min(0).sum();
  const auto gradient = torch::autograd::grad({middle}, {input})[0];
  return gradient.abs().sum(1)[0];
}

/// Values around zero as blue, white, red over the grey picture.
torch::Tensor over_picture(const torch::Tensor& picture, const torch::Tensor& values) {
  const auto scale = torch::quantile(values.abs().flatten(), 0.99).clamp_min(1e-12);
  const auto level = (values / scale).clamp(-1, 1).unsqueeze(2);
  const auto grey = picture.to(torch::kFloat32).mean(2, true).expand({-1, -1, 3}) * 0.5 + 110;
  const auto red = torch::tensor({214.0f, 40.0f, 40.0f}),
             blue = torch::tensor({40.0f, 80.0f, 214.0f});
  const auto colour = torch::where(level > 0, red, blue);
  const auto weight = level.abs().sqrt() * 0.8;
  return (grey * (1 - weight) + colour * weight).clamp(0, 255).to(torch::kUInt8).contiguous();
}

torch::Tensor field_picture(const torch::Tensor& field) {
  const auto log = (field / field.max().clamp_min(1e-20)).clamp_min(1e-4).log10();  // 4 decades
  return colour_map(1 + log / 4, "turbo");
}

int64_t class_of(const ExplainArguments& arguments, const ImageRun& run,
                 const torch::Tensor& logits) {
  if (arguments.category.empty()) return logits.argmax(1).item<int64_t>();
  const auto& names = run.schema.classes;
  const auto found = std::find(names.begin(), names.end(), arguments.category);
  if (found == names.end()) {
    const std::string near = nearest(arguments.category, names);
    throw UsageError("explain: there is no class '" + arguments.category + "'" +
                     (near.empty() ? "" : "; did you mean '" + near + "'?"));
  }
  return found - names.begin();
}

int run_explain(const ExplainArguments& arguments) {
  const ImageRun run = open_image_run(all_packages(), arguments.run, arguments.device);
  TORCH_CHECK(images_available(),
              "explain: pictures cannot be drawn: this build has no OpenCV (configure with "
              "-DSERPENTINE_OPENCV=ON)");
  for (auto& parameter : run.model->parameters()) parameter.requires_grad_(false);
  auto* model = dynamic_cast<ImageModel*>(run.model.get());
  const auto images = picture_files(run, arguments.images);
  if (!arguments.out.empty()) make_folder(arguments.out);
  int64_t drawn = 0;
  for (int64_t i = 0; i < images->size(); ++i) {
    Batch batch = images->get_batch({i});
    if (batch.size() == 0) continue;  // said on stderr
    const auto image = batch.input.to(run.device);
    batch.input = image;
    const auto logits = run.model->forward(batch).to(torch::kFloat32);
    const int64_t category = class_of(arguments, run, logits);
    const double chance = torch::softmax(logits, 1)[0][category].item<double>();
    const int64_t side = arguments.token > 0 ? arguments.token : token_side(model, image);
    const auto seen = to_picture(image[0], run.schema.view);
    char caption[96];
    std::snprintf(caption, sizeof caption, "%s %.0f %%",
                  run.schema.classes[static_cast<size_t>(category)].substr(0, 24).c_str(),
                  100 * chance);
    std::vector<torch::Tensor> tiles = {
        seen, over_picture(seen, relevance(*run.model, image, category, side).to(torch::kCPU))};
    std::vector<std::string> captions = {caption, "relevance of tokens"};
    if (const auto field = receptive_field(model, image); field.defined()) {
      tiles.push_back(field_picture(field.to(torch::kCPU)));
      captions.push_back("receptive field, 4 decades");
    }
    const std::filesystem::path file = images->name(i);
    const auto folder =
        arguments.out.empty() ? file.parent_path() : std::filesystem::path(arguments.out);
    const std::string path = (folder / (file.stem().string() + ".explain.png")).string();
    write_image(path,
                contact_sheet(tiles, captions, static_cast<int64_t>(tiles.size()), arguments.tile));
    std::cout << path << "\n";
    ++drawn;
  }
  TORCH_CHECK(drawn > 0, arguments.images.front(), ": none of the pictures could be read");
  return 0;
}

}  // namespace

void add_explain_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("explain", "Which parts of a picture an answer rests on");
  command->footer(kExplainFooter);
  auto arguments = std::make_shared<ExplainArguments>();
  command->add_option("RUN", arguments->run, "Folder of a finished training on images")->required();
  command->add_option("IMAGES", arguments->images, "Pictures, or folders of them")->required();
  command->add_option("--out", arguments->out,
                      "Folder of the results (default: beside the pictures)");
  command->add_option("--class", arguments->category, "Explain this class (default: the answer)");
  command
      ->add_option("--token", arguments->token, "Pixels of a token's side (default: the model's)")
      ->check(CLI::Range(int64_t{1}, int64_t{1024}));
  command->add_option("--tile", arguments->tile, "Pixels of each part of the result")
      ->check(CLI::Range(int64_t{32}, int64_t{4096}))
      ->capture_default_str();
  command->add_option("--device", arguments->device, "auto, cpu or cuda");
  command->callback(
      [&action, arguments] { action = [arguments] { return run_explain(*arguments); }; });
}

}  // namespace serpentine
