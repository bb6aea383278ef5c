// Point Cloud Mamba: classes of clouds, parts of shapes, and classes of a scene's points.
//
// Zhang et al., arXiv 2403.00762. Keys as SkyworkAI/PointCloudMamba's BaseCls, BasePartSeg and
// BaseSeg.
#include <torch/torch.h>

#include "pointcloud/pcm_decoder.h"
#include "pointcloud/pointcloud.h"
#include "pointcloud/scene_crops.h"

namespace serpentine {
namespace {

struct PcmClsOptions : PcmEncoderOptions {
  int64_t classes = 40;
  std::vector<int64_t> head = {512, 256};
  double head_dropout = 0.5;
  bool head_norm = true;
  void fields(Fields& f) {
    PcmEncoderOptions::fields(f);
    f("classes", classes, "classes of clouds", {.least = 1});
    f("head", head, "channels of the head's hidden layers", {.least = 1});
    f("head_dropout", head_dropout, "after each hidden layer", {.least = 0, .most = 0.99});
    f("head_norm", head_norm, "batch norm in the head");
  }
};

struct PcmSegOptions : PcmEncoderOptions {
  PcmDecoderOptions decoder;
  int64_t classes = 13;
  std::vector<int64_t> head;  // empty: one hidden layer as wide as its input
  double head_dropout = 0.5;
  bool head_norm = true;
  std::vector<std::string> global_features = {"max", "avg"};
  int64_t most_points = 24576;

  void fields(Fields& f) {
    PcmEncoderOptions::fields(f);
    f.group("decoder", decoder, "back to every point");
    f("classes", classes, "classes of points", {.least = 1});
    f("head", head, "channels of the head's hidden layers; empty: one, as wide as its input",
      {.least = 1});
    f("head_dropout", head_dropout, "after each hidden layer", {.least = 0, .most = 0.99});
    f("head_norm", head_norm, "batch norm in the head");
    f("global_features", global_features, "the cloud's own statistics beside each point",
      {.choices = {"max", "avg"}});
    f("most_points", most_points,
      "larger scenes are cut into pieces when not training (pcm_semseg)", {.least = 1});
  }
};

class PcmCls : public Model {
 public:
  explicit PcmCls(const PcmClsOptions& options) : encoder_(options) {
    register_module("encoder", encoder_);
    const auto prediction = register_module(
        "prediction", PointHead(encoder_->options.width(encoder_->options.stages() - 1),
                                options.classes, head_options(options)));
    head_ = prediction;
  }

  torch::Tensor forward(const Batch& batch) override {  // [B, classes]
    encoder_->trace = trace;
    return head_->forward(encoder_->pooled(batch.input, batch.get("features")));
  }

 private:
  static PointHeadOptions head_options(const PcmClsOptions& options) {
    PointHeadOptions head;
    head.widths = options.head;
    head.dropout = options.head_dropout;
    head.norm = options.head_norm;
    head.linear = true;
    return head;
  }
  PcmEncoder encoder_;
  PointHead head_{nullptr};
};

/// Keys `head.head.*` over the decoder's features and the cloud's own statistics of them.
class SegHeadImpl : public PointHeadImpl {
 public:
  SegHeadImpl(int64_t in, const PcmSegOptions& options)
      : PointHeadImpl(width(in, options), options.classes, head_options(in, options)),
        statistics_(options.global_features) {}

  torch::Tensor forward(const torch::Tensor& x) {  // [B, N, C] -> [B, N, classes]
    std::vector<torch::Tensor> parts = {x};
    for (const auto& name : statistics_) {
      const auto statistic =
          name == "max" ? std::get<0>(x.max(1, /*keepdim=*/true)) : x.mean(1, /*keepdim=*/true);
      parts.push_back(statistic.expand_as(x));
    }
    return PointHeadImpl::forward(parts.size() == 1 ? x : torch::cat(parts, 2));
  }

 private:
  static int64_t width(int64_t in, const PcmSegOptions& options) {
    return in * (1 + static_cast<int64_t>(options.global_features.size()));
  }
  static PointHeadOptions head_options(int64_t in, const PcmSegOptions& options) {
    PointHeadOptions head;
    head.widths = options.head.empty() ? std::vector<int64_t>{width(in, options)} : options.head;
    head.dropout = options.head_dropout;
    head.norm = options.head_norm;
    return head;
  }
  std::vector<std::string> statistics_;
};
TORCH_MODULE(SegHead);

class PcmSeg : public Model {
 public:
  PcmSeg(const PcmSegOptions& options, bool of_parts)
      : of_parts_(of_parts),
        most_points_(options.most_points),
        encoder_(options),
        decoder_(decoder_options(options, of_parts), encoder_->options),
        head_(decoder_->out_channels(), options) {
    register_module("encoder", encoder_);
    register_module("decoder", decoder_);
    register_module("head", head_);
  }

  torch::Tensor forward(const Batch& batch) override {  // [B, N, classes]
    const torch::Tensor &points = batch.input, features = batch.get("features");
    if (of_parts_) return segment(points, features, batch.get("shape_class"));
    if (is_training() || points.size(1) <= most_points_) return segment(points, features, {});
    return by_crops(points, features, most_points_,
                    [&](const torch::Tensor& some, const torch::Tensor& theirs) {
                      return segment(some, theirs, {});
                    });
  }

 private:
  static PcmDecoderOptions decoder_options(const PcmSegOptions& options, bool of_parts) {
    PcmDecoderOptions decoder = options.decoder;
    if (!of_parts) decoder.shape_classes = 0;
    return decoder;
  }

  torch::Tensor segment(const torch::Tensor& points, const torch::Tensor& features,
                        const torch::Tensor& shape_class) {
    encoder_->trace = trace;
    return head_(decoder_(encoder_(points, features), shape_class));
  }

  bool of_parts_;
  int64_t most_points_;
  PcmEncoder encoder_;
  PcmDecoder decoder_;
  SegHead head_;
};

}  // namespace

void add_pcm(Registry<Model>& all) {
  all.add<PcmClsOptions>(
      "pcm_cls", [](const PcmClsOptions& options) { return std::make_shared<PcmCls>(options); });
  all.add<PcmSegOptions>("pcm_partseg", [](const PcmSegOptions& options) {
    return std::make_shared<PcmSeg>(options, true);
  });
  all.add<PcmSegOptions>("pcm_semseg", [](const PcmSegOptions& options) {
    return std::make_shared<PcmSeg>(options, false);
  });
}

}  // namespace serpentine
