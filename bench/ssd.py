"""State space duality beside plain torch on one device: times, extra memory, errors.

  python bench/ssd.py --library build/release/python/serpentine/libserpentine_torch.so --threads 2

Beside ours: `loop`, the definition, one step of the recurrence a token, and `chunks`, the chunked
form of arXiv 2405.21060 (section 6) in plain torch with autograd. Both are written here. A time is
the median of the calls that fit --seconds, the least in parentheses; errors are against the loop in
float64, over the largest value of each tensor.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

# batch, length, heads, channels a head, groups, states
SHAPES = [(8, 196, 12, 64, 1, 64), (1, 3136, 12, 64, 1, 64), (1, 4096, 16, 64, 1, 128),
          (1, 10000, 16, 64, 1, 128)]


def make_inputs(shape, device, dtype):
    batch, length, heads, channels, groups, states = shape
    generator = torch.Generator().manual_seed(0)

    def draw(*sizes):
        return torch.randn(*sizes, generator=generator)

    step = torch.exp(torch.empty(heads).uniform_(-6.9, -2.3, generator=generator))
    values = {
        "x": draw(batch, length, heads, channels), "dt": 0.5 * draw(batch, length, heads),
        "A": -(1 + 15 * torch.rand(heads, generator=generator)),
        "B": draw(batch, length, groups, states), "C": draw(batch, length, groups, states),
        "bias": step + torch.log(-torch.expm1(-step))}
    narrow = ("x", "dt", "B", "C")
    return {name: value.to(device, dtype if name in narrow else torch.float32)
            for name, value in values.items()}


def ours(x, dt, A, B, C, bias):
    return torch.ops.serpentine.mamba_chunk_scan_combined(
        x, dt, A, B, C, dt_bias=bias, dt_softplus=True)[0]


def loop(x, dt, A, B, C, bias):
    dt = F.softplus(dt + bias)
    share = x.shape[2] // B.shape[2]
    state = x.new_zeros(x.shape[0], x.shape[2], x.shape[3], B.shape[3], dtype=A.dtype)
    ys = []
    for u, d, b, c in zip(x.unbind(1), dt.unbind(1), B.unbind(1), C.unbind(1)):
        b, c = b.repeat_interleave(share, 1), c.repeat_interleave(share, 1)
        decay = torch.exp(d * A)[..., None, None]
        state = decay * state + (d[..., None] * u)[..., None] * b[:, :, None]
        ys.append((state @ c[..., None]).squeeze(-1))
    return torch.stack(ys, 1).to(x.dtype)


def chunks(x, dt, A, B, C, bias, size=64):
    batch, length, heads, channels = x.shape
    pad = -length % size
    dt = F.pad(F.softplus(dt + bias), (0, 0, 0, pad))
    share = heads // B.shape[2]
    x = F.pad(x, (0, 0, 0, 0, 0, pad)).unflatten(1, (-1, size))
    B, C = (F.pad(v, (0, 0, 0, 0, 0, pad)).unflatten(1, (-1, size)).repeat_interleave(share, 3)
            for v in (B, C))
    dt = dt.unflatten(1, (-1, size))
    sums = torch.cumsum(dt * A, 2)
    fed = x * dt[..., None]
    lags = sums.permute(0, 1, 3, 2)[..., None] - sums.permute(0, 1, 3, 2)[..., None, :]
    later = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
    decay = torch.exp(lags.masked_fill(later, -torch.inf))
    inside = torch.einsum("bmihn,bmjhn,bmhij,bmjhe->bmihe", C, B, decay, fed)
    rest = torch.exp(sums[:, :, -1:] - sums)
    added = torch.einsum("bmjhn,bmjh,bmjhe->bmhen", B, rest, fed)
    state, entering = torch.zeros_like(added[:, 0]), []
    for total, own in zip(sums[:, :, -1].unbind(1), added.unbind(1)):
        entering.append(state)
        state = torch.exp(total)[..., None, None] * state + own
    carried = torch.einsum("bmihn,bmhen,bmih->bmihe", C, torch.stack(entering, 1), torch.exp(sums))
    return (inside + carried).flatten(1, 2)[:, :length]


def gradients(call, inputs, dy):
    leaves = [value.detach().requires_grad_() for value in inputs.values()]
    y = call(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def timed(call, seconds, device):
    times = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    times = times[1:] or times
    return statistics.median(times), min(times)


def worst(actual, expected):
    return max(float((a.double() - e).abs().max() / e.abs().max())
               for a, e in zip(actual, expected))


def run(shape, options):
    inputs = make_inputs(shape, options.device, getattr(torch, options.dtype))
    dy = torch.randn(inputs["x"].shape, device=options.device).to(inputs["x"].dtype)
    exact = None
    if shape[0] * shape[1] <= 4096:
        exact = gradients(loop, {k: v.double() for k, v in inputs.items()}, dy.double())
    for name, call in (("serpentine", ours), ("chunks", chunks), ("loop", loop)):
        if name == "loop" and shape[1] > 5000:
            continue
        try:
            with torch.no_grad():
                forward = timed(lambda: call(*inputs.values()), options.seconds, options.device)
            both = timed(lambda: gradients(call, inputs, dy), options.seconds, options.device)
            error = worst(gradients(call, inputs, dy), exact) if exact else float("nan")
        except (RuntimeError, torch.OutOfMemoryError) as failure:
            print(f"{str(shape):32} {name:10} {str(failure).splitlines()[0][:90]}")
            continue
        print(f"{str(shape):32} {name:10} forward {forward[0]:9.2f} ({forward[1]:.2f}) ms, with "
              f"backward {both[0]:9.2f} ({both[1]:.2f}) ms, error {error:.1e}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", required=True)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=2.0, help="for each time")
    parser.add_argument("--only", help="cases whose shape as B,L,H,E,G,N contains this text")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.ops.load_library(options.library)
    for shape in SHAPES:
        if not options.only or options.only in ",".join(map(str, shape)):
            run(shape, options)


if __name__ == "__main__":
    main()
