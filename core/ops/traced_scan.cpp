#include "core/ops/traced_scan.h"

#include <ATen/TracerMode.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/runtime/custom_operator.h>
#include <torch/torch.h>

#include "core/check.h"

namespace serpentine {
namespace {

namespace tracer = torch::jit::tracer;

/// One step after another from a zero state; shapes as the node's inputs have them.
at::Tensor walk(const at::Tensor& delta, const at::Tensor& u, const at::Tensor& b,
                const at::Tensor& c, const at::Tensor& A) {
  at::Tensor h = at::zeros({u.size(1), u.size(2), u.size(3), b.size(3)}, u.options());
  std::vector<at::Tensor> outputs;
  for (int64_t l = 0; l < u.size(0); ++l) {
    h = (delta[l].unsqueeze(-1) * A).exp() * h +
        (delta[l] * u[l]).unsqueeze(-1) * b[l].unsqueeze(-2);
    outputs.push_back((h * c[l].unsqueeze(-2)).sum(-1));
  }
  return at::stack(outputs);
}

/// The tracer's own passes study what every node may alias, and stop at one without a schema.
void declare_recurrence() {
  static const torch::jit::RegisterOperators once({torch::jit::Operator(
      "serpentine::recurrence(Tensor delta, Tensor u, Tensor b, Tensor c, Tensor A) -> Tensor",
      [](torch::jit::Stack& stack) {
        const auto input = [&](size_t i) { return stack[stack.size() - 5 + i].toTensor(); };
        const at::Tensor y = walk(input(0), input(1), input(2), input(3), input(4));
        torch::jit::drop(stack, 5);
        torch::jit::push(stack, y);
      },
      c10::AliasAnalysisKind::PURE_FUNCTION)});
  (void)once;
}

at::Tensor recurrence(const at::Tensor& delta, const at::Tensor& u, const at::Tensor& b,
                      const at::Tensor& c, const at::Tensor& A) {
  torch::jit::Node* node = nullptr;
  if (const auto& state = tracer::getTracingState()) {
    declare_recurrence();
    node =
        state->createNode(c10::Symbol::fromQualString("serpentine::recurrence"), /*num_outputs=*/0);
    tracer::addInputs(node, "delta", delta);
    tracer::addInputs(node, "u", u);
    tracer::addInputs(node, "b", b);
    tracer::addInputs(node, "c", c);
    tracer::addInputs(node, "A", A);
    state->insertNode(node);
  }
  at::Tensor y;
  {
    const at::tracer::impl::NoTracerDispatchMode untraced;
    y = walk(delta, u, b, c, A);
  }
  if (node != nullptr) {
    auto* value = node->addOutput();
    value->inferTypeFrom(y);
    tracer::setValueTrace(y, value);
  }
  return y;
}

/// Where things lie for S sequences of at most L positions; pads read row `rows`, which is zero.
struct Layout {
  int64_t sequences = 0, longest = 0;
  std::vector<int64_t> position;  // [L S]: the position at (l, s), or -1
  std::vector<int64_t> place;     // [P]: l S + s of a position
  std::vector<int64_t> branch;    // [S]
};

Layout layout_of(const ScanOrder& order) {
  const at::Tensor offsets = order.offsets.to(at::kCPU, at::kLong).contiguous();
  const at::Tensor branch = order.branch.to(at::kCPU, at::kLong).contiguous();
  const int64_t* at_offset = offsets.const_data_ptr<int64_t>();
  Layout layout;
  layout.sequences = order.num_sequences();
  for (int64_t s = 0; s < layout.sequences; ++s)
    layout.longest = std::max(layout.longest, at_offset[s + 1] - at_offset[s]);
  layout.branch.assign(branch.const_data_ptr<int64_t>(),
                       branch.const_data_ptr<int64_t>() + branch.numel());
  layout.position.assign(static_cast<size_t>(layout.longest * layout.sequences), -1);
  layout.place.resize(static_cast<size_t>(order.num_positions()));
  for (int64_t s = 0; s < layout.sequences; ++s) {
    for (int64_t p = at_offset[s]; p < at_offset[s + 1]; ++p) {
      const int64_t place = (p - at_offset[s]) * layout.sequences + s;
      layout.position[static_cast<size_t>(place)] = p;
      layout.place[static_cast<size_t>(p)] = place;
    }
  }
  return layout;
}

at::Tensor index_tensor(const std::vector<int64_t>& values) {
  const at::tracer::impl::NoTracerDispatchMode untraced;  // a constant of the graph
  return torch::tensor(values, at::kLong);
}

}  // namespace

bool is_traced() { return at::tracer::impl::is_dispatch_enabled(); }

SelectiveScanResult traced_selective_scan(const SelectiveScanArgs& args, const ScanOrder& order,
                                          Rows rows, Merge merge) {
  SERPENTINE_CHECK(!args.initial_state.defined() && order.tokens.dim() == 1, "selective_scan",
                   "a traced scan begins from zero and has one order for the whole batch");
  Layout layout;
  std::vector<int64_t> source, route;  // [L S]: row of an operand, and its route's part of the row
  {
    const at::tracer::impl::NoTracerDispatchMode untraced;
    layout = layout_of(order);
    const at::Tensor tokens = order.tokens.to(at::kCPU, at::kLong).contiguous();
    const int64_t zero = rows == Rows::kToken ? order.num_tokens : order.num_positions();
    for (size_t i = 0; i < layout.position.size(); ++i) {
      const int64_t position = layout.position[i];
      int64_t row = position;
      if (rows == Rows::kToken && position >= 0) row = tokens.const_data_ptr<int64_t>()[position];
      source.push_back(row < 0 ? zero : row);
      route.push_back(layout.branch[i % static_cast<size_t>(layout.sequences)]);
    }
  }
  const int64_t batch = args.u.size(0), channels = args.u.size(2);
  const at::Tensor row = index_tensor(source), sequence_branch = index_tensor(layout.branch);
  std::vector<int64_t> flat;  // rows of [B, T K, ...]
  for (size_t i = 0; i < source.size(); ++i)
    flat.push_back(source[i] * order.num_branches + route[i]);
  const at::Tensor flat_row = index_tensor(flat);
  const auto arranged = [&](const at::Tensor& x) {
    // [B, R, C] or [B, T, K, C] -> [L, B, S, C], zeros at pads
    const bool routed = x.dim() == 4;
    at::Tensor table = routed ? x.flatten(1, 2) : x;
    const int64_t extra = routed ? order.num_branches : 1;
    table = at::cat({table.to(at::kFloat), at::zeros({batch, extra, x.size(-1)}, at::kFloat)}, 1);
    return table.index_select(1, routed ? flat_row : row)
        .view({batch, layout.longest, layout.sequences, x.size(-1)})
        .permute({1, 0, 2, 3});
  };
  const at::Tensor u = arranged(args.u);
  at::Tensor delta = arranged(args.delta);
  if (args.delta_bias.defined())
    delta = delta + args.delta_bias.to(at::kFloat).index_select(0, sequence_branch);
  if (args.delta_softplus) delta = at::softplus(delta);
  at::Tensor y = recurrence(delta, u, arranged(args.B), arranged(args.C),
                            args.A.to(at::kFloat).index_select(0, sequence_branch));
  if (args.D.defined()) y = y + u * args.D.to(at::kFloat).index_select(0, sequence_branch);
  y = y.permute({1, 0, 2, 3}).reshape({batch, layout.longest * layout.sequences, channels});
  const at::Tensor by_position = y.index_select(1, index_tensor(layout.place));
  SelectiveScanResult result;
  result.y = merge_rows(by_position, order, merge).to(args.u.scalar_type());
  return result;
}

}  // namespace serpentine
