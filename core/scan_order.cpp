#include "core/scan_order.h"

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "core/check.h"
#include "core/kept_tables.h"

namespace serpentine {
namespace {

constexpr const char* kWho = "scan order";

at::Tensor as_int32(const at::Tensor& tensor, const char* name) {
  SERPENTINE_CHECK(tensor.defined(), kWho, name, " is missing");
  SERPENTINE_CHECK(at::isIntegralType(tensor.scalar_type(), /*includeBool=*/false), kWho, name,
                   " must be of an integer type, got ", tensor.scalar_type());
  return tensor.to(at::kInt).contiguous();
}

std::vector<int64_t> on_host(const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kCPU, at::kLong).contiguous();
  return {host.data_ptr<int64_t>(), host.data_ptr<int64_t>() + host.numel()};
}

struct KeptTables {
  std::mutex mutex;
  // by the stream too: another one could write where a dropped table is still read
  std::map<std::tuple<c10::DeviceIndex, c10::StreamId, std::vector<int64_t>>, at::Tensor> tables;
};

KeptTables& kept_host_tables() {
  static KeptTables kept;
  return kept;
}

/// Small tables on a GPU are kept: a copy from the host would make a GPU wait in every layer that
/// makes an order of its own, and cannot be part of a CUDA graph. Nobody writes to them.
at::Tensor from_host(const std::vector<int64_t>& values, at::Device device) {
  constexpr size_t kLongest = 64, kMostTables = 1024;
  if (device.is_cpu() || values.size() > kLongest) return at::tensor(values, at::kInt).to(device);
  KeptTables& kept = kept_host_tables();
  const std::lock_guard<std::mutex> lock(kept.mutex);
  if (kept.tables.size() > kMostTables) kept.tables.clear();
  const c10::Stream stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  at::Tensor& table = kept.tables[{device.index(), stream.id(), values}];
  if (!table.defined()) {
    const c10::InferenceMode training_may_use_it(false);
    table = at::tensor(values, at::kInt).to(device);
  }
  return table;
}

/// Positions of each token, ascending: [..., T, V]. `num_visits` below 0 counts them (one
/// synchronisation on a GPU). A stable sort by token makes a token's positions neighbours.
at::Tensor derive_visits(const at::Tensor& tokens, int64_t num_tokens, int64_t num_visits) {
  const at::Tensor wide = tokens.to(at::kLong);
  const int64_t positions = tokens.size(-1);
  std::vector<int64_t> shape(wide.sizes().begin(), wide.sizes().end());
  shape.back() = num_tokens + 1;
  if (num_visits == 1) {  // no sort is needed to write each position to its token
    const at::Tensor slot = at::where(wide >= 0, wide, at::full({}, num_tokens, wide.options()));
    const at::Tensor position = at::arange(positions, tokens.options()).expand_as(tokens);
    const at::Tensor visits = at::full(shape, kPad, tokens.options()).scatter(-1, slot, position);
    return visits.narrow(-1, 0, num_tokens).unsqueeze(-1).contiguous();
  }
  const at::Tensor counts =
      at::zeros(shape, wide.options()).scatter_add(-1, wide + 1, at::ones_like(wide));
  if (num_visits < 0) {
    const at::Tensor real = counts.narrow(-1, 1, num_tokens);
    num_visits = real.numel() == 0 ? 1 : std::max<int64_t>(1, real.max().item<int64_t>());
  }
  const auto [sorted, from] = wide.sort(/*stable=*/true, /*dim=*/-1, /*descending=*/false);
  const at::Tensor start = (counts.cumsum(-1) - counts).gather(-1, sorted + 1);
  const at::Tensor rank = at::arange(positions, wide.options()) - start;

  // pads share one slot behind the last, which is cut off
  const at::Tensor slot = at::where(sorted >= 0, sorted * num_visits + rank,
                                    at::full({}, num_tokens * num_visits, wide.options()));
  shape.back() = num_tokens * num_visits + 1;
  at::Tensor visits = at::full(shape, kPad, wide.options()).scatter(-1, slot, from);
  shape.back() = num_tokens;
  shape.push_back(num_visits);
  return visits.narrow(-1, 0, num_tokens * num_visits).reshape(shape).to(at::kInt).contiguous();
}

void check_tokens(const at::Tensor& tokens, int64_t num_tokens) {
  SERPENTINE_CHECK(tokens.dim() == 1 || tokens.dim() == 2, kWho,
                   "tokens must be [P] or [B, P], got ", tokens.sizes());
  if (!tokens.is_cpu() || tokens.numel() == 0) return;  // a GPU is not waited for
  const int64_t least = tokens.min().item<int64_t>(), most = tokens.max().item<int64_t>();
  SERPENTINE_CHECK(least >= kPad && most < num_tokens, kWho, "tokens must be ", kPad,
                   " (pad) or in [0, ", num_tokens, "), got ", least < kPad ? least : most);
}

void check_offsets(const std::vector<int64_t>& offsets, int64_t positions) {
  SERPENTINE_CHECK(!offsets.empty() && offsets.front() == 0 && offsets.back() == positions, kWho,
                   "offsets must begin with 0 and end with P = ", positions, ", got ", offsets);
  SERPENTINE_CHECK(std::is_sorted(offsets.begin(), offsets.end()), kWho,
                   "offsets must not decrease, got ", offsets);
}

/// Whether every branch visits every token once. Waits for a GPU.
bool is_complete(const ScanOrder& order) {
  const int64_t tokens = order.num_tokens, branches = order.num_branches;
  if (order.num_positions() != branches * tokens) return false;
  if (order.num_visits() != branches || !(order.tokens >= 0).all().item<bool>()) return false;
  if (tokens == 0) return true;

  // V = K and P = K T: it is left to see that visit v lies in branch v
  const at::Tensor ends = at::arange(1, branches + 1, order.visits.options()) * tokens;
  const at::Tensor visits = order.visits;
  if (!((visits >= ends - tokens).logical_and(visits < ends)).all().item<bool>()) return false;
  const std::vector<int64_t> offsets = on_host(order.offsets), branch = on_host(order.branch);
  for (size_t s = 0; s < branch.size(); ++s) {  // branch k owns the positions from k T on
    if (offsets[s] < branch[s] * tokens || offsets[s + 1] > (branch[s] + 1) * tokens) return false;
  }
  return true;
}

int64_t count_branches(const std::vector<int64_t>& branch) {
  int64_t next = 0;
  for (const int64_t b : branch) {
    SERPENTINE_CHECK(b >= 0 && (b == next || b == next - 1), kWho,
                     "branches must be sorted from 0 without a gap, got ", branch);
    next = b + 1;
  }
  return std::max<int64_t>(1, next);
}

constexpr size_t kMostOrders = 8;

struct KeptOrders {
  struct Made {
    ScanOrder order;
    c10::Stream stream;
  };
  std::mutex mutex;
  std::deque<Made> made;
};

KeptOrders& kept_identities() {
  static KeptOrders kept;
  return kept;
}

ScanOrder new_identity(int64_t num_tokens, at::Device device) {
  const c10::InferenceMode training_may_use_it(false);
  ScanOrder order;
  order.num_tokens = num_tokens;
  order.tokens = at::arange(num_tokens, at::device(device).dtype(at::kInt));
  order.offsets = at::arange(2, order.tokens.options()) * num_tokens;  // waits for no copy
  order.branch = at::zeros({1}, order.tokens.options());
  order.visits = order.tokens.unsqueeze(-1);
  order.identity = order.complete = true;
  return order;
}

/// The sequence that owns each position: int64 [P].
at::Tensor sequence_of_position(const ScanOrder& order) {
  const at::Tensor position = at::arange(order.num_positions(), order.offsets.options());
  return at::searchsorted(order.offsets.slice(0, 1), position, /*out_int32=*/false, /*right=*/true);
}

}  // namespace

