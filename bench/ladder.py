"""The GPU ladder: our operators beside their peers in one run, on one GPU. See docs/kernels.md.

  python bench/ladder.py --library build/cuda-core/python/serpentine/libserpentine_torch.so --out ladder.json

Peers are imported when PYTHONPATH has them: mamba_ssm's selective_scan_cuda, VMamba's
selective_scan_cuda_oflex and csm_triton, causal_conv1d. A peer that is absent is left out.

A time is device time between two events round the call, the median of --reps after --warm. Before
each, 512 MiB are overwritten, so that inputs come from device memory, and the device spins while the
host queues the call, so that host time stays out. Bounds are the larger of the least bytes over the
bandwidth of a copy, measured at the start, and the special functions over 4.15e12 a second
(docs/kernels.md, measured on an H100; an H200 has the same multiprocessors and clock).
"""

import argparse
import json
import math

import torch
import torch.nn.functional as F

import ladder_ssd
from ladder_timing import Timer, copy_bandwidth, extra_memory

BANDWIDTH, SPECIAL = None, 4.15e12  # a second; the first is measured
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def draw(*shape, dtype=torch.float32, scale=1.0):
    return (torch.randn(*shape, device="cuda") * scale).to(dtype).requires_grad_()


def parameters(branches, channels, states):
    """A as a trained block has it; the bias as Mamba draws it: softplus(bias) in [1e-3, 1e-1]."""
    spread = 1 + 0.1 * torch.rand(branches, channels, states, device="cuda")
    A = (-torch.arange(1.0, states + 1, device="cuda") * spread).requires_grad_()
    step = torch.exp(torch.empty(branches, channels, device="cuda").uniform_(math.log(1e-3), math.log(1e-1)))
    bias = (step + torch.log(-torch.expm1(-step))).requires_grad_()
    return A, bias, torch.ones(branches, channels, device="cuda").requires_grad_()


class Scan:
    """One scan through an order in both layouts: ours [B, T, K, D], the peers' [B, K D, L]."""

    def __init__(self, batch, channels, length, states, branches, dtype, order=None, tokens=None):
        self.shape = batch, channels, length, states, branches
        T = tokens or length
        self.u = draw(batch, T, channels, dtype=dtype)
        by_position = order == "own rows"
        rows = (batch, length * branches) if by_position else (batch, T, branches)
        if by_position:
            self.u = draw(batch, length * branches, channels, dtype=dtype)
        self.delta = draw(*rows, channels, dtype=dtype, scale=0.5)
        both = torch.randn(*rows, 2 * states, device="cuda").to(dtype)
        self.B = both[..., :states].contiguous().requires_grad_()
        self.C = both[..., states:].contiguous().requires_grad_()
        self.A, self.bias, self.D = parameters(branches, channels, states)
        self.kwargs = {}

    def leaves(self):
        return [self.u, self.delta, self.A, self.B, self.C, self.D, self.bias]

    def ours(self):
        return torch.ops.serpentine.selective_scan(
            self.u, self.delta, self.A, self.B, self.C, self.D, self.bias, **self.kwargs)[0]

    def through(self, tokens, offsets, branch, num_tokens, rows="token"):
        made = torch.ops.serpentine.make_order(tokens, offsets, branch, num_tokens)
        self.kwargs = dict(zip(("tokens", "offsets", "branch", "visits", "complete"), made), rows=rows)
        return self


def channels_first(scan):
    """The peers' operands of a scan whose branches read the tokens in order: leaves of their own."""
    batch, channels, length, states, branches = scan.shape
    def flat(x, width):
        x = x.detach().reshape(batch, -1, branches, width)
        return x.permute(0, 2, 3, 1).reshape(batch, branches * width, -1).contiguous().requires_grad_()
    u = scan.u.detach().transpose(1, 2).contiguous().requires_grad_()
    delta = flat(scan.delta, channels)
    B = flat(scan.B, states).detach().view(batch, branches, states, -1).requires_grad_()
    C = flat(scan.C, states).detach().view(batch, branches, states, -1).requires_grad_()
    A = scan.A.detach().reshape(-1, states).requires_grad_()
    D = scan.D.detach().reshape(-1).requires_grad_()
    bias = scan.bias.detach().reshape(-1).requires_grad_()
    return u, delta, A, B, C, D, bias


