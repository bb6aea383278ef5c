#include "segmentation/predict.h"

#include <algorithm>
#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "segmentation/augment.h"
#include "segmentation/resample.h"

namespace serpentine {
namespace {

using torch::Tensor;
constexpr int64_t kSlabBytes = int64_t{128} << 20;

/// Highest in the middle, an eighth of the size wide, never zero. [d, h, w], largest value 1.
Tensor window_weights(const std::array<int64_t, 3>& size) {
  Tensor all = torch::ones({1});
  for (size_t axis = 0; axis < 3; ++axis) {
    const double sigma = static_cast<double>(size[axis]) / 8;
    const auto place =
        torch::arange(size[axis], torch::kFloat) - static_cast<double>(size[axis] - 1) / 2;
    const auto line = place.square().div(-2 * sigma * sigma).exp();
    all = axis == 0 ? line : (all.unsqueeze(-1) * line);
  }
  all = all / all.max();
  return all.clamp_min(1e-3);  // the corners must not vanish in the sum
}

int64_t slab_slices(const PredictOptions& options, int64_t classes,
                    const std::array<int64_t, 3>& size) {
  if (options.slab > 0) return options.slab;
  const int64_t slice = 3 * 4 * classes * size[1] * size[2];  // the values and two copies
  return std::clamp<int64_t>(kSlabBytes / std::max<int64_t>(slice, 1), 1, size[0]);
}

/// Takes finished slices of outputs in their sequence, and decides labels of the target grid.
class LabelSink {
 public:
  LabelSink(const SegmentationPlan& plan, std::array<int64_t, 3> from, std::array<int64_t, 3> to,
            int64_t coarse, int64_t slab, Tensor labels)
      : plan_(plan), from_(from), to_(to), slab_(slab), labels_(std::move(labels)) {
    for (size_t axis = 0; axis < 3; ++axis) {
      taps_.push_back(
          axis_taps(from[axis], to[axis],
                    static_cast<int64_t>(axis) == coarse ? Taps::kNearest : Taps::kLinear));
    }
  }

  /// outputs: [K, n, h, w], the next n slices.
  void push(const Tensor& outputs) {
    pending_ =
        pending_.defined() && pending_.size(1) > 0 ? torch::cat({pending_, outputs}, 1) : outputs;
    have_ = first_ + pending_.size(1);
    while (next_ < to_[0]) {
      int64_t last = next_;
      while (last < to_[0] && last - next_ < slab_ &&
             taps_[0].reads(next_, last + 1).second <= have_)
        ++last;
      const bool worth = last - next_ == slab_ || last == to_[0] || have_ == from_[0];
      if (last == next_ || !worth) break;
      decide(next_, last);
      next_ = last;
    }
    if (next_ >= to_[0]) return;
    const int64_t needed = std::min(taps_[0].reads(next_, next_ + 1).first, have_);
    if (needed > first_) {
      pending_ = pending_.narrow(1, needed - first_, have_ - needed).clone();
      first_ = needed;
    }
  }

 private:
  void decide(int64_t begin, int64_t end) {
    auto x = resample_axis(pending_, 1, taps_[0], begin, end, first_);
    x = resample_axis(x, 2, taps_[1]);
    x = resample_axis(x, 3, taps_[2]);
    Tensor classes;
    if (plan_.regions) {
      classes = torch::zeros(x.sizes().slice(1), x.options().dtype(torch::kInt));
      for (int64_t k = 0; k < x.size(0); ++k)
        classes.bitwise_or_(x[k].gt(0).to(torch::kInt).mul(int64_t{1} << k));
    } else {
      classes = x.argmax(0).to(torch::kInt);
    }
    labels_.narrow(0, begin, end - begin).copy_(to_values(plan_, classes.cpu()));
  }

