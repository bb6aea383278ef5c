#include "core/ops/mamba_mixer.h"

#include <algorithm>

#include <ATen/autocast_mode.h>
#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/mamba_mixer_passes.h"
#include "core/ops/scan_device.h"
#include "core/ops/traced_scan.h"

namespace serpentine {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Optional = std::optional<at::Tensor>;

constexpr const char* kMixerWho = "mamba_mixer";

/// What the forward pass leaves the backward one beside tensors.
struct KeptMixer : torch::CustomClassHolder {
  ScanOrder order;
  MambaMixerOptions options;
  at::ScalarType type = at::kFloat;  // of the projections
};

/// The products here choose their types themselves.
struct NoAutocast {
  c10::impl::ExcludeDispatchKeyGuard guard{c10::autocast_dispatch_keyset};
};

at::ScalarType product_type(const at::Tensor& h) {
  const auto device = h.device().type();
  const at::ScalarType type = h.scalar_type();
  if (type == at::kDouble || !at::autocast::is_autocast_enabled(device)) return type;
  return at::autocast::get_autocast_dtype(device);
}

void cast(MambaMixerArgs& args, at::ScalarType type) {
  for (at::Tensor* one : {&args.h, &args.in_proj, &args.in_bias, &args.x_proj, &args.dt_proj,
                          &args.out_proj, &args.out_bias}) {
    if (one->defined()) *one = one->to(type);
  }
  args.h = args.h.contiguous();
}

variable_list list(const MambaMixerArgs& args) {
  return {args.h,       args.in_proj, args.in_bias, args.conv, args.conv_bias, args.x_proj,
          args.dt_proj, args.dt_bias, args.A_log,   args.D,    args.out_proj,  args.out_bias};
}
constexpr size_t kOperands = 12;

MambaMixerArgs named(const variable_list& all) {
  return {all[0], all[1], all[2], all[3], all[4],  all[5],
          all[6], all[7], all[8], all[9], all[10], all[11]};
}

struct MambaMixer : torch::autograd::Function<MambaMixer> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& h,
                            const at::Tensor& in_proj, const Optional& in_bias,
                            const at::Tensor& conv, const Optional& conv_bias,
                            const at::Tensor& x_proj, const at::Tensor& dt_proj,
                            const at::Tensor& dt_bias, const at::Tensor& A_log, const at::Tensor& D,
                            const at::Tensor& out_proj, const Optional& out_bias,
                            const c10::intrusive_ptr<KeptMixer>& kept) {
    const NoAutocast no_autocast;
    const auto given = [](const Optional& tensor) { return tensor.value_or(at::Tensor()); };
    MambaMixerArgs args{h,       in_proj, given(in_bias), conv, given(conv_bias), x_proj,
                        dt_proj, dt_bias, A_log,          D,    out_proj,         given(out_bias)};
    cast(args, kept->type);
    at::Tensor steps;
    MixerMade made;
    const at::Tensor out = MixerPasses(args, kept->order, kept->options).forward(steps, &made);
    variable_list saved = list(args);
    saved.insert(saved.end(), {steps, made.x, made.z, made.u, made.delta, made.scan.y,
                               made.scan.states, made.scan.steps});
    saved.insert(saved.end(), made.cuts.begin(), made.cuts.end());
    context->save_for_backward(saved);
    context->saved_data["kept"] = c10::IValue::make_capsule(kept);
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    SERPENTINE_CHECK(!at::GradMode::is_enabled(), kMixerWho,
                     "it has no second derivative (create_graph)");
    const auto kept =
        c10::static_intrusive_pointer_cast<KeptMixer>(context->saved_data["kept"].toCapsule());
    variable_list saved = context->get_saved_variables();
    const MambaMixerArgs args = named(saved);
    MixerMade made;
    made.x = saved[kOperands + 1];
    made.z = saved[kOperands + 2];
    made.u = saved[kOperands + 3];
    made.delta = saved[kOperands + 4];
    made.scan.y = saved[kOperands + 5];
    made.scan.states = saved[kOperands + 6];
    made.scan.steps = saved[kOperands + 7];
    made.cuts.assign(saved.begin() + kOperands + 8, saved.end());
    const at::Tensor steps = saved[kOperands];
    saved.clear();
    variable_list all = list(MixerPasses(args, kept->order, kept->options)
                                 .backward(grads[0].to(kept->type), steps, std::move(made)));
    all.emplace_back();  // the options'
    return all;
  }
};