def bound(elements, states, bytes_moved, backward):
    special = elements * (states + (3 if backward else 2)) / SPECIAL
    return max(bytes_moved / BANDWIDTH, special) * 1e3


class Ladder:
    def __init__(self, options):
        self.options, self.timer, self.rows = options, Timer(options.reps, options.warm), []

    def measure(self, case, dtype, who, call, leaves, bounds):
        try:
            with torch.no_grad():
                forward = self.timer.run(lambda mark: (call(), mark()))[0]
                memory = extra_memory(call)
            gradient = torch.randn_like(call())

            def both(mark):
                out = call()
                mark()
                torch.autograd.grad(out, leaves, gradient)
                mark()

            backward = self.timer.run(both)[1]
            memory_both = extra_memory(lambda: both(lambda: None))
        except Exception as error:  # a peer that cannot run a case does not end the run
            print(f"{case:24} {dtype} {who:14} {type(error).__name__}: {str(error).splitlines()[0][:120]}", flush=True)
            torch.cuda.empty_cache()
            return
        row = {"case": case, "dtype": dtype, "who": who, "forward_ms": forward, "backward_ms": backward,
               "bound_ms": bounds, "memory_mib": [memory, memory_both]}
        self.rows.append(row)
        share = f"{100 * bounds[0] / forward[0]:3.0f}% /{100 * bounds[1] / backward[0]:3.0f}%"
        print(f"{case:24} {dtype} {who:14} {1e3 * forward[0]:8.1f} /{1e3 * backward[0]:8.1f} us  {share} of the bound  "
              f"{memory:7.0f} /{memory_both:7.0f} MiB", flush=True)
        torch.cuda.empty_cache()

    def wants(self, case):
        return not self.options.only or any(part in case for part in self.options.only.split(","))

    def ratios(self):
        print("\ncase, dtype: best peer's time over ours, forward / backward")
        for row in self.rows:
            if row["who"] != "ours":
                continue
            peers = [p for p in self.rows if (p["case"], p["dtype"]) == (row["case"], row["dtype"]) and not p["who"].startswith("ours")]
            if peers:
                best = [min(p[key][0] for p in peers) / row[key][0] for key in ("forward_ms", "backward_ms")]
                print(f"{row['case']:24} {row['dtype']}  {best[0]:5.2f} / {best[1]:5.2f}")


def scan_bounds(batch, channels, length, states, branches, size, planes=None):
    """planes: rows of D channels read and written, forward and backward, where they are not 3 and 5 a branch."""
    elements = batch * channels * length * branches
    forward, backward = planes or (3 * branches, 5 * branches)
    rows = batch * length * size
    return (bound(elements, states, rows * (channels * forward + 2 * states * branches), False),
            bound(elements, states, rows * (channels * backward + 4 * states * branches), True))


def one_direction(ladder, peers):
    cases = [(64, 384, 196, 16), (64, 384, 784, 16), (16, 768, 3136, 16), (32, 512, 321, 16), (16, 512, 862, 16),
             (1, 1024, 10000, 16), (1, 1024, 100000, 16), (32, 512, 21, 2), (32, 512, 21, 16), (1, 1024, 100000, 1)]
    for batch, channels, length, states in cases:
        case = f"one {batch}x{channels}x{length} N{states}"
        if not ladder.wants(case):
            continue
        for name in ladder.options.types:
            scan = Scan(batch, channels, length, states, 1, TYPES[name])
            bounds = scan_bounds(batch, channels, length, states, 1, scan.u.element_size())
            ladder.measure(case, name, "ours", scan.ours, scan.leaves(), bounds)
            if "mamba" in peers:
                u, delta, A, B, C, D, bias = leaves = channels_first(scan)
                ladder.measure(case, name, "mamba_ssm", lambda: peers["mamba"](
                    u, delta, A, B, C, D, None, bias, True), leaves, bounds)


