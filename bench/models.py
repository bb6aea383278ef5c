"""Whole models beside the programs that published them: same weights, same inputs, one run, one GPU.

  python bench/models.py --serpentine build/cuda/apps/serpentine --peers PEERS --out models.json

PEERS holds the originals' Python, one folder for each family (vim, vmamba, smamba, ...);
what they share and their extensions come by PYTHONPATH. Each family runs in a process of its own,
for some bring different packages of one name. A family whose original cannot be imported is left
out, with the reason.

The original is drawn at random and writes its state dict, which `serpentine info` and `parity`
read. Checked: the output of a small batch in fp32, ours on the CPU, the original's on the GPU.
Timed, on both sides alike: the forward pass in evaluation mode without gradients, and a training
step (forward, mean of the squared output in fp32, backward, AdamW; the original's is the fused
one), from the call until the device has finished, so that the host's time counts, the median of at
least 20 after a warm-up. The original goes before and after ours, and its better median counts.
Memory is what the pass adds at its peak to the allocated tensors: weights, inputs and the
optimiser's averages are left out. --graph times our step with forward and backward as one CUDA
graph (trainer.cuda_graph) as well.
"""

import argparse
import contextlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import torch.nn.functional as F
from torch import nn

TYPES = {"fp32": None, "tf32": None, "bf16": torch.bfloat16}


def allow_tf32(allowed):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


class Case:
    """A model of the original's with our YAML for it, and the inputs of one batch."""

    def __init__(self, name, build, ours, shape, precision, check=None, tuned=None, whats=("forward", "step")):
        self.name, self.build, self.ours, self.shape, self.precision = name, build, ours, shape, precision
        self.check = check  # the shape of the small batch; None: not compared
        self.tuned = tuned  # adds to our YAML what only the built original knows
        self.whats = whats

    def draw(self, shape):
        generator = torch.Generator().manual_seed(1)
        if len(shape) == 3 and shape[2] == 3:  # clouds in a shell: the original never samples points at the origin
            points = F.normalize(torch.randn(*shape, generator=generator), dim=-1)
            return points * (0.5 + 0.5 * torch.rand(*shape[:2], 1, generator=generator))
        return torch.randn(*shape, generator=generator)


def vim():
    import models_mamba
    build = models_mamba.vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2
    yield Case("Vim-tiny 224, batch 128", build, {"type": "vim", "image_size": [224]}, (128, 3, 224, 224), "bf16",
               (2, 3, 224, 224))


def vmamba():
    import vmamba as original
    yield Case("VMamba-T 224, batch 128", original.vmamba_tiny_s1l8, {"type": "vmamba", "dims": [96]},
               (128, 3, 224, 224), "bf16", (2, 3, 224, 224))


class FirstOutput(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)[0]


def mambamil():
    from models.MambaMIL import MambaMIL
    for tiles, precision in itertools.product((10_000, 50_000, 100_000), ("fp32", "tf32", "bf16")):
        yield Case(f"MambaMIL, {tiles} tiles",
                   lambda: FirstOutput(MambaMIL(1024, 2, 0.25, "relu", layer=2, rate=10, type="SRMamba")),
                   {"type": "mamba_mil", "in_dim": 1024, "classes": 2, "dropout": 0.25, "rate": 10},
                   (tiles, 1024), precision, (500, 1024) if tiles == 10_000 and precision == "fp32" else None,
                   whats=("step",))