void check(const MambaMixerArgs& args, const ScanOrder& order, const MambaMixerOptions& options) {
  check_shape(kMixerWho, args.h, "h", {-1, order.num_tokens, -1}, "B, T, C");
  check_shape(kMixerWho, args.A_log, "A_log", {order.num_branches, -1, -1}, "K, D, N");
  const int64_t branches = order.num_branches, inner = args.A_log.size(1),
                states = args.A_log.size(2);
  check_shape(kMixerWho, args.in_proj, "in_proj", {2 * inner, args.h.size(2)}, "2 D, C");
  check_shape(kMixerWho, args.conv, "conv", {branches, inner, -1}, "K, D, W");
  check_shape(kMixerWho, args.dt_proj, "dt_proj", {branches, inner, -1}, "K, D, R");
  check_shape(kMixerWho, args.x_proj, "x_proj",
              {branches, args.dt_proj.size(2) + 2 * states, inner}, "K, R + 2 N, D");
  check_shape(kMixerWho, args.dt_bias, "dt_bias", {branches, inner}, "K, D");
  check_shape(kMixerWho, args.D, "D", {branches, inner}, "K, D");
  check_shape(kMixerWho, args.out_proj, "out_proj", {-1, inner}, "E, D");
  int64_t positions = 0;
  for (const int64_t size : options.sizes) positions += size;
  SERPENTINE_CHECK(
      static_cast<int64_t>(options.sizes.size()) == branches && positions == order.num_positions(),
      kMixerWho, "sizes must hold the positions of each of the ", branches, " branches, ",
      order.num_positions(), " together");
  SERPENTINE_CHECK(options.merge != Merge::kConcat && options.groups >= 1, kMixerWho,
                   "branches are added or averaged, and groups must not be negative");
}

}  // namespace

int64_t mixer_groups(int64_t tokens, int64_t positions, int64_t inner, int64_t bytes) {
  constexpr int64_t kMiB = 1 << 20, kMost = 8, kNarrowest = 64;
  const int64_t most = std::clamp<int64_t>(inner / kNarrowest, 1, kMost);
  // u, delta, their gradients and a state for every 16 positions; y, z, and what the gate makes
  const int64_t made = inner * (positions * (4 * bytes + 4) + tokens * 4 * bytes);
  if (made <= 512 * kMiB) return 1;
  return std::min(most, std::max<int64_t>((made + 1536 * kMiB - 1) / (1536 * kMiB), 2));
}

bool takes_mamba_mixer(const at::Tensor& h) {
  return !is_traced() && (h.is_cpu() || (h.is_cuda() && cuda::is_built()));
}

at::Tensor mamba_mixer(const MambaMixerArgs& args, const ScanOrder& order,
                       const MambaMixerOptions& options) {
  auto kept = c10::make_intrusive<KeptMixer>();
  kept->order = order;
  kept->options = options;
  if (options.sizes.empty())
    kept->options.sizes.assign(static_cast<size_t>(order.num_branches),
                               order.num_positions() / order.num_branches);
  kept->type = product_type(args.h);
  if (options.groups == 0) {
    kept->options.groups =
        options.keep == MixerKeep::kNothing && args.h.dim() == 3
            ? mixer_groups(args.h.size(0) * order.num_tokens,
                           args.h.size(0) * order.num_positions(), args.D.size(1),
                           static_cast<int64_t>(c10::elementSize(kept->type)))
            : 1;
  }
  check(args, order, kept->options);
  bool learns = false;
  for (const at::Tensor& one : list(args))
    learns = learns || (one.defined() && one.requires_grad());
  if (!learns || !at::GradMode::is_enabled()) {
    const NoAutocast no_autocast;
    MambaMixerArgs cast_args = args;
    cast(cast_args, kept->type);
    at::Tensor steps;
    return MixerPasses(cast_args, order, kept->options).forward(steps, nullptr);
  }
  const auto optional = [](const at::Tensor& tensor) {
    return tensor.defined() ? Optional(tensor) : std::nullopt;
  };
  return MambaMixer::apply(args.h, args.in_proj, optional(args.in_bias), args.conv,
                           optional(args.conv_bias), args.x_proj, args.dt_proj, args.dt_bias,
                           args.A_log, args.D, args.out_proj, optional(args.out_bias), kept);
}

}  // namespace serpentine
