#!/usr/bin/env python3
"""Trains every model of a data set with several seeds and prints the table of docs/results.

Usage: train_tables.py --serpentine build/cuda/apps/serpentine --set cifar10 --data DIR --out runs/cifar10
                       [--seeds 0 1 2] [--jobs 4] [--gpus 0 1 | --device cpu] [--only vim] [--set-key key.path=value ...]

DATA is what the configuration's `data.path` names. Every model is trained once with the first seed
before the second begins. Finished runs are kept: a second call goes on where the first stopped, and
prints what is there.
"""
import argparse
import concurrent.futures
import csv
import itertools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
IMAGES = ("accuracy", "top5", "ece")
PICTURES = ("dice", "iou", "auc")
SETS = {  # folder of configs, models, metrics of test.json (those that are there)
    "fashion_mnist": ("vision", ["vim", "shuffle", "vmamba", "efficient_vmamba"], IMAGES),
    "cifar10": ("vision", ["vim", "shuffle", "vmamba", "efficient_vmamba"], IMAGES),
    "breastmnist": ("vision", ["vim", "vmamba", "medmamba"], ("accuracy", "auc", "ece")),
    "modelnet10": ("pointcloud", ["pcm_tiny", "point_mamba", "mamba3d", "pointnet2"], ("accuracy", "mean_accuracy")),
    "dales": ("pointcloud", ["pcm_tiny", "point_mamba", "mamba3d", "pointnet2"], ("accuracy", "mean_accuracy")),
    "hippocampus": ("segmentation", ["unet", "resunet", "umamba_bot", "umamba_enc", "segmamba"],
                    ("dice", "dice_Anterior", "dice_Posterior")),
    "glas": ("segmentation", ["unet", "umamba_bot", "umamba_enc", "vmunet"], PICTURES),
    "drive": ("segmentation", ["unet", "umamba_bot", "umamba_enc", "vmunet"], PICTURES),
    "isbi2012": ("segmentation", ["unet", "umamba_bot", "umamba_enc", "vmunet"], PICTURES),
}


def train(args, model, seed, gpu):
    """Runs one model with one seed; returns its test metrics and its number of parameters."""
    run = pathlib.Path(args.out) / f"{model}_s{seed}"
    log = pathlib.Path(f"{run}.log")
    if not (run / "done").exists():
        folder = SETS[args.set][0]
        command = [args.serpentine, "train", str(ROOT / f"configs/{folder}/{args.set}_{model}.yaml"),
                   f"trainer.seed={seed}", f"data.path={args.data}", f"trainer.device={args.device}",
                   *args.set_key, "--out", str(run)]
        environment = dict(os.environ) if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
        began = time.time()
        with open(log, "w") as file:
            code = subprocess.call(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        print(f"{args.set} {model} seed {seed}: exit {code}, {time.time() - began:.0f} s", file=sys.stderr, flush=True)
        if code:
            return None
        (run / "done").touch()
    size = re.search(r"([\d,.]+ ?[kM]?) parameters", log.read_text())
    return measured_of(run), size.group(1) if size else "?"


def measured_of(run):
    """The test metrics; of sets without a test part those of the last validation."""
    if (run / "test.json").exists():
        return json.loads((run / "test.json").read_text())
    part = "validation/"
    with open(run / "metrics.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if any(v for k, v in row.items() if k.startswith(part))]
    return {k.removeprefix(part): float(v) for k, v in rows[-1].items() if k.startswith(part) and v}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serpentine", required=True)
    parser.add_argument("--set", required=True, choices=SETS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--gpus", nargs="*", default=[None], help="numbers of GPUs that runs are dealt to")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="*", help="models")
    parser.add_argument("--set-key", nargs="*", default=[], help="further key.path=value overrides")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    models, metrics = args.only or SETS[args.set][1], SETS[args.set][2]
    jobs = [(model, seed) for seed in args.seeds for model in models]
    gpus = itertools.cycle(args.gpus)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        waiting = {job: pool.submit(train, args, *job, next(gpus)) for job in jobs}
        results = {job: future.result() for job, future in waiting.items()}
    print(f"| model | parameters | seeds | {' | '.join(metrics)} |\n|{'---|' * (3 + len(metrics))}")
    for model in models:
        found = [results[model, seed] for seed in args.seeds if results[model, seed]]
        if not found:
            continue
        row = [model, found[0][1], str(len(found))]
        for name in metrics:
            values = [measured[name] for measured, _ in found if name in measured]
            row.append(f"{statistics.mean(values):.4f} ({statistics.pstdev(values):.4f})" if values else "-")
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
