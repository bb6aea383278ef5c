"""The ladder's cases of state space duality, beside mamba_ssm's Triton kernels. See ladder.py."""

import math

import torch

# name, batch, length, heads, channels a head, states
SHAPES = [("m2_130m", 8, 2048, 24, 64, 128), ("m2_1.3b", 4, 4096, 64, 64, 128),
          ("bag_100k", 1, 100000, 16, 64, 128), ("vision_196", 64, 196, 12, 64, 128)]


def find_peer():
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
        return mamba_chunk_scan_combined
    except Exception as error:
        print("mamba_ssm's Triton kernels are left out:", error)
        return None


def duality(ladder, peers, bandwidth):
    """Operands as a trained Mamba-2 block has them: A in -1 .. -16, steps of 1e-3 to 1e-1."""
    peer = peers.get("ssd", find_peer())
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for name, batch, length, heads, channels, states in SHAPES:
        case = f"ssd {name}"
        if not ladder.wants(case):
            continue
        for kind in ladder.options.types:
            def draw(*shape, scale=1.0, dtype=types[kind]):
                return (torch.randn(*shape, device="cuda") * scale).to(dtype).requires_grad_()

            x, dt = draw(batch, length, heads, channels), draw(batch, length, heads, scale=0.5)
            B, C = draw(batch, length, 1, states), draw(batch, length, 1, states)
            A = (-1 - 15 * torch.rand(heads, device="cuda")).requires_grad_()
            step = torch.exp(torch.empty(heads, device="cuda").uniform_(
                math.log(1e-3), math.log(1e-1)))
            bias = (step + torch.log(-torch.expm1(-step))).requires_grad_()
            D = torch.ones(heads, device="cuda").requires_grad_()
            leaves = [x, dt, A, B, C, D, bias]

            def ours():
                return torch.ops.serpentine.mamba_chunk_scan_combined(
                    x, dt, A, B, C, D=D, dt_bias=bias, dt_softplus=True)[0]

            # each row read once and written once; the products are not the bound at these widths
            rows = batch * length * x.element_size()
            few = 2 * states + heads
            bounds = (rows * (2 * heads * channels + few) / bandwidth * 1e3,
                      rows * (3 * heads * channels + 2 * few) / bandwidth * 1e3)
            ladder.measure(case, kind, "ours", ours, leaves, bounds)
            if peer is not None:
                ladder.measure(case, kind, "mamba_ssm", lambda: peer(
                    x, dt, A, B, C, 256, D=D, dt_bias=bias, dt_softplus=True), leaves, bounds)
