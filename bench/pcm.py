"""Point Cloud Mamba on the CPU beside its definition in plain PyTorch: the same weights, in turns.

    python bench/pcm.py build/release/bench/bench_points [--threads 2] [--rounds 15] [--precision bf16]

PCM-tiny with six prompts at either end of each of six orders classifies one cloud of 1,024 points.
The model is drawn at random in PyTorch and written under the published names; bench_points reads it
and must give the same logits before anything is timed. The plain version does without extensions, as
the published code does not: farthest points in a loop over the choices, neighbours by a product of
matrices and topk, all decays of a scan at once and a loop over its steps. --precision bf16 takes our
products in bfloat16 and leaves the plain version in float32. Needs torch, safetensors and numpy.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vision import Scan

ORDERS = ["xyz", "xzy", "yxz", "yzx", "zxy", "zyx"]
WIDTHS, BLOCKS, REDUCERS = [192, 192, 384, 384], [1, 1, 2, 2], [1, 2, 2, 2]
NEIGHBOURS, PROMPTS, CELL = 12, 6, 0.02


def point_layer(fan_in, fan_out):
    return nn.Sequential(nn.Conv1d(fan_in, fan_out, 1, bias=False), nn.BatchNorm1d(fan_out))


def farthest(points, count):
    chosen = torch.zeros(len(points), count, dtype=torch.long)
    distance = torch.full(points.shape[:2], 1e10)
    last, row = torch.zeros(len(points), dtype=torch.long), torch.arange(len(points))
    for i in range(count):
        chosen[:, i] = last
        distance = torch.minimum(distance, ((points - points[row, last][:, None]) ** 2).sum(2))
        last = distance.argmax(1)
    return chosen


def rows_of(x, index):
    return x[torch.arange(len(x)).view(-1, *[1] * (index.dim() - 1)), index]


def walk(points, order):
    """Line after line of cells, every second line and plane backwards; `order`: fastest axis first."""
    cells = torch.floor(points / CELL).long()
    cells = cells - cells.amin(1, keepdim=True)
    size = cells.amax((0, 1)) + 1
    axes = ["xyz".index(name) for name in order]
    key, count = cells[..., axes[0]], size[axes[0]]
    for axis in axes[1:]:
        line = cells[..., axis]
        key = line * count + torch.where(line % 2 == 1, count - 1 - key, key)
        count = count * size[axis]
    return key.argsort(dim=1, stable=True)


class Group(nn.Module):
    """Neighbourhoods of a stage, relative to their centres, and what is learnt of them."""

    def __init__(self, fan_in, fan_out, reducer):
        super().__init__()
        self.reducer = reducer
        self.alpha = nn.Parameter(torch.ones(1, 1, 1, fan_in + 3))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, fan_in + 3))
        self.transfer = point_layer(2 * fan_in + 3, fan_out)
        self.net1, self.net2 = point_layer(fan_out, fan_out), point_layer(fan_out, fan_out)

    def forward(self, points, x, residual):
        every, features = points, x
        if self.reducer > 1:
            index = farthest(points, points.shape[1] // self.reducer).sort(1).values
            points, x = rows_of(points, index), rows_of(x, index)
            residual = residual if residual is None else rows_of(residual, index)
        square = -2 * points @ every.transpose(1, 2)
        square = square + (points**2).sum(2)[:, :, None] + (every**2).sum(2)[:, None]
        near = square.topk(NEIGHBOURS, largest=False).indices
        grouped = torch.cat([rows_of(features, near), rows_of(every, near)], 3)
        grouped = grouped - torch.cat([x, points], 2)[:, :, None]
        grouped = grouped / (grouped.flatten(1).std(1).view(-1, 1, 1, 1) + 1e-5)
        grouped = self.alpha * grouped + self.beta
        grouped = torch.cat([grouped, x[:, :, None].expand(-1, -1, NEIGHBOURS, -1)], 3)
        flat = grouped.flatten(0, 1).transpose(1, 2)
        flat = F.relu(self.transfer(flat))
        flat = F.relu(self.net2(F.relu(self.net1(flat))) + flat)
        return points, flat.amax(2).view(*points.shape[:2], -1), residual


class Layer(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.Parameter(torch.ones(dim))
        self.in_proj = nn.Linear(dim, 4 * dim, bias=False)
        self.ahead = Scan(2 * dim, 16, math.ceil(dim / 16))
        self.back = Scan(2 * dim, 16, math.ceil(dim / 16))
        self.out_proj = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x, residual):
        residual = x if residual is None else x + residual
        xz = self.in_proj(F.rms_norm(residual, residual.shape[-1:], self.norm, 1e-5)).transpose(1, 2)
        y = self.ahead(xz) + self.back(xz.flip(-1)).flip(-1)
        return self.out_proj(y.transpose(1, 2)), residual


class PointCloudMamba(nn.Module):
    def __init__(self, classes=40):
        super().__init__()
        self.embedding = point_layer(3, WIDTHS[0])
        self.prompts = nn.Parameter(torch.randn(len(ORDERS) * PROMPTS, 384))
        before = [WIDTHS[0], *WIDTHS[:-1]]
        self.groups = nn.ModuleList(Group(*each) for each in zip(before, WIDTHS, REDUCERS))
        self.layers = nn.ModuleList(nn.ModuleList(Layer(w) for _ in range(n)) for w, n in zip(WIDTHS, BLOCKS))
        self.places = nn.ModuleList(nn.Linear(3, w, bias=False) for w in WIDTHS)
        self.prompt_maps = nn.ModuleList(nn.Linear(384, w, bias=False) for w in WIDTHS)
        self.wider = nn.ModuleList(nn.Linear(a, b, bias=False) if a != b else nn.Identity() for a, b in zip(before, WIDTHS))
        norm = lambda a, b: nn.Sequential(nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU())
        self.head = nn.Sequential(norm(WIDTHS[-1], 512), norm(512, 256), nn.Linear(256, classes))

    def forward(self, points):
        x, residual, current, number = F.relu(self.embedding(points.transpose(1, 2))).transpose(1, 2), None, None, 0
        for stage, group in enumerate(self.groups):
            points, x, residual = group(points, x, residual)
            residual = residual if residual is None else self.wider[stage](residual)
            for layer in self.layers[stage]:
                order = ORDERS[number]
                if order != current:
                    index = walk(points, order)
                    points, x = rows_of(points, index), rows_of(x, index)
                    residual = residual if residual is None else rows_of(residual, index)
                    current = order
                x = x + self.places[stage](points)
                own = self.prompt_maps[stage](self.prompts[number * PROMPTS:(number + 1) * PROMPTS]).expand(len(x), -1, -1)
                both = lambda rows: rows if rows is None else torch.cat([own, rows, own], 1)
                x, residual = (rows[:, PROMPTS:-PROMPTS] for rows in layer(both(x), both(residual)))
                number += 1
        return self.head(x.amax(1))

    def published(self):
        """The state dict under the published names."""
        out = {"encoder.order_prompt.weight": self.prompts}

        def put(name, module):
            out.update({f"{name}.{key}": value for key, value in module.state_dict().items()})

        put("encoder.embedding.net", self.embedding)
        for s, group in enumerate(self.groups):
            at = f"encoder.pre_blocks_list.{s}."
            put(at + "transfer.net", group.transfer)
            put(at + "operation.0.net1", group.net1)
            put(at + "operation.0.net2", group.net2)
            out[f"encoder.local_grouper_list.{s}.affine_alpha"] = group.alpha
            out[f"encoder.local_grouper_list.{s}.affine_beta"] = group.beta
            put(f"encoder.pos_proj.{s}", self.places[s])
            put(f"encoder.order_prompt_proj.{s}", self.prompt_maps[s])
            put(f"encoder.residual_proj_blocks_list.{s}", self.wider[s])
            for i, layer in enumerate(self.layers[s]):
                at = f"encoder.mamba_blocks_list.{s}.{i}."
                out[at + "norm.weight"] = layer.norm
                put(at + "mixer.in_proj", layer.in_proj)
                put(at + "mixer.out_proj", layer.out_proj)
                for tag, scan in (("", layer.ahead), ("_b", layer.back)):
                    for name, value in scan.named_parameters():
                        name = "A_b_log" if name == "A_log" and tag else name
                        first, dot, rest = name.partition(".")
                        out[at + "mixer." + (first if first == "A_b_log" else first + tag) + dot + rest] = value
        for place, number in ((0, 0), (1, 2)):
            put(f"prediction.head.{number}.0", self.head[place][0])
            put(f"prediction.head.{number}.1", self.head[place][1])
        put("prediction.head.4.0", self.head[2])
        return {name: value.detach().clone().contiguous() for name, value in out.items()}


def trained_looking(model):
    """Norms with statistics of their own, so that they are seen if they are wrong."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.8, 1.2)
            module.bias.data.normal_(0, 0.1)
    return model