def umamba():
    from nnunetv2.nets.UMambaEnc_3d import UMambaEnc
    plans = [("hippocampus 40x56x40, batch 9", (9, 1, 40, 56, 40), [32, 64, 128, 256], 3, ["1"] + ["2"] * 3),
             ("abdomen 40x224x192, batch 2", (2, 1, 40, 224, 192), [32, 64, 128, 256, 320, 320], 14,
              ["1", "1x2x2", "2", "2", "2", "1x2x2"])]
    for name, shape, features, classes, strides in plans:
        stages = len(features)
        steps = [[int(s) for s in text.split("x")] * (1 if "x" in text else 3) for text in strides]

        def build(shape=shape, features=features, classes=classes, steps=steps, stages=stages):
            return UMambaEnc(
                shape[2:], 1, stages, features, nn.Conv3d, [[3, 3, 3]] * stages, steps, [2] * stages, classes,
                [2] * (stages - 1), conv_bias=True, norm_op=nn.InstanceNorm3d,
                norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True})

        ours = {"type": "umamba_enc", "dims": 3, "in_channels": 1, "classes": classes, "features": features,
                "kernels": ["3"] * stages, "strides": strides, "convs": [2] * stages,
                "decoder_convs": [2] * (stages - 1), "deep_supervision": False, "input_size": list(shape[2:])}
        yield Case(f"U-Mamba Enc 3-D, {name}", build, ours, shape, "bf16",
                   (1, *shape[1:]) if name.startswith("hippo") else None)


def pcm():
    import openpoints.models.PCM.PCM  # noqa: F401  registers its classes
    import openpoints.models.classification.cls_base  # noqa: F401
    from openpoints.models.build import build_model_from_cfg
    orders = ["xyz", "xzy", "yxz", "yzx", "zxy", "zyx"]
    encoder = {"NAME": "PointMambaEncoder", "in_channels": 3, "embed_dim": 192, "groups": 1, "res_expansion": 1.0,
               "activation": "relu", "bias": False, "use_xyz": True, "normalize": "anchor",
               "dim_expansion": [1, 1, 2, 1], "pre_blocks": [1] * 4, "mamba_blocks": [1, 1, 2, 2],
               "pos_blocks": [0] * 4, "k_neighbors": [12] * 4, "reducers": [1, 2, 2, 2], "rms_norm": True,
               "residual_in_fp32": True, "fused_add_norm": True, "bimamba_type": "v2", "drop_path_rate": 0.1,
               "mamba_pos": True, "mamba_layers_orders": orders, "use_order_prompt": True,
               "prompt_num_per_order": 6}

    class Arguments(dict):
        __getattr__ = dict.get
        __setattr__ = dict.__setitem__

    def build():
        head = Arguments(NAME="ClsHead", num_classes=40, mlps=[512, 256], norm_args={"norm": "bn1d"})
        return build_model_from_cfg({"NAME": "BaseCls", "encoder_args": encoder, "cls_args": head})

    def tuned(model, ours):  # the original numbers its prompts as a set happens to iterate
        rows = {tuple(slot): order for slot, order in zip(model.encoder.per_layer_prompt_indexe, orders)}
        return {**ours, "prompt_rows": [rows[slot] for slot in sorted(rows)]}

    for precision in ("fp32", "tf32"):
        yield Case("PCM-tiny, 1024 points, batch 32", build, {"type": "pcm_cls", "published_order": True},
                   (32, 1024, 3), precision, (2, 1024, 3), tuned)


class Forecaster(nn.Module):
    """S-Mamba without time marks and without its unused parts."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x.clone(), None, None, None)  # it scales its input in place


def smamba():
    from types import SimpleNamespace
    from model.S_Mamba import Model
    for variates, layers, states in ((321, 3, 16), (862, 4, 32)):
        def build(layers=layers, states=states):
            model = Model(SimpleNamespace(
                seq_len=96, pred_len=96, d_model=512, d_ff=512, d_state=states, e_layers=layers, dropout=0.1, use_norm=True,
                activation="gelu", embed="timeF", freq="h", class_strategy="projection", output_attention=False))
            for layer in model.encoder.attn_layers:
                del layer.man, layer.man2, layer.a
            return Forecaster(model)

        ours = {"type": "s_mamba", "seq_len": 96, "pred_len": 96, "e_layers": layers, "d_state": states}
        for precision in ("fp32", "bf16"):
            yield Case(f"S-Mamba, {variates} variates, batch 16", build, ours, (16, 96, variates), precision,
                       (2, 96, variates) if precision == "fp32" else None)


class Attention(nn.Module):
    """DeiT's block: pre-norm attention by scaled_dot_product_attention, and an MLP of four widths."""

    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.norm2, self.heads = nn.LayerNorm(dim), nn.LayerNorm(dim), heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x):
        batch, length, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, dim)
        x = x + self.proj(y)
        return x + self.mlp(self.norm2(x))