ScanOrder ScanOrder::to(at::Device device) const {
  ScanOrder moved = *this;
  moved.tokens = tokens.to(device);
  moved.offsets = offsets.to(device);
  moved.branch = branch.to(device);
  moved.visits = visits.to(device);
  return moved;
}

ScanOrder make_order(const at::Tensor& tokens, const at::Tensor& offsets, const at::Tensor& branch,
                     int64_t num_tokens, int64_t num_visits) {
  ScanOrder order;
  order.tokens = as_int32(tokens, "tokens");
  const auto beside_tokens = [&](const at::Tensor& table, const char* name) {
    const at::Tensor narrow = as_int32(table, name);
    const at::Device device = order.tokens.device();
    return narrow.is_cpu() && narrow.dim() == 1 ? from_host(on_host(narrow), device)
                                                : narrow.to(device);
  };
  order.offsets = beside_tokens(offsets, "offsets");
  order.branch = beside_tokens(branch, "branch");
  order.num_tokens = num_tokens;
  check_tokens(order.tokens, num_tokens);
  SERPENTINE_CHECK(order.offsets.dim() == 1 && order.branch.dim() == 1 &&
                       order.offsets.size(0) == order.branch.size(0) + 1,
                   kWho, "offsets must be [S + 1] and branch [S], got ", offsets.sizes(), " and ",
                   branch.sizes());
  check_offsets(on_host(offsets), order.num_positions());
  order.num_branches = count_branches(on_host(branch));
  order.visits = derive_visits(order.tokens, num_tokens, num_visits);
  // an order made on a GPU with a known V is not waited for
  order.complete = (order.tokens.is_cpu() || num_visits < 0) && is_complete(order);
  return order;
}