def keep_freed_memory():
    """Starts this program again with freed blocks kept by the process, as the program serpentine sets
    it for itself: page faults are neither side's own."""
    wanted = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=268435456:glibc.malloc.trim_threshold=1073741824",
              "THP_MEM_ALLOC_ENABLE": "1"}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)


def main():
    keep_freed_memory()
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("worker")
    options.add_argument("--threads", type=int, nargs="+", default=[2])
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    given = options.parse_args()
    torch.manual_seed(1)
    model = trained_looking(PointCloudMamba()).eval()
    way = torch.randn(1024, 3)
    cloud = (way / way.norm(dim=1, keepdim=True) * (0.9 + 0.1 * torch.sin(9 * way[:, :1]))).float()
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        at = lambda name: os.path.join(folder, name)
        save_file(model.published(), at("weights.safetensors"))
        np.save(at("cloud.npy"), cloud.numpy())
        with open(at("model.yaml"), "w") as file:
            file.write("type: pcm_cls\nclasses: 40\n")
        worker = subprocess.Popen([given.worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def ask(*words):
            print(*words, file=worker.stdin, flush=True)
            answer = worker.stdout.readline()
            if not answer:
                raise SystemExit("bench_points ended")
            return json.loads(answer)

        print("| threads | ours, ms (least) | plain PyTorch, ms (least) | over | largest difference of logits |")
        print("| --- | --- | --- | --- | --- |")
        for threads in given.threads:
            torch.set_num_threads(threads)
            ask("load", at("cloud.npy"), threads)
            ask("model", at("model.yaml"), at("weights.safetensors"))
            ask("precision", given.precision)
            ask("save", "classes", 0, 0, at("logits.npy"))
            truth = model(cloud[None])[0]
            apart = (torch.from_numpy(np.load(at("logits.npy"))) - truth).abs().max() / truth.abs().max()
            if apart > {"fp32": 1e-3, "bf16": 5e-2}[given.precision]:
                raise SystemExit(f"the logits differ by {apart:.1e} of the largest: nothing is timed")
            ours, plain = [], []
            for _ in range(given.rounds):
                ours += ask("time", "classes", 0, 0, 1, 1)["ms"]
                start = time.perf_counter()
                model(cloud[None])
                plain.append(1e3 * (time.perf_counter() - start))
            own, other = statistics.median(ours), statistics.median(plain)
            print(f"| {threads} | {own:.3g} ({min(ours):.3g}) | {other:.3g} ({min(plain):.3g}) | {other / own:.1f} | {apart:.1e} |", flush=True)
        worker.stdin.close()
        worker.wait()


if __name__ == "__main__":
    main()