def four_branches(ladder, peers):
    """Four branches given in order, each with its own rows: VMamba's inner scan."""
    for batch, channels, length in [(64, 96, 3136), (64, 192, 784), (64, 384, 196), (64, 768, 49)]:
        case = f"four {batch}x4x{channels}x{length} N1"
        if not ladder.wants(case):
            continue
        for name in ladder.options.types:
            scan = Scan(batch, channels, length, 1, 4, TYPES[name], "own rows")
            ints = dict(dtype=torch.int32, device="cuda")
            scan.through(torch.arange(4 * length, **ints), torch.arange(5) * length, torch.arange(4), 4 * length, "position")
            bounds = scan_bounds(batch, channels, length, 1, 4, scan.u.element_size())
            ladder.measure(case, name, "ours", scan.ours, scan.leaves(), bounds)
            if "oflex" in peers:
                dtype = TYPES[name]
                wide = [draw(batch, 4 * channels, length, dtype=dtype) for _ in range(2)]
                few = [draw(batch, 4, 1, length, dtype=dtype) for _ in range(2)]
                A, bias, D = [p.detach().reshape(4 * channels, -1).squeeze(-1).requires_grad_() if p.dim() == 2 else
                              p.detach().reshape(4 * channels, 1).requires_grad_() for p in parameters(4, channels, 1)]
                leaves = [wide[0], wide[1], A, few[0], few[1], D, bias]
                ladder.measure(case, name, "vmamba oflex", lambda: peers["oflex"](
                    leaves[0], leaves[1], A, few[0], few[1], D, bias, True, dtype == torch.float32, "oflex"), leaves, bounds)


def cross_order(height, width):
    rows = torch.arange(height * width, dtype=torch.int32)
    columns = rows.view(height, width).t().reshape(-1)
    return torch.cat([rows, columns, rows.flip(0), columns.flip(0)]).cuda()


def cross(ladder, peers):
    for batch, channels, side, states in [(64, 96, 56, 1), (64, 192, 28, 1), (64, 384, 14, 1), (64, 768, 7, 1), (64, 192, 56, 16)]:
        length = side * side
        case = f"cross {batch}x{channels}x{side}x{side} N{states}"
        if not ladder.wants(case):
            continue
        for name in ladder.options.types:
            scan = Scan(batch, channels, length, states, 4, TYPES[name])
            scan.through(cross_order(side, side), torch.arange(5) * length, torch.arange(4), length)
            size = scan.u.element_size()
            bounds = scan_bounds(batch, channels, length, states, 4, size, (6, 11))
            ladder.measure(case, name, "ours", scan.ours, scan.leaves(), bounds)
            if "oflex" in peers and "triton" in peers:
                dtype = TYPES[name]
                x, delta = draw(batch, channels, side, side, dtype=dtype), draw(batch, 4 * channels, length, dtype=dtype)
                few = [draw(batch, 4, states, length, dtype=dtype) for _ in range(2)]
                A, bias, D = parameters(4, channels, states)
                A, bias, D = [p.detach().reshape(4 * channels, *p.shape[2:]).requires_grad_() for p in (A, bias, D)]

                def whole():
                    xs = peers["triton"].cross_scan_fn(x).view(batch, -1, length)
                    ys = peers["oflex"](xs, delta, A, few[0], few[1], D, bias, True, dtype == torch.float32, "oflex")
                    return peers["triton"].cross_merge_fn(ys.view(batch, 4, channels, side, side))

                ladder.measure(case, name, "vmamba", whole, [x, delta, A, *few, D, bias], bounds)