  const SegmentationPlan& plan_;
  std::array<int64_t, 3> from_, to_;
  int64_t slab_;
  Tensor labels_;
  std::vector<AxisTaps> taps_;
  Tensor pending_;
  int64_t first_ = 0, have_ = 0, next_ = 0;
};

/// Mean output of all models and mirrors. windows: [B, C, d, h, w] -> [B, K, d, h, w].
Tensor outputs_of(const std::vector<std::shared_ptr<Model>>& models, const SegmentationPlan& plan,
                  const Tensor& windows, bool mirror) {
  const bool flat = plan.dims == 2;
  const int64_t turns = mirror ? int64_t{1} << plan.dims : 1;
  Tensor sum;
  for (int64_t turn = 0; turn < turns; ++turn) {
    std::vector<int64_t> axes;
    for (int64_t axis = 0; axis < plan.dims; ++axis)
      if ((turn >> axis & 1) != 0) axes.push_back(axis + 2);
    Batch batch;
    batch.input = flat ? windows.squeeze(2) : windows;
    if (!axes.empty()) batch.input = batch.input.flip(axes);
    for (const auto& model : models) {
      auto output = model->forward(batch).to(torch::kFloat);
      if (!axes.empty()) output = output.flip(axes);
      if (sum.defined()) {
        sum.add_(output);
      } else {
        sum = output.clone();
      }
    }
  }
  sum.div_(static_cast<double>(turns) * static_cast<double>(models.size()));
  return flat ? sum.unsqueeze(2) : sum;
}

std::array<int64_t, 3> padded_size(const SegmentationPlan& plan,
                                   const std::array<int64_t, 3>& size) {
  std::array<int64_t, 3> padded{};
  for (size_t axis = 0; axis < 3; ++axis) padded[axis] = std::max(size[axis], plan.patch[axis]);
  return padded;
}

/// Sums of weighed outputs for the slices under the current row of windows.
class RollingSums {
 public:
  RollingSums(int64_t classes, const std::array<int64_t, 3>& size, int64_t depth,
              torch::Device device)
      : sums_(torch::zeros({classes, depth, size[1], size[2]}, device)),
        weights_(torch::zeros({depth, size[1], size[2]}, device)) {}

  void add(const Tensor& output, const Tensor& weights, const std::array<int64_t, 3>& first) {
    const auto part = [&](const Tensor& of, int64_t axis) {
      return of.narrow(axis, first[0] - begin_, output.size(1))
          .narrow(axis + 1, first[1], output.size(2))
          .narrow(axis + 2, first[2], output.size(3));
    };
    part(sums_, 1).addcmul_(output, weights);
    part(weights_, 0).add_(weights);
  }

  /// Gives the mean outputs of slices [begin, until), which get no more windows, as [K, n, H, W] of
  /// at most `chunk` slices with the first one's number; then makes room.
  void drain(int64_t until, int64_t chunk,
             const std::function<void(const Tensor&, int64_t first)>& use) {
    const int64_t count = until - begin_, rest = sums_.size(1) - count;
    for (int64_t z = 0; z < count; z += chunk) {
      const int64_t n = std::min(chunk, count - z);
      use(sums_.narrow(1, z, n) / weights_.narrow(0, z, n), begin_ + z);
    }
    begin_ = until;
    for (int64_t z = 0; z < rest; ++z) {  // slice by slice, for source and target overlap
      sums_.select(1, z).copy_(sums_.select(1, z + count));
      weights_.select(0, z).copy_(weights_.select(0, z + count));
    }
    sums_.narrow(1, rest, count).zero_();
    weights_.narrow(0, rest, count).zero_();
  }

