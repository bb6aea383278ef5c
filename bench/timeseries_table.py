#!/usr/bin/env python3
"""Trains S-Mamba on every published cell and prints the table of docs/results/timeseries.md.

Usage: timeseries_table.py --serpentine build/release/apps/serpentine --data DIR --out runs/table
                           [--seeds 2023 2024 2025] [--jobs 2] [--device cpu] [--only etth1_96]

DIR holds the files of FILES below. Finished runs are kept, so a second
call goes on where the first stopped.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

# S-Mamba, arXiv 2403.11144, full results table: MSE and MAE of the test windows, lookback 96.
PAPER = {
    "etth1_96": (0.386, 0.405), "etth1_192": (0.443, 0.437),
    "etth1_336": (0.489, 0.468), "etth1_720": (0.502, 0.489),
    "etth2_96": (0.296, 0.348), "etth2_192": (0.376, 0.396),
    "etth2_336": (0.424, 0.431), "etth2_720": (0.426, 0.444),
    "ettm1_96": (0.333, 0.368), "ettm1_192": (0.376, 0.390),
    "ettm1_336": (0.408, 0.413), "ettm1_720": (0.475, 0.448),
    "ettm2_96": (0.179, 0.263), "ettm2_192": (0.250, 0.309),
    "ettm2_336": (0.312, 0.349), "ettm2_720": (0.411, 0.406),
    "weather_96": (0.165, 0.210), "weather_192": (0.214, 0.252),
    "weather_336": (0.274, 0.297), "weather_720": (0.350, 0.345),
    "exchange_96": (0.086, 0.207), "exchange_192": (0.182, 0.304),
    "exchange_336": (0.332, 0.418), "exchange_720": (0.867, 0.703),
}
FILES = {"etth1": "ETTh1.csv.gz", "etth2": "ETTh2.csv.gz", "ettm1": "ETTm1.csv.gz",
         "ettm2": "ETTm2.csv.gz", "weather": "weather.csv.gz", "exchange": "exchange_rate.txt.gz"}
ROOT = pathlib.Path(__file__).resolve().parent.parent


def train(args, cell, seed):
    """Runs one cell with one seed; returns its test metrics."""
    run = pathlib.Path(args.out) / f"{cell}_s{seed}"
    result = run / "test.json"
    if not result.exists():
        data = pathlib.Path(args.data) / FILES[cell.split("_")[0]]
        command = [args.serpentine, "train", str(ROOT / f"configs/timeseries/{cell}_s_mamba.yaml"),
                   f"trainer.seed={seed}", f"data.path={data}",
                   f"trainer.device={args.device}", "--out", str(run)]
        command += args.set
        began = time.time()
        with open(f"{run}.log", "w") as log:
            code = subprocess.call(command, stdout=log, stderr=subprocess.STDOUT,
                                   env={**os.environ, **args.env})
        print(f"{cell} seed {seed}: exit {code}, {time.time() - began:.0f} s",
              file=sys.stderr, flush=True)
        if code:
            return None
    return json.loads(result.read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serpentine", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2023, 2024, 2025])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="threads a run; 0: the default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", default=list(PAPER))
    parser.add_argument("--set", nargs="*", default=[], help="further key.path=value overrides")
    args = parser.parse_args()
    args.env = {"OMP_NUM_THREADS": str(args.threads)} if args.threads else {}
    os.makedirs(args.out, exist_ok=True)
    jobs = [(cell, seed) for seed in args.seeds for cell in args.only]  # every cell once first
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = dict(zip(jobs, pool.map(lambda job: train(args, *job), jobs)))
    print("| cell | seeds | MSE (sd) | paper | ratio | MAE (sd) | paper | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    ratios = []
    for cell in args.only:
        found = [results[cell, seed] for seed in args.seeds if results[cell, seed]]
        if not found:
            continue
        row = [cell, str(len(found))]
        for name, paper in zip(("mse", "mae"), PAPER[cell]):
            values = [r[name] for r in found]
            mean, spread = statistics.mean(values), statistics.pstdev(values)
            ratios.append(mean / paper)
            row += [f"{mean:.4f} ({spread:.4f})", f"{paper:.3f}", f"{mean / paper:.3f}"]
        print("| " + " | ".join(row) + " |")
    if ratios:
        print(f"\nMean ratio to the paper over {len(ratios)} figures: {statistics.mean(ratios):.4f}")


if __name__ == "__main__":
    main()