ScanOrder identity_order(int64_t num_tokens, at::Device device) {
  SERPENTINE_CHECK(num_tokens >= 0, kWho, "the number of tokens must not be negative, got ",
                   num_tokens);
  // a model asks for the same few again and again, and four small kernels take as long as a short
  // convolution; another stream could read one before it is made, so the stream belongs to the key
  KeptOrders& kept = kept_identities();
  if (device.has_index() == false && !device.is_cpu()) {
    device = c10::impl::VirtualGuardImpl(device.type()).getDevice();
  }
  const c10::Stream stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  const std::lock_guard<std::mutex> lock(kept.mutex);
  for (const KeptOrders::Made& one : kept.made) {
    if (one.order.num_tokens == num_tokens && one.stream == stream) return one.order;
  }
  if (kept.made.size() == kMostOrders) kept.made.pop_front();
  kept.made.push_back({new_identity(num_tokens, device), stream});
  return kept.made.back().order;
}

std::vector<at::Tensor> kept_tables() {
  std::vector<at::Tensor> all;
  {
    KeptTables& kept = kept_host_tables();
    const std::lock_guard<std::mutex> lock(kept.mutex);
    for (const auto& [key, table] : kept.tables) all.push_back(table);
  }
  KeptOrders& kept = kept_identities();
  const std::lock_guard<std::mutex> lock(kept.mutex);
  for (const auto& [order, stream] : kept.made)
    all.insert(all.end(), {order.tokens, order.offsets, order.branch, order.visits});
  return all;
}

ScanOrder ragged_order(const at::Tensor& offsets) {
  ScanOrder order;
  order.offsets = as_int32(offsets, "offsets");
  SERPENTINE_CHECK(offsets.dim() == 1 && offsets.size(0) >= 1, kWho,
                   "offsets must be [S + 1], got ", offsets.sizes());
  const std::vector<int64_t> host = on_host(offsets);
  check_offsets(host, host.back());
  order.num_tokens = host.back();
  order.tokens = at::arange(order.num_tokens, order.offsets.options());
  order.branch = at::zeros({offsets.size(0) - 1}, order.offsets.options());
  order.visits = order.tokens.unsqueeze(-1);
  order.identity = order.complete = true;
  return order;
}

ScanOrder with_tokens(const ScanOrder& order, const at::Tensor& tokens, int64_t num_tokens,
                      int64_t num_visits) {
  SERPENTINE_CHECK(tokens.dim() >= 1 && tokens.size(-1) == order.num_positions(), kWho,
                   "tokens must be [P] or [B, P] with P = ", order.num_positions(), ", got ",
                   tokens.sizes());
  check_tokens(tokens, num_tokens);
  ScanOrder result = order;
  result.tokens = as_int32(tokens, "tokens");
  result.num_tokens = num_tokens;
  result.visits = derive_visits(result.tokens, num_tokens, num_visits);
  result.identity = result.complete = false;
  return result;
}

