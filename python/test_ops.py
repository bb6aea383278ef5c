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

    def draw_ssd(self, batch=2, length=23, heads=4, channels=3, groups=2, states=5):
        decay = -torch.rand(1, heads, generator=self.generator, dtype=torch.float64)
        return {
            "x": self.draw(batch, length, heads, channels),
            "dt": self.draw(batch, length, 1, heads),
            "A": decay.requires_grad_(),
            "B": self.draw(batch, length, 1, groups, states),
            "C": self.draw(batch, length, 1, groups, states),
            "D": self.draw(1, heads),
            "dt_bias": self.draw(1, heads)}

    def test_ssd_is_the_scan_with_one_decay_a_head(self):
        inputs = self.draw_ssd()
        state = self.draw(2, 1, 4, 3, 5)
        actual = serpentine.ssd(**inputs, initial_state=state, chunk=8, return_final_state=True)
        ys, lasts = [], []
        for head in range(4):
            group = head // 2
            y, last = scan_by_definition(
                inputs["x"][:, :, head], inputs["dt"][:, :, 0, head, None].expand(-1, -1, 3),
                inputs["A"][0, head].expand(3, 5), inputs["B"][:, :, 0, group],
                inputs["C"][:, :, 0, group], inputs["D"][0, head], inputs["dt_bias"][0, head],
                state[:, 0, head])
            ys.append(y)
            lasts.append(last)
        expected = torch.stack(ys, 2), torch.stack(lasts, 1).unsqueeze(1)
        self.expect_same(actual, expected, [*inputs.values(), state])

    def test_published_chunk_scan(self):
        inputs = self.draw_ssd()
        z = self.draw(2, 23, 4, 3)
        published = {name: value.squeeze(2 if name in ("dt", "B", "C") else 0)
                     for name, value in inputs.items() if name != "x"}
        actual = serpentine.mamba_chunk_scan_combined(
            inputs["x"], published.pop("dt"), published.pop("A"), published.pop("B"),
            published.pop("C"), chunk_size=8, z=z, dt_softplus=True, return_final_states=True,
            **published)
        y, state = serpentine.ssd(**inputs, return_final_state=True)
        self.expect_same(actual, (y * F.silu(z), state.squeeze(1)), [*inputs.values(), z])

    def test_steps_follow_the_scan(self):
        inputs = self.draw_ssd(length=6)
        one = {name: value.detach() for name, value in inputs.items()}
        y, last = serpentine.ssd(**one, return_final_state=True)
        state = torch.zeros(2, 4, 3, 5, dtype=torch.float64)
        spread = {"A": one["A"][0, :, None, None].expand(4, 3, 5),
                  "D": one["D"][0, :, None].expand(4, 3),
                  "dt_bias": one["dt_bias"][0, :, None].expand(4, 3)}
        for t in range(6):
            step = serpentine.selective_state_update(
                state, one["x"][:, t], one["dt"][:, t, 0, :, None].expand(2, 4, 3), spread["A"],
                one["B"][:, t, 0], one["C"][:, t, 0], spread["D"], dt_bias=spread["dt_bias"],
                dt_softplus=True)
            torch.testing.assert_close(step, y[:, t], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(state, last[:, 0], rtol=1e-9, atol=1e-9)

    def test_norms(self):
        x, z, residual = self.draw(2, 5, 12), self.draw(2, 5, 12), self.draw(2, 5, 12)
        weight, bias = self.draw(12), self.draw(12)
        parts = (x * F.silu(z)).unflatten(-1, (3, 4))
        normed = (parts * (parts.square().mean(-1, keepdim=True) + 1e-5).rsqrt()).flatten(-2)
        actual = serpentine.gated_rms_norm(x, weight, bias, z, group_size=4, norm_before_gate=False)
        self.expect_same([actual], [normed * weight + bias], [x, z, weight, bias])
        total = x + residual
        expected = F.layer_norm(total, (12,), weight, bias, 1e-5), total
        self.expect_same(serpentine.add_norm(x, residual, weight, bias, rms=False), expected,
                         [x, residual, weight, bias])

    def test_meta_tensors_have_the_shapes(self):
        inputs = {name: value.detach().to("meta") for name, value in self.draw_ssd().items()}
        y, state = serpentine.ssd(**inputs, return_final_state=True)
        self.assertEqual((y.shape, state.shape), ((2, 23, 4, 3), (2, 1, 4, 3, 5)))
        self.assertTrue(y.is_meta)
        scan = {name: value.detach().to("meta") for name, value in self.draw_scan().items()}
        y, state = serpentine.selective_scan(**scan, return_final_state=True)
        self.assertEqual((y.shape, state.shape), ((2, 37, 5), (2, 1, 5, 4)))

    def test_wrong_shapes_say_so(self):
        inputs = self.draw_scan()
        inputs["B"] = inputs["B"][:, :-1]
        with self.assertRaisesRegex(RuntimeError, "selective_scan: B must be"):
            serpentine.selective_scan(**inputs)
        with self.assertRaisesRegex(RuntimeError, "merge must be sum, mean or concat, got max"):
            serpentine.selective_scan(**self.draw_scan(), merge="max")


if __name__ == "__main__":
    unittest.main()
