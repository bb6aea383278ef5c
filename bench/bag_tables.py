#!/usr/bin/env python3
"""Cross-validates every model of bags and prints the tables of docs/results/pathology.md.

Usage: bag_tables.py --serpentine build/release/apps/serpentine --out runs/bags
                     [--lung DIR/hipt_tcga_lung.index.csv] [--mil DIR] [--only lung_ab_mil ...]
                     [--grid] [--pick 3] [--minutes 600] [--jobs 1] [--device cpu]

With --grid the candidates of a small grid are trained on the first PICK folds; the one with the
highest mean AUC over these folds' validation bags goes on to all folds. Test bags choose nothing.
Without, the configuration is trained as it is. MIL holds musk1.csv.gz and the like. A second call keeps what is finished; --minutes ends the queue
in good time, and a row whose folds are not all there says how many it has.
"""
import argparse
import concurrent.futures
import csv
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RATES = [[], ["optimizer.lr=2.0e-4", "trainer.epochs=20"], ["optimizer.lr=1.0e-3"]]
MIL_GRID = [[], ["optimizer.lr=2.0e-4", "trainer.epochs=80"], ["optimizer.lr=1.0e-3", "model.dropout=0.5"]]
LUNG = ["mean_mil", "max_mil", "ab_mil", "ab_mil_gated", "ds_mil", "clam_sb", "clam_mb", "mamba_mil",
        "bimamba_mil", "plain_mamba_mil", "s4_mil", "trans_mil"]  # from the cheapest on
MIL = ["musk1", "elephant", "ucsb_breast_cancer", "musk2"]


def rows(args):
    """Name, configuration, overrides of every run, grid, whether folds have validation bags."""
    found = []
    if args.mil:
        for model in ("ab_mil", "ab_mil_gated", "mamba_mil"):
            for table in MIL:
                data = [f"data.path={pathlib.Path(args.mil) / table}.csv.gz"]
                found.append((f"{table}_{model}", f"mil_classic_{model}", data, MIL_GRID, False))
    if args.lung:
        for model in LUNG:
            found.append((f"lung_{model}", f"tcga_lung_{model}", [f"data.path={args.lung}"], RATES, True))
    if args.only:
        return [row for name in args.only for row in found if row[0] == name]
    return found


def auc(path):
    """Of the second class, from a file of predictions."""
    with open(path, newline="") as file:
        pairs = [(float(r["logit1"]) - float(r["logit0"]), int(r["target"])) for r in csv.DictReader(file)]
    positive = [score for score, target in pairs if target == 1]
    negative = [score for score, target in pairs if target != 1]
    won = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return won / (len(positive) * len(negative)) if positive and negative else float("nan")


def finished(out):
    count = 0
    while (out / f"fold_{count}/calibration.json").exists():
        count += 1
    return count


def cross(args, config, overrides, folds, out, more=0):
    """Runs folds until they are there or the time is over (and `more` seconds); returns how many are there."""
    left = args.end + more - time.time()
    if finished(out) >= folds and (out / "summary.csv").exists() and json.loads(
            (out / "folds.json").read_text()) == folds:
        return folds
    if left < 5 and finished(out) < folds:
        return finished(out)
    out.mkdir(parents=True, exist_ok=True)
    command = [args.serpentine, "--threads", "1", "crossval", str(ROOT / f"configs/pathology/{config}.yaml"),
               f"trainer.device={args.device}", *overrides, "--folds", str(folds), "--out", str(out)]
    with open(out / "log.txt", "a") as log:
        try:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=max(left, 60)).returncode
        except subprocess.TimeoutExpired:
            return finished(out)
    if code:
        sys.exit(f"{' '.join(command)}: exit code {code}, see {out}/log.txt")
    (out / "folds.json").write_text(json.dumps(folds))
    return folds


def measured(args, row):
    """The chosen overrides, their validation AUC, folds done, and the table of the folds."""
    name, config, data, grid, validated = row
    scores = [] if args.grid else [(float("nan"), 0, [])]
    for number, candidate in enumerate(grid if args.grid else []):
        if config.endswith("ds_mil") and any("dropout" in word for word in candidate):
            candidate = [word for word in candidate if "dropout" not in word]
        out = pathlib.Path(args.out) / name / f"candidate{number}"
        extra = [] if validated else ["data.splits.validation=0.2"]
        began = time.time()
        done = cross(args, config, data + extra + candidate, args.pick, out)
        if done >= args.pick:
            value = statistics.mean(auc(out / f"fold_{k}/validation_predictions.csv") for k in range(args.pick))
            scores.append((value, number, candidate))
            print(f"{name} candidate {number}: validation AUC {value:.4f}, {time.time() - began:.0f} s",
                  file=sys.stderr, flush=True)
    if not scores:
        return None
    value, number, candidate = max(scores, key=lambda s: (s[0], -s[1]))
    out = pathlib.Path(args.out) / name / (f"candidate{number}" if validated else "all")
    began = time.time()
    done = cross(args, config, data + candidate, 10, out)
    print(f"{name}: {done} folds, {time.time() - began:.0f} s", file=sys.stderr, flush=True)
    if done == 0:
        return None
    if done < 10:  # a table of what is there
        cross(args, config, data + candidate, done, out, more=60)
    with open(out / "summary.csv", newline="") as file:
        table = {line["fold"]: line for line in csv.DictReader(file)}
    size = re.search(r"([\d,.]+[kM]?) parameters", (out / "log.txt").read_text())
    return candidate, value, len(scores) if args.grid else 0, done, table, size.group(1) if size else "?"


def number(table, line, column, digits=3):
    text = table[line].get(column) or ""
    return f"{float(text):.{digits}f}" if text else "-"


def table_line(args, row):
    result = measured(args, row) if time.time() < args.end else None
    if result is None:
        return ""
    chosen, value, tried, done, table, size = result
    pair = [f"{number(table, 'mean', c)} ({number(table, 'sd', c)})" for c in ("auc", "accuracy", "balanced_accuracy")]
    pooled = f"{number(table, 'pooled', 'auc')} ({number(table, 'pooled', 'auc_low')} to {number(table, 'pooled', 'auc_high')})"
    line = f"| {row[0]} | {' '.join(chosen) or 'as configured'} | {tried} | {value:.3f} | {done} | {size} | " \
           f"{pair[0]} | {pair[1]} | {pair[2]} | {pooled} |\n"
    (pathlib.Path(args.out) / row[0] / "line.md").write_text(line)
    return line


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serpentine", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--lung")
    parser.add_argument("--mil")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--grid", action="store_true", help="choose by validation bags")
    parser.add_argument("--pick", type=int, default=3, help="folds whose validation bags choose")
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time, one thread each")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.end = time.time() + 60 * args.minutes
    os.makedirs(args.out, exist_ok=True)
    print("| row | setting | chosen among | validation AUC | folds | parameters | AUC, mean (deviation) | accuracy | "
          "balanced accuracy | all folds together: AUC (95 % interval) |\n|---|---|---|---|---|---|---|---|---|---|")
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for line in pool.map(lambda row: table_line(args, row), rows(args)):
            print(line, end="", flush=True)


if __name__ == "__main__":
    main()
