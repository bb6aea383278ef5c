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


def ssd(x, dt, A, B, C, D=None, dt_bias=None, initial_state=None, dt_softplus=True,
        dt_limit=(0.0, float("inf")), chunk=0, *, tokens=None, offsets=None, branch=None,
        num_tokens=None, rows="token", merge="sum", return_final_state=False):
    """State space duality over channels-last rows, read and written through an order; differentiable.

    x [B, T, H, E] (rows="position": [B, P, H, E]), dt [B, T, K, H] or [B, P, H], A and dt_bias
    [K, H], B and C [B, T, K, G, N] or [B, P, G, N], D [K, H] or [K, H, E], initial_state
    [B, S, H, E, N]. The order as of selective_scan. Returns y [B, T, H, E], with
    return_final_state also the states [B, S, H, E, N].
    """
    y, state = _torch.ops.serpentine.ssd(
        x, dt, A, B, C, D, dt_bias, initial_state, dt_softplus, *dt_limit, chunk, tokens=tokens,
        offsets=offsets, branch=branch, num_tokens=num_tokens, rows=rows, merge=merge,
        return_final_state=return_final_state)
    return (y, state) if return_final_state else y


def mamba_chunk_scan_combined(x, dt, A, B, C, chunk_size=0, D=None, z=None, dt_bias=None,
                              initial_states=None, seq_idx=None, cu_seqlens=None,
                              dt_softplus=False, dt_limit=(0.0, float("inf")),
                              return_final_states=False, return_varlen_states=False):
    """The published call of mamba_ssm: x, z [B, L, H, E], dt [B, L, H], A, dt_bias [H], B, C [B, L, G, N].

    D [H] or [H, E], initial_states [B, H, E, N], seq_idx [B, L], cu_seqlens [S + 1].
    """
    out, final, packed = _torch.ops.serpentine.mamba_chunk_scan_combined(
        x, dt, A, B, C, chunk_size, D, z, dt_bias, initial_states, seq_idx, cu_seqlens,
        dt_softplus, *dt_limit)
    asked = [out] + [final] * return_final_states + [packed] * return_varlen_states
    return tuple(asked) if len(asked) > 1 else out


def selective_state_update(state, x, dt, A, B, C, D=None, z=None, dt_bias=None,
                           dt_softplus=False):
    """One step of decoding, as mamba_ssm has it. state [B, D, N] or [B, H, D, N], changed in place."""
    return _torch.ops.serpentine.selective_state_update(
        state, x, dt, A, B, C, D, z, dt_bias, dt_softplus)


def gated_rms_norm(x, weight, bias=None, z=None, eps=1e-5, group_size=None, norm_before_gate=True):
    """RMS norm with a SiLU gate, as mamba_ssm's rmsnorm_fn of layernorm_gated."""
    return _torch.ops.serpentine.gated_rms_norm(
        x, weight, bias, z, eps, group_size, norm_before_gate)


def add_norm(x, residual, weight, bias=None, rms=True, eps=1e-5, residual_in_fp32=False):
    """The norm of x + residual, and that sum: RMS norm, or layer norm with rms=False."""
    return _torch.ops.serpentine.add_norm(x, residual, weight, bias, rms, eps, residual_in_fp32)