 private:
  Tensor sums_, weights_;
  int64_t begin_ = 0;
};

}  // namespace

std::vector<int64_t> window_starts(int64_t size, int64_t window, double step) {
  if (size <= window) return {0};
  const double wanted = std::max(1.0, static_cast<double>(window) * step);
  const auto count =
      static_cast<int64_t>(std::ceil(static_cast<double>(size - window) / wanted)) + 1;
  std::vector<int64_t> starts;
  for (int64_t i = 0; i < count; ++i) {
    starts.push_back(std::llround(static_cast<double>(size - window) * static_cast<double>(i) /
                                  static_cast<double>(count - 1)));
  }
  return starts;
}

void write_prediction(const std::string& file, const Tensor& labels, const SegmentationPlan& plan,
                      const Volume& volume) {
  if (!(plan.label_scale > 0)) return write_labels(file, labels, volume);
  const double most = static_cast<double>(labels.numel() > 0 ? labels.max().item<int64_t>() : 0);
  const auto type = most * plan.label_scale > 255 ? torch::kInt : torch::kByte;
  auto scaled = torch::empty(labels.sizes(), type);
  for (int64_t z = 0; z < labels.size(0); ++z)  // by slices: each step makes a copy
    scaled[z].copy_(labels[z].to(torch::kDouble).mul(plan.label_scale).round());
  write_labels(file, scaled, volume);
}

Tensor read_prediction(const std::string& file, const Volume& volume, double scale) {
  auto labels = read_labels(file, volume);
  if (!(scale > 0) || labels.numel() == 0) return labels;
  if (static_cast<double>(labels.max().item<int64_t>()) < scale / 2) return labels;
  for (int64_t z = 0; z < labels.size(0); ++z)
    labels[z].copy_(labels[z].to(torch::kDouble).div(scale).round());
  return labels;
}

PredictMemory predict_memory(const SegmentationPlan& plan, const Volume& volume,
                             const PredictOptions& options) {
  const Box box = nonzero_box(volume.data);
  const auto size = padded_size(plan, prepared_size(plan, volume, box)), whole = volume.size();
  PredictMemory memory;
  memory.image = 4 * plan.in_channels * size[0] * size[1] * size[2];
  memory.preparing = memory.image + 4 * volume.data.numel() + 2 * whole[0] * whole[1] * whole[2];
  // the input, the outputs, their mirrored copy and their sum
  memory.windows_now = 4 * options.batch * (plan.in_channels + 3 * plan.classes) * plan.patch[0] *
                       plan.patch[1] * plan.patch[2];
  memory.sums = 4 * (plan.classes + 1) * plan.patch[0] * size[1] * size[2];
  // a slab of the file's grid, and the slices that it was resampled from
  memory.slab = 3 * 4 * plan.classes *
                (slab_slices(options, plan.classes, box.size()) * whole[1] * whole[2] +
                 slab_slices(options, plan.classes, size) * size[1] * size[2]);
  memory.labels = whole[0] * whole[1] * whole[2] * 2;  // and the non-zero mask
  memory.windows = 1;
  for (size_t axis = 0; axis < 3; ++axis) {
    memory.windows *=
        static_cast<int64_t>(window_starts(size[axis], plan.patch[axis], options.step).size());
  }
  return memory;
}

Tensor predict_volume(const std::vector<std::shared_ptr<Model>>& models,
                      const SegmentationPlan& plan, Volume& volume, torch::Device device,
                      const PredictOptions& options, bool keep) {
  const torch::NoGradGuard no_grad;
  SERPENTINE_CHECK(!models.empty(), "predict_volume", "no model was given");
  const auto whole = volume.size();
  const Box box = nonzero_box(volume.data);
  const int64_t coarse = coarse_axis_of(plan, volume);
  auto image = prepare_image(plan, volume, box);
  if (!keep) volume.data = torch::Tensor();
  const std::array<int64_t, 3> size = {image.size(1), image.size(2), image.size(3)};
  const auto padded = padded_size(plan, size);
  std::array<int64_t, 3> before{};  // cases smaller than a window lie in its middle
  for (size_t axis = 0; axis < 3; ++axis) before[axis] = -(padded[axis] - size[axis]) / 2;
  image = plain_patch(image, {}, padded, before).image;

  int64_t most = 0;
  for (const auto& text : plan.values)
    if (text.find('+') == std::string::npos) most = std::max<int64_t>(most, std::stoll(text));
  for (const int64_t value : plan.region_order) most = std::max(most, value);
  const auto type = most > 255 ? torch::kShort : torch::kByte;
  auto labels = torch::zeros({whole[0], whole[1], whole[2]}, type);
  auto inside = cropped(labels, box);
  LabelSink sink(plan, size, box.size(), coarse, slab_slices(options, plan.classes, box.size()),
                 inside);

  const std::array<int64_t, 3> window = {plan.patch[0], plan.patch[1], plan.patch[2]};
  const auto weights = window_weights(window).to(device);
  RollingSums sums(plan.classes, padded, window[0], device);
  std::array<std::vector<int64_t>, 3> starts;
  for (size_t axis = 0; axis < 3; ++axis)
    starts[axis] = window_starts(padded[axis], window[axis], options.step);
  const auto all = static_cast<int64_t>(starts[0].size() * starts[1].size() * starts[2].size());

  int64_t done = 0;
  const int64_t chunk = slab_slices(options, plan.classes, size);
  const auto emit = [&](int64_t until) {
    sums.drain(until, chunk, [&](const Tensor& slices, int64_t begin) {
      // without what was padded
      const int64_t first = std::max(begin, -before[0]),
                    last = std::min(begin + slices.size(1), size[0] - before[0]);
      if (last <= first) return;
      sink.push(slices.narrow(1, first - begin, last - first)
                    .narrow(2, -before[1], size[1])
                    .narrow(3, -before[2], size[2]));
    });
  };
  std::vector<std::array<int64_t, 3>> waiting;
  const auto flush = [&] {
    std::vector<Tensor> windows;
    for (const auto& first : waiting)
      windows.push_back(plain_patch(image, {}, window, first).image);
    if (windows.empty()) return;
    const auto outputs = outputs_of(models, plan, torch::stack(windows).to(device), options.mirror);
    for (size_t i = 0; i < waiting.size(); ++i)
      sums.add(outputs[static_cast<int64_t>(i)], weights, waiting[i]);
    done += static_cast<int64_t>(waiting.size());
    waiting.clear();
    if (options.progress) options.progress(done, all);
  };
  for (size_t row = 0; row < starts[0].size(); ++row) {
    if (row > 0) emit(starts[0][row]);
    for (const int64_t y : starts[1]) {
      for (const int64_t x : starts[2]) {
        waiting.push_back({starts[0][row], y, x});
        if (static_cast<int64_t>(waiting.size()) >= options.batch) flush();
      }
    }
    flush();
  }
  emit(padded[0]);
  return labels;
}

}  // namespace serpentine
