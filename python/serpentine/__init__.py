"""Serpentine's operators for PyTorch: loads libserpentine_torch.so and names what it registers.

The library must have been built against the torch that imports it. It lies beside this file;
SERPENTINE_TORCH_LIBRARY names another one.
"""

import os as _os

import torch as _torch

_torch.ops.load_library(
    _os.environ.get("SERPENTINE_TORCH_LIBRARY")
    or _os.path.join(_os.path.dirname(_os.path.abspath(__file__)), "libserpentine_torch.so"))


def selective_scan(u, delta, A, B, C, D=None, delta_bias=None, initial_state=None,
                   delta_softplus=True, *, tokens=None, offsets=None, branch=None, num_tokens=None,
                   rows="token", merge="sum", return_final_state=False):
    """The scan over channels-last rows, read and written through an order; differentiable.

    u [B, T, D] (rows="position": [B, P, D]), delta [B, T, K, D] or [B, P, D], A [K, D, N],
    B and C [B, T, K, N] or [B, P, N], D and delta_bias [K, D], initial_state [B, S, D, N].
    The order: tokens int32 [P] or [B, P] (-1 pads), offsets int32 [S + 1], branch int32 [S].
    Returns y [B, T, D], with return_final_state also the states [B, S, D, N].
    """
    y, state = _torch.ops.serpentine.selective_scan(
        u, delta, A, B, C, D, delta_bias, initial_state, delta_softplus, tokens=tokens,
        offsets=offsets, branch=branch, num_tokens=num_tokens, rows=rows, merge=merge,
        return_final_state=return_final_state)
    return (y, state) if return_final_state else y


def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False,
                      return_last_state=False):
    """The published call of mamba_ssm: u, delta, z [B, D, L], A [D, N], real.

    B and C [D, N], [B, N, L] or [B, G, N, L]; D and delta_bias [D]. Returns out [B, D, L], with
    return_last_state also the state [B, D, N].
    """
    out, state = _torch.ops.serpentine.selective_scan_fn(
        u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)
    return (out, state) if return_last_state else out


def causal_conv1d_fn(x, weight, bias=None, initial_states=None, return_final_states=False,
                     activation=None):
    """The published call of causal-conv1d: x [B, D, L], weight [D, W]; activation None or "silu"."""
    out, states = _torch.ops.serpentine.causal_conv1d_fn(
        x, weight, bias, initial_states, return_final_states, activation)
    return (out, states) if return_final_states else out
