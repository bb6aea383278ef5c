"""The scan and its gradients in float64, straight from the formula: what every result is held against."""

import numpy as np

NAMES = ("y", "du", "ddelta", "dA", "dB", "dC")


def _channels(u, delta, A, B, C, dy):
    """All six results for a few channels of one sequence: u, delta, dy [L, D], A [D, N], B, C [L, N]."""
    length, (channels, states) = len(u), A.shape
    dt = np.logaddexp(0.0, delta)
    h = np.zeros((length + 1, channels, states))
    decay = np.exp(dt[:, :, None] * A)
    for t in range(length):
        h[t + 1] = decay[t] * h[t] + (dt[t] * u[t])[:, None] * B[t]
    y = np.einsum("ldn,ln->ld", h[1:], C)
    if dy is None:
        return [y]
    g = np.zeros((channels, states))  # gradient of the state after step t
    du, ddt = np.empty_like(u), np.empty_like(u)
    dA, dB, dC = np.zeros_like(A), np.empty_like(B), np.einsum("ldn,ld->ln", h[1:], dy)
    for t in reversed(range(length)):
        g += dy[t][:, None] * C[t]
        dB[t] = (g * (dt[t] * u[t])[:, None]).sum(0)
        gB = g @ B[t]
        du[t] = gB * dt[t]
        g *= decay[t]
        gh = g * h[t]
        ddt[t] = gB * u[t] + (gh * A).sum(1)
        dA += gh * dt[t][:, None]
    ddelta = ddt / (1.0 + np.exp(-delta))
    return [y, du, ddelta, dA, dB, dC]


def scan(inputs, backward):
    """Results by name; `inputs` are float32 arrays by name."""
    batch, length, channels = inputs["u"].shape
    wide = {name: value.astype(np.float64) for name, value in inputs.items()}
    states = wide["A"].shape[1]
    block = max(1, 50_000_000 // (length * states))  # channels at a time: 400 MB of states
    rows, few = (batch, length, channels), (batch, length, states)
    shapes = dict(zip(NAMES, (rows, rows, rows, (channels, states), few, few)))
    results = {name: np.zeros(shapes[name]) for name in (NAMES if backward else NAMES[:1])}
    for b in range(batch):
        for d in range(0, channels, block):
            part = slice(d, d + block)
            values = _channels(wide["u"][b, :, part], wide["delta"][b, :, part], wide["A"][part],
                               wide["B"][b], wide["C"][b],
                               wide["dy"][b, :, part] if backward else None)
            for name, value in zip(NAMES, values):
                if name == "dA":
                    results[name][part] += value
                elif name in ("dB", "dC"):
                    results[name][b] += value
                else:
                    results[name][b, :, part] = value
    return results


def worst_error(folder, prefix, results):
    """Largest deviation of PREFIX.NAME.f32 from the results, over the largest value, and its name."""
    worst = (0.0, "")
    for name, expected in results.items():
        actual = np.fromfile(f"{folder}/{prefix}.{name}.f32", np.float32).reshape(expected.shape)
        error = float(np.abs(actual - expected).max() / np.abs(expected).max())
        worst = max(worst, (error if error == error else float("inf"), name))
    return worst
