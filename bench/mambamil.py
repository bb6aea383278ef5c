"""MambaMIL on a CPU: one bag through serpentine, and through the same model in plain PyTorch.

Usage: mambamil.py SERPENTINE [--tiles 50000] [--width 1024] [--hidden 512] [--layers 2] [--threads 2]

The peer is the model as its paper and published configuration describe it (SRMamba, rate 5), with
the scan and the convolution as the published pure-torch definitions compute them: all decays and
inputs of a sequence at once, then a loop over time. The published program itself has no path that
works on a CPU. Same weights; the logits of a short bag are compared first. Median of N runs of ours,
one of the peer's (its scan holds two arrays of 4 x tiles x 2 hidden x 16 bytes at a time). Processor
seconds are given too: on a machine that others use they say more.
Needs: torch, numpy.
"""

import argparse
import json
import os
import resource
import struct
import subprocess
import tempfile
import time

import numpy as np
import torch
import torch.nn.functional as F

STATES, WIDTH_OF_CONV, RATE = 16, 4, 5


def make_weights(width, hidden, layers, classes=2):
    torch.manual_seed(0)
    inner, rank = 2 * hidden, -(-hidden // 16)

    def linear(rows, columns):
        return torch.nn.init.xavier_normal_(torch.empty(rows, columns))

    weights = {"_fc1.0.weight": linear(hidden, width), "_fc1.0.bias": torch.zeros(hidden)}
    for layer in range(layers):
        norm, mixer = f"layers.{layer}.0.", f"layers.{layer}.1."
        weights |= {norm + "weight": torch.ones(hidden), norm + "bias": torch.zeros(hidden),
                    mixer + "in_proj.weight": linear(2 * inner, hidden),
                    mixer + "out_proj.weight": linear(hidden, inner)}
        for letter in ("", "_b"):
            weights |= {mixer + f"conv1d{letter}.weight": 0.3 * torch.randn(inner, 1, WIDTH_OF_CONV),
                        mixer + f"conv1d{letter}.bias": 0.1 * torch.randn(inner),
                        mixer + f"x_proj{letter}.weight": linear(rank + 2 * STATES, inner),
                        mixer + f"dt_proj{letter}.weight": linear(inner, rank),
                        mixer + f"dt_proj{letter}.bias": torch.full((inner,), -3.0),
                        mixer + f"A{letter}_log": torch.arange(1.0, STATES + 1).log().repeat(inner, 1),
                        mixer + f"D{letter}": torch.ones(inner)}
    return weights | {"norm.weight": torch.ones(hidden), "norm.bias": torch.zeros(hidden),
                      "attention.0.weight": linear(128, hidden), "attention.0.bias": torch.zeros(128),
                      "attention.2.weight": linear(1, 128), "attention.2.bias": torch.zeros(1),
                      "classifier.weight": linear(classes, hidden), "classifier.bias": torch.zeros(classes)}


def scan(u, delta, A, B, C, D, z):
    """u, delta, z: [1, D, L]; A: [D, N]; B, C: [1, N, L]."""
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    inputs = torch.einsum("bdl,bnl->bdln", delta * u, B)
    state = torch.zeros(1, u.shape[1], A.shape[1])
    ys = []
    for step in range(u.shape[2]):
        state = decay[:, :, step] * state + inputs[:, :, step]
        ys.append(torch.einsum("bdn,bn->bd", state, C[:, :, step]))
    return (torch.stack(ys, dim=2) + u * D.unsqueeze(-1)) * F.silu(z)


def branch(weights, mixer, letter, xz):
    x, z = xz.chunk(2, dim=1)
    length, inner = x.shape[2], x.shape[1]
    rank = weights[mixer + "dt_proj.weight"].shape[1]
    x = F.silu(F.conv1d(x, weights[mixer + f"conv1d{letter}.weight"], weights[mixer + f"conv1d{letter}.bias"],
                        padding=WIDTH_OF_CONV - 1, groups=inner)[..., :length])
    steps = weights[mixer + f"x_proj{letter}.weight"] @ x[0]
    delta = F.softplus(weights[mixer + f"dt_proj{letter}.weight"] @ steps[:rank]
                       + weights[mixer + f"dt_proj{letter}.bias"].unsqueeze(-1))
    B, C = steps[rank:rank + STATES], steps[rank + STATES:]
    return scan(x, delta.unsqueeze(0), -weights[mixer + f"A{letter}_log"].exp(), B.unsqueeze(0), C.unsqueeze(0),
                weights[mixer + f"D{letter}"], z)


def reordered(xz):
    """Slot r K + k holds column k R + r; zeros behind, which are cut off again by `restored`."""
    missing = -xz.shape[2] % RATE
    return F.pad(xz, (0, missing)).unflatten(2, (-1, RATE)).transpose(2, 3).flatten(2)


def restored(y, length):
    return y.unflatten(2, (RATE, -1)).transpose(2, 3).flatten(2)[..., :length]


def reference(weights, bag, layers):
    x = F.relu(F.linear(bag, weights["_fc1.0.weight"], weights["_fc1.0.bias"]))
    for layer in range(layers):
        norm, mixer = f"layers.{layer}.0.", f"layers.{layer}.1."
        normed = F.layer_norm(x, x.shape[-1:], weights[norm + "weight"], weights[norm + "bias"])
        xz = (weights[mixer + "in_proj.weight"] @ normed.t()).unsqueeze(0)
        y = branch(weights, mixer, "", xz) + restored(branch(weights, mixer, "_b", reordered(xz)), xz.shape[2])
        x = x + y[0].t() @ weights[mixer + "out_proj.weight"].t()
    x = F.layer_norm(x, x.shape[-1:], weights["norm.weight"], weights["norm.bias"])
    scores = F.linear(torch.tanh(F.linear(x, weights["attention.0.weight"], weights["attention.0.bias"])),
                      weights["attention.2.weight"], weights["attention.2.bias"])
    pooled = torch.softmax(scores, 0).t() @ x
    return F.linear(pooled, weights["classifier.weight"], weights["classifier.bias"])


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * 4
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.contiguous().numpy().tobytes())


