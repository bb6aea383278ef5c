#include "vision/ss2d.h"

#include <cmath>

#include <torch/torch.h>

#include "core/check.h"
#include "core/ops/merge.h"
#include "core/ops/selective_scan.h"

namespace serpentine {
namespace {

constexpr const char* kSs2dWho = "SS2D";
constexpr double kSs2dLeastStep = 1e-3, kMostStep = 0.1, kStepFloor = 1e-4;  // initial step sizes

/// Cuts `end` off `text`; whether it stood there.
bool cut(std::string& text, const std::string& end) {
  if (!text.ends_with(end)) return false;
  text.resize(text.size() - end.size());
  return true;
}

}  // namespace

Ss2dVariant Ss2dVariant::parse(const std::string& forward_type) {
  Ss2dVariant variant;
  std::string rest = forward_type;
  if (rest == "v0" || rest == "v0seq") {
    variant.vanilla = true;
    return variant;
  }
  cut(rest, "_no32");  // the scan's state is float32 in every case
  variant.out_activation = cut(rest, "_oact");
  variant.gate = !cut(rest, "_noz");
  variant.gate_activation = !cut(rest, "_nozact");
  for (const char* norm : {"none", "dwconv3", "cnorm", "softmax", "sigmoid"})
    if (cut(rest, std::string("_on") + norm)) variant.out_norm = norm;
  if (rest == "v051d") {
    variant.routes = "unidi";
  } else if (rest == "v052d") {
    variant.routes = "bidi";
  } else if (rest == "v052dc") {
    variant.routes = "cascade";
  } else {
    bool known = false;
    for (const char* base : {"v01", "v02", "v03", "v04", "v05", "v2", "v3"})
      known = known || rest == base;
    SERPENTINE_CHECK(
        known, kSs2dWho,
        "forward_type must be v0, or one of v01 v02 v03 v04 v05 v051d v052d v052dc v2 ",
        "v3 followed by _on<norm>, _noz or _nozact, _oact, _no32 in this order; got '",
        forward_type, "'");
  }
  return variant;
}

torch::Tensor project_delta(const torch::Tensor& rows, const torch::Tensor& weight, bool dense) {
  if (!dense) return torch::einsum("btkr,kdr->btkd", {rows, weight});
  const int64_t routes = weight.size(0), inner = weight.size(1), rank = weight.size(2);
  const auto blocks =
      torch::diagonal_scatter(torch::zeros({routes, inner, routes, rank}, weight.options()),
                              weight.permute({1, 2, 0}), 0, 0, 2)
          .view({routes * inner, routes * rank});
  return torch::linear(rows.flatten(2), blocks).unflatten(2, {routes, inner});
}

void RouteParameters::register_in(torch::nn::Module& owner, int64_t routes, int64_t rank,
                                  int64_t states, int64_t inner) {
  x_proj =
      owner.register_parameter("x_proj_weight", torch::empty({routes, rank + 2 * states, inner}));
  dt_proj = owner.register_parameter("dt_projs_weight", torch::empty({routes, inner, rank}));
  dt_bias = owner.register_parameter("dt_projs_bias", torch::empty({routes, inner}));
  A_logs = owner.register_parameter("A_logs", torch::empty({routes * inner, states}));
  Ds = owner.register_parameter("Ds", torch::empty({routes * inner}));
}

void RouteParameters::reset(const std::string& init) {
  const torch::NoGradGuard no_grad;
  const double inner = static_cast<double>(x_proj.size(2));
  x_proj.uniform_(-1 / std::sqrt(inner), 1 / std::sqrt(inner));  // torch's Linear
  Ds.fill_(1);
  if (init != "v0") {
    const bool normal = init == "v1";
    for (auto* tensor : {&dt_proj, &dt_bias}) {
      if (normal) {
        tensor->normal_(0, 0.1);
      } else {
        tensor->uniform_(0, 0.1);
      }
    }
    if (normal) {
      A_logs.normal_();
    } else {
      A_logs.zero_();
    }
    return;
  }
  const double bound = 1 / std::sqrt(static_cast<double>(dt_proj.size(2)));
  dt_proj.uniform_(-bound, bound);

  // softplus(bias) is the initial step size, log-uniform between its bounds
  const auto dt = torch::empty_like(dt_bias)
                      .uniform_(std::log(kSs2dLeastStep), std::log(kMostStep))
                      .exp()
                      .clamp_min(kStepFloor);
  dt_bias.copy_(dt + torch::log(-torch::expm1(-dt)));
  A_logs.copy_(torch::arange(1, A_logs.size(1) + 1, A_logs.options().requires_grad(false))
                   .log()
                   .expand_as(A_logs));
}

RouteParameters RouteParameters::some(int64_t first, int64_t count) const {
  const int64_t inner = x_proj.size(2);
  return {x_proj.narrow(0, first, count), dt_proj.narrow(0, first, count),
          dt_bias.narrow(0, first, count), A_logs.narrow(0, first * inner, count * inner),
          Ds.narrow(0, first * inner, count * inner)};
}

torch::Tensor RouteParameters::scan(const torch::Tensor& u, const RoutedOrder& routed,
                                    Merge merge) const {
  const int64_t routes = x_proj.size(0), inner = x_proj.size(2), rank = dt_proj.size(2),
                states = A_logs.size(1);
  const auto wide = u.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  const auto narrow = u.scalar_type();
  SelectiveScanArgs args;
  args.A = -A_logs.to(wide).exp().view({routes, inner, states});
  args.D = Ds.to(wide).view({routes, inner});
  args.delta_bias = dt_bias.to(wide);
  const std::vector<int64_t> parts = {rank, states, states};
  const int64_t positions = routed.order.num_positions();
  if (2 * positions > routes * routed.order.num_tokens || routes == 1) {
    // every token for every route in one product
    const auto rows = torch::linear(u, x_proj.flatten(0, 1))
                          .view({u.size(0), u.size(1), routes, rank + 2 * states})
                          .split_with_sizes(parts, -1);
    args.u = u;
    args.delta = project_delta(rows[0], dt_proj, u.is_cuda()).to(narrow);
    args.B = rows[1].to(narrow);
    args.C = rows[2].to(narrow);
    return selective_scan(args, routed.order, Rows::kToken, merge).y;
  }

  // most routes pass most tokens by: gather first, project each route's own positions
  args.u = gather_rows(u, routed.order);
  std::vector<torch::Tensor> delta, B, C;
  const auto runs = args.u.split_with_sizes(routed.branch_sizes, 1);
  for (int64_t k = 0; k < routes; ++k) {
    const auto rows =
        torch::linear(runs[static_cast<size_t>(k)], x_proj[k]).split_with_sizes(parts, -1);
    delta.push_back(torch::linear(rows[0], dt_proj[k]).to(narrow));
    B.push_back(rows[1].to(narrow));
    C.push_back(rows[2].to(narrow));
  }
  args.delta = torch::cat(delta, 1);
  args.B = torch::cat(B, 1);
  args.C = torch::cat(C, 1);
  return selective_scan(args, routed.order, Rows::kPosition, merge).y;
}

Ss2dImpl::Ss2dImpl(const Ss2dOptions& chosen)
    : options(chosen), variant_(Ss2dVariant::parse(chosen.forward_type)) {
  const int64_t inner = options.inner();
  SERPENTINE_CHECK(options.d_model >= 1 && options.d_state >= 1 && inner >= 1, kSs2dWho,
                   "d_model, d_state and int(ssm_ratio * d_model) must be at least 1, got ",
                   options.d_model, ", ", options.d_state, " and ", inner);
  const bool cascade = variant_.routes == "cascade";
  SERPENTINE_CHECK(!cascade || !options.scan.has("type"), kSs2dWho,
                   "v052dc scans rows, then columns; its routes cannot be replaced by `scan`");
  scan_ = ImageScan(options.scan,
                    "{type: cross, routes: " + (cascade ? "cross" : variant_.routes) + "}");
  const int64_t scanned = options.scanned();
  routes_.register_in(*this, scan_.num_branches(), options.rank(), options.d_state, scanned);
  routes_.reset(options.init);
  using torch::nn::LinearOptions;
  in_proj_ = register_module(
      "in_proj",
      torch::nn::Linear(
          LinearOptions(options.d_model, variant_.gate ? 2 * inner : inner).bias(options.bias)));
  if (options.d_conv > 1) {
    conv2d_ = register_module(
        "conv2d", torch::nn::Conv2d(torch::nn::Conv2dOptions(inner, inner, options.d_conv)
                                        .groups(inner)
                                        .padding((options.d_conv - 1) / 2)
                                        .bias(options.conv_bias)));
  }
  out_proj_ = register_module(
      "out_proj", torch::nn::Linear(LinearOptions(inner, options.d_model).bias(options.bias)));
  if (scanned < inner) {
    in_rank_ = register_module(
        "in_rank", torch::nn::Conv2d(torch::nn::Conv2dOptions(inner, scanned, 1).bias(false)));
    out_rank_ =
        register_module("out_rank", torch::nn::Linear(LinearOptions(scanned, inner).bias(false)));
  }
  const auto conv3 = [&] {
    return torch::nn::Conv2d(
        torch::nn::Conv2dOptions(scanned, scanned, 3).groups(scanned).padding(1).bias(false));
  };
  if (variant_.out_norm == "norm") {
    out_norm_ = MapNorm("ln", scanned);
    register_module("out_norm", out_norm_.module());
  } else if (variant_.out_norm == "cnorm" || variant_.out_norm == "dwconv3") {
    // the reference's Sequential numbers its layers
    const auto parts = register_module("out_norm", std::make_shared<torch::nn::Module>("out_norm"));
    if (variant_.out_norm == "cnorm") {
      out_norm_ = MapNorm("ln", scanned);
      parts->register_module("0", out_norm_.module());
    }
    norm_conv_ = parts->register_module(variant_.out_norm == "cnorm" ? "2" : "1", conv3());
  }
}

torch::Tensor Ss2dImpl::forward(const torch::Tensor& map, const ScanContext& context) {
  check_shape(kSs2dWho, map, "the map", {-1, -1, -1, options.d_model}, "B, H, W, d_model");
  auto x = in_proj_(map);
  const auto leave = [&](const char* name, const torch::Tensor& tensor) {
    if (trace != nullptr) (*trace)[name] = tensor;
  };
  leave("in_proj_out", x);
  torch::Tensor gate;
  if (variant_.gate) {
    const auto halves = x.chunk(2, -1);
    x = halves[0];
    gate = variant_.gate_activation ? activate(options.act, halves[1]) : halves[1];
  }
  if (conv2d_) {
    x = convolve(conv2d_, x);
    leave("after_conv2d", channels_first(x));
  }
  x = activate(options.act, x);
  if (in_rank_) x = convolve(in_rank_, x);
  auto y = normalise(variant_.routes == "cascade" ? cascade(x, context) : core(x, context));
  leave("out_norm_out", y);
  if (out_rank_) y = out_rank_(y);
  if (variant_.out_activation) y = torch::gelu(y);
  if (gate.defined()) y = y * gate;
  return torch::dropout(out_proj_(y), options.dropout, is_training());
}

torch::Tensor Ss2dImpl::core(const torch::Tensor& map, const ScanContext& context) {
  const auto routed = scan_.order(map.size(1), map.size(2), 0, map.device(), context);
  return routes_.scan(map.flatten(1, 2), routed).view(map.sizes());
}

// rows both ways with the sets 0 and 1, then columns with 2 and 3, each row or column from a zero
// state, each pass over normed channels; as published, what the way back gives for a line's last
// token is added to its first
torch::Tensor Ss2dImpl::cascade(const torch::Tensor& map, const ScanContext&) {
  const int64_t height = map.size(1), width = map.size(2), tokens = height * width;
  const auto grid = torch::arange(tokens, torch::kLong).view({height, width});
  auto y = map.flatten(1, 2);
  for (const bool columns : {false, true}) {
    const auto walk = columns ? grid.t().flatten() : grid.flatten();
    const auto one = make_order(walk, torch::tensor({int64_t{0}, tokens}),
                                torch::zeros({1}, torch::kLong), tokens, 1);
    RoutedOrder both;
    both.order = split(stack({one, reversed(one)}, 2), columns ? height : width).to(map.device());
    both.branch_sizes = {tokens, tokens};
    y = torch::layer_norm(y, {y.size(-1)}).to(map.scalar_type());
    const auto ways = routes_.some(columns ? 2 : 0, 2).scan(y, both, Merge::kConcat).chunk(2, -1);
    const auto back = ways[1].reshape(map.sizes()).flip(columns ? 1 : 2);
    y = ways[0] + back.flatten(1, 2);
  }
  return y.view(map.sizes());
}

torch::Tensor Ss2dImpl::normalise(const torch::Tensor& map) {
  if (variant_.out_norm == "none") return map;
  if (variant_.out_norm == "softmax") return torch::softmax(map.flatten(1, 2), 1).view(map.sizes());
  if (variant_.out_norm == "sigmoid") return torch::sigmoid(map);
  const auto x = out_norm_.module() ? out_norm_.forward(map) : map;
  return norm_conv_ ? convolve(norm_conv_, x) : x;
}

}  // namespace serpentine