namespace {

/// Other tokens, but each visited as often and by the same branches as before.
ScanOrder permuted(const ScanOrder& order, const at::Tensor& tokens) {
  ScanOrder result = with_tokens(order, tokens, order.num_tokens, order.num_visits());
  result.complete = order.complete;
  return result;
}

}  // namespace

ScanOrder reversed(const ScanOrder& order) {
  const at::Tensor sequence = sequence_of_position(order);
  const at::Tensor wide = order.offsets.to(at::kLong);
  const at::Tensor from = wide.index_select(0, sequence) + wide.index_select(0, sequence + 1) - 1 -
                          at::arange(order.num_positions(), wide.options());
  return permuted(order, order.tokens.index_select(-1, from));
}

ScanOrder stack(at::ArrayRef<ScanOrder> parts, int64_t num_visits) {
  SERPENTINE_CHECK(!parts.empty(), kWho, "stack needs at least one order");
  if (parts.size() == 1) return parts[0];
  int64_t batch = 0;
  for (const ScanOrder& part : parts) {
    SERPENTINE_CHECK(part.num_tokens == parts[0].num_tokens, kWho,
                     "stacked orders must share one token count, got ", parts[0].num_tokens,
                     " and ", part.num_tokens);
    if (part.tokens.dim() == 2) batch = std::max(batch, part.tokens.size(0));
  }
  std::vector<at::Tensor> tokens, offsets, branch;
  offsets.push_back(at::zeros({1}, parts[0].offsets.options()));
  int64_t positions = 0, branches = 0;
  for (const ScanOrder& part : parts) {
    tokens.push_back(batch == 0 ? part.tokens : part.tokens.expand({batch, part.num_positions()}));
    offsets.push_back(part.offsets.slice(0, 1) + positions);
    branch.push_back(part.branch + branches);
    positions += part.num_positions();
    branches += part.num_branches;
  }
  ScanOrder result;
  result.tokens = at::cat(tokens, -1);
  result.offsets = at::cat(offsets).to(at::kInt);
  result.branch = at::cat(branch).to(at::kInt);
  result.num_tokens = parts[0].num_tokens;
  result.num_branches = branches;
  result.complete =
      std::all_of(parts.begin(), parts.end(), [](const auto& p) { return p.complete; });
  result.visits =
      derive_visits(result.tokens, result.num_tokens, result.complete ? branches : num_visits);
  return result;
}

ScanOrder relabeled(const ScanOrder& order, const at::Tensor& permutation) {
  SERPENTINE_CHECK(
      permutation.dim() >= 1 && permutation.dim() <= 2 && permutation.size(-1) == order.num_tokens,
      kWho, "a permutation must be [T] or [B, T] with T = ", order.num_tokens, ", got ",
      permutation.sizes());
  const at::Tensor to = permutation.to(order.tokens.device(), at::kInt);
  const at::Tensor index = order.tokens.clamp_min(0).to(at::kLong);
  at::Tensor renamed;
  if (order.num_tokens == 0) {
    renamed = order.tokens;
  } else if (index.dim() == 1) {
    renamed = to.index_select(-1, index);
  } else {
    renamed = to.expand({index.size(0), order.num_tokens}).gather(-1, index);
  }
  return permuted(order, at::where(order.tokens >= 0, renamed, order.tokens));
}

ScanOrder split(const ScanOrder& order, int64_t length) {
  SERPENTINE_CHECK(length >= 1, kWho, "pieces must hold at least 1 position, got ", length);
  const std::vector<int64_t> offsets = on_host(order.offsets), branch = on_host(order.branch);
  std::vector<int64_t> cut = {0}, owner;
  for (size_t s = 0; s < branch.size(); ++s) {
    int64_t begin = offsets[s];
    do {  // an empty sequence stays one empty piece
      begin = std::min(begin + length, offsets[s + 1]);
      cut.push_back(begin);
      owner.push_back(branch[s]);
    } while (begin < offsets[s + 1]);
  }
  ScanOrder result = order;
  result.offsets = from_host(cut, order.offsets.device());
  result.branch = from_host(owner, order.branch.device());
  return result;
}

}  // namespace serpentine