def read_safetensor(path, name):
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        entry = json.loads(file.read(size))[name]
        file.seek(8 + size + entry["data_offsets"][0])
        return np.frombuffer(file.read(entry["data_offsets"][1] - entry["data_offsets"][0]),
                             np.float32).reshape(entry["shape"])


def compare(options, weights, model, folder):
    """The largest difference of the logits on a short bag, over the largest logit."""
    bag = torch.randn(777, options.width)
    write_safetensors(f"{folder}/weights.safetensors", weights)
    write_safetensors(f"{folder}/io.safetensors", {"input": bag})
    subprocess.run([options.program, "parity", model, "--weights", f"{folder}/weights.safetensors", "--io",
                    f"{folder}/io.safetensors", "--record"], check=True, capture_output=True)
    ours = torch.from_numpy(read_safetensor(f"{folder}/io.safetensors", "output").copy())
    with torch.no_grad():
        theirs = reference(weights, bag, options.layers)
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def run_ours(options, model, tiles, repeats):
    """The answer of `serpentine info`, and the processor seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([options.program, "--threads", str(options.threads), "info", model, "--tiles", str(tiles),
                           "--warmup", "0", "--repeats", str(repeats), "--seconds", "600", "--json"],
                          check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return json.loads(done.stdout)["bags"][0], spent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--tiles", type=int, default=50000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = make_weights(options.width, options.hidden, options.layers)
    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/model.yaml"
        with open(model, "w", encoding="ascii") as file:
            file.write(f"model: {{type: mamba_mil, in_dim: {options.width}, classes: 2, hidden: {options.hidden}, "
                       f"layers: {options.layers}, rate: {RATE}}}\n")
        print(f"logits of 777 tiles differ by {compare(options, weights, model, folder):.1e} of the largest")
        start_up = run_ours(options, model, 1, 1)[1]
        ours, spent = run_ours(options, model, options.tiles, options.repeat)
    spent = (spent - start_up) / (options.repeat + 1)  # one more pass measures the memory
    bag = torch.randn(options.tiles, options.width)
    with torch.no_grad():
        begin, processor = time.perf_counter(), time.process_time()
        reference(weights, bag, options.layers)
        theirs, processor = time.perf_counter() - begin, time.process_time() - processor
    print(f"{options.tiles} tiles of {options.width} features, {options.layers} layers of {options.hidden}, "
          f"{options.threads} threads, torch {torch.__version__}")
    print(f"plain PyTorch  {theirs:8.2f} s        {processor:8.2f} s of a processor")
    print(f"serpentine     {ours['seconds']:8.2f} s {theirs / ours['seconds']:5.1f}x {spent:8.2f} s of a processor "
          f"{processor / spent:5.1f}x, peak +{ours['peak_bytes'] / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
