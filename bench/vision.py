"""Vim on the CPU beside its definition in plain PyTorch: the same weights, in turns.

    python bench/vision.py --serpentine build/release/apps/serpentine [--threads 2] [--batches 1 8]

Vim-tiny (patch 16, 224 x 224, class token in the middle) is drawn at random in PyTorch, written as
a state dict under the published names, read by `serpentine convert`, compared by `serpentine
parity` and timed by `serpentine info`. The plain version is what the published code computes where
its CUDA extensions are absent: all decays of a sequence at once, then a loop over its steps. Needs
torch and safetensors.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import tempfile
import time

import torch
import torch.nn.functional as F
from torch import nn


class Scan(nn.Module):
    """One direction's parameters; names as published, `tag` is `_b` for the backward one."""

    def __init__(self, width, states, rank):
        super().__init__()
        self.conv1d = nn.Conv1d(width, width, 4, groups=width, padding=3)
        self.x_proj = nn.Linear(width, rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(rank, width)
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(width, 1))
        self.D = nn.Parameter(torch.ones(width))
        step = torch.exp(torch.rand(width) * math.log(100) + math.log(1e-3))
        self.dt_proj.bias.data = step + torch.log(-torch.expm1(-step))

    def forward(self, xz):
        x, z = xz.chunk(2, 1)
        length, states, rank = x.shape[2], self.A_log.shape[1], self.dt_proj.in_features
        x = F.silu(self.conv1d(x)[..., :length])
        dt, B, C = self.x_proj(x.transpose(1, 2)).split([rank, states, states], -1)
        dt = F.softplus(self.dt_proj(dt)).transpose(1, 2)
        decay = torch.exp(torch.einsum("bdl,dn->bdln", dt, -torch.exp(self.A_log)))
        added = torch.einsum("bdl,bln,bdl->bdln", dt, B, x)
        state, outputs = torch.zeros_like(decay[:, :, 0]), []
        for step in range(length):
            state = decay[:, :, step] * state + added[:, :, step]
            outputs.append(torch.einsum("bdn,bn->bd", state, C[:, step]))
        y = torch.stack(outputs, 2) + x * self.D[:, None]
        return y * F.silu(z)


class Block(nn.Module):
    def __init__(self, dim, states):
        super().__init__()
        self.norm = nn.Parameter(torch.ones(dim))
        self.in_proj = nn.Linear(dim, 4 * dim, bias=False)
        self.ahead = Scan(2 * dim, states, math.ceil(dim / 16))
        self.back = Scan(2 * dim, states, math.ceil(dim / 16))
        self.out_proj = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, hidden, residual):
        residual = hidden if residual is None else hidden + residual
        normed = F.rms_norm(residual, residual.shape[-1:], self.norm, 1e-5)
        xz = self.in_proj(normed).transpose(1, 2)
        y = (self.ahead(xz) + self.back(xz.flip(-1)).flip(-1)) / 2
        return self.out_proj(y.transpose(1, 2)), residual


class Vim(nn.Module):
    def __init__(self, dim=192, depth=24, states=16, classes=1000):
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 197, dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, states) for _ in range(depth))
        self.norm_f = nn.Parameter(torch.ones(dim))
        self.head = nn.Linear(dim, classes)

    def forward(self, images):
        x = self.patch(images).flatten(2).transpose(1, 2)
        middle = x.shape[1] // 2
        token = self.token.expand(len(x), -1, -1)
        hidden = torch.cat([x[:, :middle], token, x[:, middle:]], 1) + self.positions
        residual = None
        for block in self.blocks:
            hidden, residual = block(hidden, residual)
        last = (hidden + residual)[:, middle]
        return self.head(F.rms_norm(last, last.shape[-1:], self.norm_f, 1e-5))

    def published(self):
        """The state dict under the published names."""
        out = {"cls_token": self.token, "pos_embed": self.positions, "norm_f.weight": self.norm_f}
        for name, part in (("patch_embed.proj", self.patch), ("head", self.head)):
            out |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
        for i, block in enumerate(self.blocks):
            at = f"layers.{i}.mixer."
            out[f"layers.{i}.norm.weight"] = block.norm
            out[at + "in_proj.weight"] = block.in_proj.weight
            out[at + "out_proj.weight"] = block.out_proj.weight
            for tag, scan in (("", block.ahead), ("_b", block.back)):
                for name, value in scan.named_parameters():
                    name = "A_b_log" if name == "A_log" and tag else name
                    first, dot, rest = name.partition(".")
                    out[at + (first if first == "A_b_log" else first + tag) + dot + rest] = value
        return {name: value.detach().contiguous() for name, value in out.items()}


def call(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def plain_times(model, images, seconds):
    times = []
    with torch.inference_mode():
        model(images)
        end = time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            model(images)
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--serpentine", required=True)
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=4, help="of each turn")
    given = options.parse_args()
    torch.manual_seed(1)
    model = Vim().eval()
    with tempfile.TemporaryDirectory() as folder:
        weights, run = os.path.join(folder, "vim_tiny.pth"), os.path.join(folder, "run")
        torch.save({"model": model.published()}, weights)
        call([given.serpentine, "convert", weights, "-o", run])
        images = torch.randn(2, 3, 224, 224)
        from safetensors.torch import save_file
        with torch.inference_mode():
            save_file({"input": images, "output": model(images)}, os.path.join(folder, "io.safetensors"))
        print(call([given.serpentine, "parity", run, "--weights", weights, "--io", os.path.join(folder, "io.safetensors")]))
        print("| threads | batch | ours, images/s | plain PyTorch, images/s | over |")
        print("| --- | --- | --- | --- | --- |")
        for threads in given.threads:
            torch.set_num_threads(threads)
            for batch in given.batches:
                images, ours, plain = torch.randn(batch, 3, 224, 224), [], []
                for _ in range(given.rounds):
                    said = json.loads(call([
                        given.serpentine, "--threads", str(threads), "info", run, "--batch", str(batch),
                        "--seconds", str(given.seconds), "--device", "cpu", "--json"]))
                    ours.append(said["throughput"][0]["images_per_second"])
                    plain.append(batch / plain_times(model, images, given.seconds))
                ours, plain = statistics.median(ours), statistics.median(plain)
                print(f"| {threads} | {batch} | {ours:.3g} | {plain:.3g} | {ours / plain:.1f} |", flush=True)


if __name__ == "__main__":
    main()