def atrous(ladder, peers):
    """EfficientVMamba's skip scan, step 2: four routes of a quarter of the tokens, each with its own parameters."""
    for batch, channels, side, states in [(64, 96, 56, 16), (64, 192, 28, 16)]:
        length, quarter = side * side, side * side // 4
        case = f"atrous {batch}x{channels}x{side}x{side} N{states}"
        if not ladder.wants(case):
            continue
        for name in ladder.options.types:
            scan = Scan(batch, channels, length, states, 1, TYPES[name], "own rows")
            scan.A, scan.bias, scan.D = parameters(4, channels, states)
            cells = torch.arange(length, dtype=torch.int32, device="cuda").view(side, side)
            walks = [cells[::2, ::2], cells.t()[::2, 1::2], cells[::2, 1::2], cells.t()[1::2, 1::2]]
            scan.through(torch.cat([walk.reshape(-1) for walk in walks]), torch.arange(5) * quarter, torch.arange(4),
                         length, "position")
            bounds = scan_bounds(batch, channels, length, states, 1, scan.u.element_size())
            ladder.measure(case, name, "ours", scan.ours, scan.leaves(), bounds)
            if "mamba" in peers:
                x, delta = draw(batch, channels, side, side, dtype=TYPES[name]), draw(batch, 4 * channels, quarter, dtype=TYPES[name], scale=0.5)
                few = [draw(batch, 4, states, quarter, dtype=TYPES[name]) for _ in range(2)]
                A, bias, D = [p.detach().reshape(4 * channels, *p.shape[2:]).requires_grad_() for p in parameters(4, channels, states)]

                def whole():
                    turned = x.transpose(2, 3)
                    parts = [x[:, :, ::2, ::2], turned[:, :, ::2, 1::2], x[:, :, ::2, 1::2], turned[:, :, 1::2, 1::2]]
                    rows = torch.stack([part.flatten(2) for part in parts], 1).view(batch, -1, quarter)
                    ys = peers["mamba"](rows, delta, A, few[0], few[1], D, None, bias, True)
                    ys = ys.view(batch, 4, channels, side // 2, side // 2)
                    y = torch.empty_like(x)
                    y[:, :, ::2, ::2], y[:, :, ::2, 1::2] = ys[:, 0], ys[:, 2]
                    y[:, :, 1::2, ::2], y[:, :, 1::2, 1::2] = ys[:, 1].transpose(2, 3), ys[:, 3].transpose(2, 3)
                    return y

                ladder.measure(case, name, "gather, mamba, place", whole, [x, delta, A, *few, D, bias], bounds)


def two_directions(ladder, peers):
    for batch, channels, length in [(64, 384, 196), (16, 768, 3136), (1, 1024, 100000), (32, 512, 21), (32, 512, 321)]:
        case = f"two {batch}x{channels}x{length} N16"
        if not ladder.wants(case):
            continue
        for name in ladder.options.types:
            scan = Scan(batch, channels, length, 16, 2, TYPES[name])
            ints = torch.arange(length, dtype=torch.int32, device="cuda")
            scan.through(torch.cat([ints, ints.flip(0)]), torch.arange(3) * length, torch.arange(2), length)
            bounds = scan_bounds(batch, channels, length, 16, 2, scan.u.element_size(), (4, 7))
            ladder.measure(case, name, "ours", scan.ours, scan.leaves(), bounds)
            if "mamba" in peers:
                one = [channels_first(Scan(batch, channels, length, 16, 1, TYPES[name])) for _ in range(2)]
                u = one[0][0]

                def both():
                    forth = peers["mamba"](u, *one[0][1:6], None, one[0][6], True)
                    back = peers["mamba"](u.flip(-1), *one[1][1:6], None, one[1][6], True)
                    return forth + back.flip(-1)

                ladder.measure(case, name, "flips + mamba_ssm", both, [u, *one[0][1:], *one[1][1:]], bounds)


def random_order(ladder, peers):
    batch, channels, length, states = 1, 1024, 131072, 16
    case = f"random {batch}x{channels}x{length} N{states}"
    if not ladder.wants(case):
        return
    for name in ladder.options.types:
        scan = Scan(batch, channels, length, states, 1, TYPES[name])
        bounds = scan_bounds(batch, channels, length, states, 1, scan.u.element_size())
        ladder.measure(case, name, "ours identity", scan.ours, scan.leaves(), bounds)
        walk = torch.randperm(length, device="cuda")
        scan.through(walk.int(), torch.tensor([0, length]), torch.zeros(1, dtype=torch.int32), length)
        ladder.measure(case, name, "ours", scan.ours, scan.leaves(), bounds)
        if "mamba" in peers:
            u, delta, A, B, C, D, bias = leaves = channels_first(scan)

            def gathered():
                rows = [x.index_select(-1, walk) for x in (u, delta, B, C)]
                y = peers["mamba"](rows[0], rows[1], A, rows[2], rows[3], D, None, bias, True)
                return torch.empty_like(y).index_copy(-1, walk, y)

            ladder.measure(case, name, "gather + mamba_ssm", gathered, leaves, bounds)


def convolution(ladder, peers):
    for batch, channels, length, width in [(64, 384, 197, 4), (16, 768, 3136, 4), (8, 1536, 2048, 4), (1, 1024, 10000, 4),
                                           (1, 1024, 100000, 4), (32, 512, 321, 2)]:
        case = f"conv {batch}x{channels}x{length} W{width}"
        if not ladder.wants(case):
            continue
        for name in ladder.options.types:
            x = draw(batch, length, channels, dtype=TYPES[name])
            weight, bias = draw(channels, width), draw(channels)
            rows = batch * length * channels * x.element_size() / BANDWIDTH * 1e3

            # a transposed view: the signature is channels first, the memory is not
            def ours():
                return torch.ops.serpentine.causal_conv1d_fn(x.transpose(1, 2), weight, bias, activation="silu")[0].transpose(1, 2)

            ladder.measure(case, name, "ours", ours, [x, weight, bias], (2 * rows, 3 * rows))
            if "conv" in peers:
                first = x.detach().transpose(1, 2).contiguous().requires_grad_()
                ladder.measure(case, name, "causal_conv1d", lambda: peers["conv"](
                    first, weight.to(first.dtype), bias.to(first.dtype), activation="silu"), [first, weight, bias], (2 * rows, 3 * rows))


def find_peers():
    peers = {}
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
        peers["mamba"] = selective_scan_fn
    except Exception as error:
        print("mamba_ssm is left out:", error)
    try:
        import csms6s
        import selective_scan_cuda_oflex  # noqa: F401  csms6s needs it
        peers["oflex"] = csms6s.selective_scan_fn
        import csm_triton
        peers["triton"] = csm_triton
    except Exception as error:
        print("VMamba is left out:", error)
    try:
        from causal_conv1d import causal_conv1d_fn
        peers["conv"] = causal_conv1d_fn
    except Exception as error:
        print("causal_conv1d is left out:", error)
    return peers


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", required=True)
    parser.add_argument("--out")
    parser.add_argument("--only", default="", help="parts of case names, comma-separated")
    parser.add_argument("--types", type=lambda text: text.split(","), default=["fp32", "bf16"])
    parser.add_argument("--reps", type=int, default=50)
    parser.add_argument("--warm", type=int, default=5)
    options = parser.parse_args()
    torch.ops.load_library(options.library)
    torch.backends.cuda.matmul.allow_tf32 = False
    ladder, peers = Ladder(options), find_peers()
    global BANDWIDTH
    BANDWIDTH = copy_bandwidth(ladder.timer)
    print(torch.cuda.get_device_name(), torch.__version__, f"copy {BANDWIDTH * 1e-12:.2f} TB/s")
    for group in (one_direction, four_branches, cross, atrous, two_directions, random_order, convolution,
                  lambda *both: ladder_ssd.duality(*both, BANDWIDTH)):
        torch.manual_seed(0)
        group(ladder, peers)
    ladder.ratios()
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "bandwidth": BANDWIDTH, "rows": ladder.rows}, file, indent=1)


if __name__ == "__main__":
    main()
