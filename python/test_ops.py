"""The operators under torch.ops.serpentine against plain torch: values and gradients, in float64."""

import os
import sys
import unittest

try:
    import torch
except ImportError as error:
    print(f"skipped: this Python cannot import torch ({error})")
    sys.exit(77)

linked = os.environ.get("SERPENTINE_TORCH_ROOT", "")
if linked and os.path.realpath(linked) != os.path.realpath(os.path.dirname(torch.__file__)):
    print(f"skipped: the library is linked to {linked}, this Python imports {torch.__file__}")
    sys.exit(77)

import torch.nn.functional as F

import serpentine


def scan_by_definition(u, delta, A, B, C, D=None, delta_bias=None, state=None):
    """One sequence of one branch: u, delta [B, L, D], A [D, N], B, C [B, L, N]."""
    dt = F.softplus(delta if delta_bias is None else delta + delta_bias)
    h = u.new_zeros(u.shape[0], *A.shape) if state is None else state
    ys = []
    for t in range(u.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt * u)[:, t, :, None] * B[:, t, None]
        ys.append((h * C[:, t, None]).sum(-1))
    y = torch.stack(ys, 1)
    return (y if D is None else y + D * u), h


class Ops(unittest.TestCase):
    def setUp(self):
        self.generator = torch.Generator().manual_seed(1)

    def draw(self, *shape, scale=1.0):
        values = scale * torch.randn(*shape, generator=self.generator, dtype=torch.float64)
        return values.requires_grad_()

    def draw_scan(self, batch=2, length=37, channels=5, states=4, branches=1):
        decay = -(1 + torch.rand(branches, channels, states, generator=self.generator,
                                 dtype=torch.float64))
        return {
            "u": self.draw(batch, length, channels),
            "delta": self.draw(batch, length, branches, channels),
            "A": decay.requires_grad_(),
            "B": self.draw(batch, length, branches, states),
            "C": self.draw(batch, length, branches, states),
            "D": self.draw(branches, channels),
            "delta_bias": self.draw(branches, channels)}

    def branch(self, inputs, k):
        one = {name: inputs[name][:, :, k] for name in ("delta", "B", "C")}
        return {"u": inputs["u"], **one, **{n: inputs[n][k] for n in ("A", "D", "delta_bias")}}

    def expect_same(self, actual, expected, leaves):
        """Values and gradients of the sum of all outputs, each weighted at random."""
        weights = [torch.randn(e.shape, generator=self.generator, dtype=e.dtype) for e in expected]
        grads = []
        for outputs in (actual, expected):
            total = sum((w * o).sum() for w, o in zip(weights, outputs))
            grads.append(torch.autograd.grad(total, leaves))
        for a, e in zip([*actual, *grads[0]], [*expected, *grads[1]]):
            self.assertEqual(a.shape, e.shape)
            torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-9)

    def test_identity_order_with_states(self):
        inputs = self.draw_scan()
        state = self.draw(2, 1, 5, 4)
        leaves = [*inputs.values(), state]
        # states are float32 or wider: float64 inputs keep them float64
        actual = serpentine.selective_scan(**inputs, initial_state=state, return_final_state=True)
        y, last = scan_by_definition(**self.branch(inputs, 0), state=state[:, 0])
        self.expect_same(actual, (y, last.unsqueeze(1)), leaves)

    def test_two_directions_sum(self):
        inputs = self.draw_scan(branches=2)
        length = inputs["u"].shape[1]
        forward = torch.arange(length, dtype=torch.int32)
        actual = serpentine.selective_scan(
            **inputs, tokens=torch.cat([forward, forward.flip(0)]),
            offsets=torch.tensor([0, length, 2 * length], dtype=torch.int32),
            branch=torch.tensor([0, 1], dtype=torch.int32))
        second = self.branch(inputs, 1)
        for name in ("u", "delta", "B", "C"):
            second[name] = second[name].flip(1)
        expected = (scan_by_definition(**self.branch(inputs, 0))[0]
                    + scan_by_definition(**second)[0].flip(1))
        self.expect_same([actual], [expected], list(inputs.values()))

    def test_ragged_sequences_start_from_zero(self):
        inputs = self.draw_scan(length=11)
        cuts = [0, 4, 5, 11]
        actual = serpentine.selective_scan(
            **inputs, offsets=torch.tensor(cuts, dtype=torch.int32))
        whole = self.branch(inputs, 0)
        parts = [scan_by_definition(**{n: v[:, a:b] if v.dim() == 3 else v
                                       for n, v in whole.items()})[0]
                 for a, b in zip(cuts, cuts[1:])]
        self.expect_same([actual], [torch.cat(parts, 1)], list(inputs.values()))

    def test_float32_is_close(self):
        inputs = self.draw_scan(length=200, channels=24, states=16)
        single = {name: value.detach().float() for name, value in inputs.items()}
        expected = scan_by_definition(**self.branch(inputs, 0))[0]
        actual = serpentine.selective_scan(**single)
        self.assertEqual(actual.dtype, torch.float32)
        self.assertLess((actual - expected).abs().max() / expected.abs().max(), 2e-6)

    def test_published_scan(self):
        u, delta, z = (self.draw(2, 6, 15) for _ in range(3))
        A = (-torch.rand(6, 4, dtype=torch.float64, generator=self.generator)).requires_grad_()
        B, C = self.draw(2, 2, 4, 15), self.draw(2, 4, 15)
        D, bias = self.draw(6), self.draw(6)
        leaves = [u, delta, A, B, C, D, z, bias]
        actual = serpentine.selective_scan_fn(*leaves, delta_softplus=True, return_last_state=True)
        outs, states = [], []
        for group in range(2):  # three consecutive channels each; one C for both
            part = slice(3 * group, 3 * group + 3)
            y, last = scan_by_definition(
                u[:, part].mT, delta[:, part].mT, A[part], B[:, group].mT, C.mT, D[part], bias[part])
            outs.append(y.mT)
            states.append(last)
        expected = (torch.cat(outs, 1) * F.silu(z), torch.cat(states, 1))
        self.expect_same(actual, expected, leaves)

    def test_causal_conv1d(self):
        x, weight, bias = self.draw(2, 6, 19), self.draw(6, 4), self.draw(6)
        before = self.draw(2, 6, 3)
        padded = torch.cat([before, x], 2)
        expected = F.silu(F.conv1d(padded, weight.unsqueeze(1), bias, groups=6))
        actual = serpentine.causal_conv1d_fn(x, weight, bias, initial_states=before,
                                             return_final_states=True, activation="silu")
        self.expect_same(actual, (expected, padded[:, :, -3:]), [x, weight, bias, before])

    def test_wrong_shapes_say_so(self):
        inputs = self.draw_scan()
        inputs["B"] = inputs["B"][:, :-1]
        with self.assertRaisesRegex(RuntimeError, "selective_scan: B must be"):
            serpentine.selective_scan(**inputs)
        with self.assertRaisesRegex(RuntimeError, "merge must be sum, mean or concat, got max"):
            serpentine.selective_scan(**self.draw_scan(), merge="max")


if __name__ == "__main__":
    unittest.main()
