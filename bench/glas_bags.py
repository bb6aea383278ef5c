#!/usr/bin/env python3
"""GlaS from pixels to a label: trains an encoder, embeds the tiles, cross-validates by patient.

Usage: glas_bags.py --serpentine build/release/apps/serpentine --glas DIR --grades Grade.csv --out runs/glas
                    [--encoders colour own] [--models ab_mil mamba_mil] [--seeds 0 1 2] [--epochs 6]
                    [--augment 0]

DIR: Train_Folder/img/1.png ... and labelcol/ (instances, 0 outside glands), Test_Folder/ likewise, where
1 to 60 are testA and 61 to 80 testB. Grade.csv: the challenge's table, name, patient, grade. An image is a
bag; the encoder learns how much of a tile is gland, from the annotation alone, and never sees a grade.
A second call does what is missing. Needs NumPy and Pillow.
"""
import argparse
import csv
import pathlib
import re
import statistics
import subprocess
import sys

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
TILE, MPP = 112, 0.62  # pixels; micrometres of one (20x)


def images(glas):
    """Name in the challenge, picture, annotation of all 165."""
    for folder in ("Train_Folder", "Test_Folder"):
        for path in sorted((glas / folder / "img").glob("*.png"), key=lambda p: int(p.stem)):
            number = int(path.stem)
            name = f"train_{number}" if folder[1] == "r" else f"testA_{number}" if number <= 60 else f"testB_{number - 60}"
            yield name, path, glas / folder / "labelcol" / path.name


def read_grades(path):
    """Patient and grade by name; the table separates lines as old Macs do in some copies."""
    text = path.read_text().replace("\r\n", "\n").replace("\r", "\n")
    found = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if re.fullmatch(r"(train|testA|testB)_\d+", parts[0]):
            found[parts[0]] = (parts[1], parts[2])
    return found


def prepare(args):
    """Pictures under the challenge's names, the table of labels, and tiles in a folder a class of gland share."""
    grades = read_grades(args.grades)
    (args.out / "images").mkdir(parents=True, exist_ok=True)
    counts = {"few": 0, "some": 0, "most": 0}
    rows = []
    for name, picture, annotation in images(args.glas):
        patient, grade = grades[name]
        rows.append((name, f"patient_{patient}", grade))
        target = args.out / "images" / f"{name}.png"
        if not target.exists():
            target.symlink_to(picture.resolve())
        pixels, glands = np.asarray(Image.open(picture).convert("RGB")), np.asarray(Image.open(annotation).convert("L")) > 0
        for y in range(0, pixels.shape[0] - TILE + 1, TILE):
            for x in range(0, pixels.shape[1] - TILE + 1, TILE):
                share = glands[y : y + TILE, x : x + TILE].mean()
                kind = "few" if share < 0.25 else "most" if share > 0.75 else "some"
                counts[kind] += 1
                path = args.out / "tiles" / kind / f"{name}_{x}_{y}.png"
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels[y : y + TILE, x : x + TILE]).save(path)
    with open(args.out / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("slide_id", "case_id", "label")] + rows)
    patients = {row[1] for row in rows}
    print(f"{len(rows)} images of {len(patients)} patients, {sum(r[2] == 'malignant' for r in rows)} malignant; tiles {counts}")


def run(args, *words):
    command = [str(args.serpentine), *map(str, words)]
    print("$", " ".join(command), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(done.stdout[-3000:])
    return done.stdout


def embed(args, encoder):
    """The folder of features."""
    features = args.out / f"features_{encoder}"
    source = "colour"
    if encoder == "own":
        source = args.out / "encoder"
        if not (source / "test.json").exists():
            run(args, "train", ROOT / "configs/pathology/glas_encoder.yaml", "--out", source,
                f"data.path={args.out / 'tiles'}", f"trainer.epochs={args.epochs}", "trainer.device=cpu")
        print("encoder, tiles held out:", (source / "test.json").read_text().strip())
    words = ["embed-slides", args.out / "images", "--encoder", source, "-o", features, "--size", TILE, "--mpp", MPP,
             "--default-mpp", MPP, "--tissue", "fixed", "--threshold", 0, "--min-area", 0, "--no-read", "--device", "cpu"]
    if encoder == "own":
        words += ["--input-size", 56]
    if args.augment:
        words += ["--augment", args.augment]
    run(args, *words)
    return features


def crossval(args, encoder, features, model):
    """Fold means of every seed."""
    results = []
    for seed in args.seeds:
        out = args.out / f"{encoder}_{model}_{'aug_' if args.augment else ''}{seed}"
        words = [f"data.path={args.out / 'labels.csv'}", f"data.features={features}", f"trainer.seed={seed}",
                 f"data.splits.seed={seed}", "trainer.device=cpu"]
        if args.augment:
            words.append("data.augmented=true")
        run(args, "crossval", ROOT / f"configs/pathology/glas_{model}.yaml", "--folds", 5, "--out", out, *words)
        with open(out / "summary.csv", newline="") as file:
            results.append({row[next(iter(row))]: row for row in csv.DictReader(file)})
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serpentine", type=pathlib.Path, required=True)
    parser.add_argument("--glas", type=pathlib.Path, required=True)
    parser.add_argument("--grades", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--encoders", nargs="+", default=["colour", "own"], choices=["colour", "own"])
    parser.add_argument("--models", nargs="+", default=["ab_mil", "mamba_mil"], choices=["ab_mil", "mamba_mil"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--augment", type=int, default=0)
    args = parser.parse_args()
    prepare(args)
    print("| features | model | seeds | test AUC | balanced accuracy |\n|---|---|---|---|---|")
    for encoder in args.encoders:
        features = embed(args, encoder)
        for model in args.models:
            table = crossval(args, encoder, features, model)
            cells = []
            for metric in ("auc", "balanced_accuracy"):
                values = [float(one["mean"][metric]) for one in table]
                spread = f" ({statistics.stdev(values):.3f})" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.3f}{spread}")
            print(f"| {encoder} | {model} | {len(args.seeds)} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