class Deit(nn.Module):
    def __init__(self, size, depth, dim=192, heads=3, classes=1000):
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 16, 16)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.places = nn.Parameter(0.02 * torch.randn(1, (size // 16) ** 2 + 1, dim))
        self.blocks = nn.Sequential(*[Attention(dim, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


def deit():
    """Not the same weights: another model. Vim-tiny has 24 layers, DeiT-tiny 12."""
    for depth in (12, 24):
        yield Case(f"Vim-tiny beside DeiT-like of {depth} layers, 1248, batch 8", lambda depth=depth: Deit(1248, depth),
                   {"type": "vim", "image_size": [1248]}, (8, 3, 1248, 1248), "bf16",
                   whats=("forward", "step") if depth == 12 else ("forward",))


FAMILIES = {f.__name__: f for f in (vim, vmamba, mambamil, umamba, pcm, deit, smamba)}


class Original:
    def __init__(self, model, x, precision, device):
        self.model, self.device, self.type = model.to(device), device, TYPES[precision]
        self.x = x.to(device)
        allow_tf32(precision == "tf32")
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=device == "cuda")

    def once(self, train):
        with torch.autocast(self.device, dtype=self.type or torch.bfloat16, enabled=self.type is not None):
            if not train:
                with torch.no_grad():
                    self.model(self.x)
            else:
                loss = self.model(self.x).float().square().mean()
        if train:
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self.wait()

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def time(self, what, seconds):
        train = what == "step"
        self.model.train(train)
        for _ in range(5):
            self.once(train)
        times, begin = [], time.perf_counter()
        while len(times) < 20 or (time.perf_counter() - begin < seconds and len(times) < 200):
            start = time.perf_counter()
            self.once(train)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def peak(self, what):
        if self.device != "cuda":
            return -1
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self.once(what == "step")
        return torch.cuda.max_memory_allocated() - before


def run_ours(options, folder, what, precision, seconds, weights, graph=False):
    command = [options.serpentine, "info", f"{folder}/model.yaml", "--io", f"{folder}/io.safetensors", "--json",
               "--device", options.device, "--precision", precision, "--warmup", "5", "--repeats", "200",
               "--seconds", str(seconds)]
    command += ["--weights", f"{folder}/weights.safetensors"] if weights else []
    command += ["--train"] if what == "step" else []
    command += ["--graph"] if graph else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError("ours: " + (done.stderr.strip() or "failed").splitlines()[-1])
    return json.loads(done.stdout)


def difference(options, case, model, folder):
    """The largest difference of the outputs over the largest output, by `serpentine parity`."""
    from safetensors.torch import save_file
    x = case.draw(case.check)
    allow_tf32(False)
    with torch.no_grad():
        y = model.eval().to(options.device)(x.to(options.device))
    save_file({"input": x.contiguous(), "output": y.float().cpu().contiguous()}, f"{folder}/small.safetensors")
    done = subprocess.run([options.serpentine, "parity", f"{folder}/model.yaml", "--weights", f"{folder}/weights.safetensors",
                           "--io", f"{folder}/small.safetensors", "--tolerance", "1e-3"],
                          capture_output=True, text=True, check=False)
    found = re.search(r"^output +(\S+)", done.stdout, re.M)
    if not found:
        raise RuntimeError("parity: " + ((done.stderr + done.stdout).strip() or "failed").splitlines()[-1])
    return float(found.group(1))


def run_case(options, case, folder):
    from safetensors.torch import save_file
    torch.manual_seed(0)
    with contextlib.redirect_stdout(None):  # one original tells of every layer
        model = case.build()
    ours = case.tuned(model, case.ours) if case.tuned else case.ours
    weights = not isinstance(model, Deit)
    with open(f"{folder}/model.yaml", "w", encoding="utf-8") as file:
        json.dump({"model": ours}, file)  # JSON is YAML
    inner = model.model if isinstance(model, (FirstOutput, Forecaster)) else model
    if weights:
        state = {k: v.detach().clone().contiguous() for k, v in inner.state_dict().items()}
        save_file(state, f"{folder}/weights.safetensors")
    x = case.draw(case.shape)
    save_file({"input": x}, f"{folder}/io.safetensors")
    error = difference(options, case, model, folder) if case.check else None
    original = Original(model, x, case.precision, options.device)
    for what in case.whats:
        row = {"case": case.name, "what": what, "precision": case.precision, "error": error}
        row["peer_seconds"] = original.time(what, options.seconds)
        row["peer_bytes"] = original.peak(what)
        if options.device == "cuda":
            torch.cuda.empty_cache()
        mine = run_ours(options, folder, what, case.precision, options.seconds, weights)
        row["seconds"], row["bytes"], row["parameters"] = mine["seconds"], mine["peak_bytes"], mine["parameters"]
        row["peer_seconds"] = min(row["peer_seconds"], original.time(what, options.seconds))
        yield row
        if options.graph and what == "step":
            try:  # its memory lies in a pool of its own, which no peak tells
                graph = run_ours(options, folder, what, case.precision, options.seconds, weights, graph=True)
                yield {**row, "what": "step as one graph", "seconds": graph["seconds"], "bytes": -1}
            except RuntimeError as error:
                print(f"{case.name}, no graph: {str(error)[:150]}", flush=True)


def table_row(row):
    def memory(value):
        return "" if value < 0 else f"{value / 2**30:.2f} GiB"
    error = "" if row["error"] is None else f"{row['error']:.1e}"
    return (f"| {row['case']}, {row['what']}, {row['precision']} | {1e3 * row['seconds']:.2f} ms | "
            f"{1e3 * row['peer_seconds']:.2f} ms | {row['peer_seconds'] / row['seconds']:.2f} | {memory(row['bytes'])} | "
            f"{memory(row['peer_bytes'])} | {error} |")


def run_family(options):
    sys.path.pop(0)  # this file's folder: an original has a package called models
    try:
        cases = list(FAMILIES[options.family]())
    except Exception as error:
        print(f"{options.family} is left out: {type(error).__name__}: {str(error)[:300]}", flush=True)
        return
    for case in cases:
        if options.only not in (options.family, "") and options.only not in case.name:
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                for row in run_case(options, case, folder):
                    print(table_row(row), flush=True)
                    print("ROW " + json.dumps(row), file=sys.stderr, flush=True)
        except Exception as error:  # one case does not end the run
            print(f"{case.name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
        torch.cuda.empty_cache()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--serpentine", required=True)
    parser.add_argument("--peers", default="", help="folder with a folder of Python for each family")
    parser.add_argument("--only", default="", help="families or a part of a case's name, comma-separated")
    parser.add_argument("--seconds", type=float, default=0.6, help="of timing for each, at least 20 calls of the original")
    parser.add_argument("--graph", action="store_true", help="time our training step as one CUDA graph too (trainer.cuda_graph)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out")
    parser.add_argument("--family", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.family:
        run_family(options)
        return
    rows, begin = [], time.time()
    print("| case | ours | original | ratio | ours, memory | original, memory | largest difference |\n"
          "|---|--:|--:|--:|--:|--:|--:|", flush=True)
    wanted = [word for word in options.only.split(",") if word]
    for family in FAMILIES:
        words = [w for w in wanted if w not in FAMILIES or w == family]
        if wanted and not words:
            continue
        path = [f"{options.peers}/{family}"] + os.environ.get("PYTHONPATH", "").split(":")
        only = family if family in words or not wanted else words[0]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, "--serpentine", options.serpentine, "--family", family, "--only", only,
             "--seconds", str(options.seconds), "--device", options.device, *(["--graph"] if options.graph else [])],
            env={**os.environ, "PYTHONPATH": ":".join(path)}, stderr=subprocess.PIPE, text=True, check=False)
        lines = done.stderr.splitlines()
        rows += [json.loads(line[4:]) for line in lines if line.startswith("ROW ")]
        if done.returncode:
            print(f"{family}: ended with {done.returncode}: {lines[-1] if lines else ''}", flush=True)
    device = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    print(f"\n{device}, torch {torch.__version__}, {time.time() - begin:.0f} s", flush=True)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump({"device": device, "torch": torch.__version__, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
