"""Metrics of `serpentine segment evaluate` beside those of SimpleITK and MONAI on the same masks.

Usage: segment_metrics.py SERPENTINE TRUTH [PREDICTED]

TRUTH and PREDICTED are folders of NIfTI files with the same names. Without PREDICTED, the truths are
given voxels of 2.5 x 0.8 x 0.6 mm and compared with copies of them that are moved and have a part
that is not there, at every second one an own label removed. Dice and the Hausdorff distance
come from SimpleITK, the 95 % Hausdorff distance, the mean distance of surfaces (both sides) and the
normalised surface distance at 1 and 2 mm from MONAI. Prints the largest differences, relative to values
above 1 (the table has six digits); the exit code is 1 where one exceeds 1e-5.
Needs: pip install SimpleITK monai (which needs torch)
"""

import csv
import glob
import math
import os
import subprocess
import sys
import tempfile

import numpy as np
import SimpleITK as sitk
import torch
from monai.metrics import (compute_average_surface_distance, compute_hausdorff_distance,
                           compute_surface_dice)

COLUMNS = ("dice", "hd_mm", "hd95_mm", "assd_mm", "nsd_1mm", "nsd_2mm")


def of_others(guess, truth, label):
    """{column: value} of one label."""
    a, b = guess == label, truth == label
    found = dict.fromkeys(COLUMNS, math.nan)
    voxels = [int(sitk.GetArrayViewFromImage(mask).sum()) for mask in (a, b)]
    if sum(voxels) == 0:
        return found
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(a, b)
    found["dice"] = overlap.GetDiceCoefficient()
    if min(voxels) == 0:
        found["nsd_1mm"] = found["nsd_2mm"] = 0.0
        return found
    distance = sitk.HausdorffDistanceImageFilter()
    distance.Execute(a, b)
    found["hd_mm"] = distance.GetHausdorffDistance()
    spacing = guess.GetSpacing()[::-1]
    y, y_pred = (torch.from_numpy(sitk.GetArrayFromImage(m).astype(np.float32))[None, None]
                 for m in (b, a))
    common = {"y_pred": y_pred, "y": y, "include_background": True, "spacing": spacing}
    found["hd95_mm"] = compute_hausdorff_distance(percentile=95, **common).item()
    found["assd_mm"] = compute_average_surface_distance(symmetric=True, **common).item()
    for tolerance in (1, 2):
        found[f"nsd_{tolerance}mm"] = compute_surface_dice(
            class_thresholds=[float(tolerance)], **common).item()
    return found


def make_pairs(truths, folder):
    """Folders of predictions and truths, made of the truths alone."""
    predicted, moved = f"{folder}/predicted", f"{folder}/truth"
    os.makedirs(predicted)
    os.makedirs(moved)
    for number, file in enumerate(sorted(glob.glob(os.path.join(truths, "*.nii*")))):
        image = sitk.ReadImage(file, sitk.sitkUInt8)
        image.SetSpacing((0.6, 0.8, 2.5))
        sitk.WriteImage(image, os.path.join(moved, os.path.basename(file)))
        voxels = np.roll(sitk.GetArrayFromImage(image), (1, number % 3, 2 - number % 4), (0, 1, 2))
        voxels[2:5, 2:5, 2:6] = 1
        if number % 2 == 1:
            voxels[voxels == 1 + number // 2 % 2] = 0
        guess = sitk.GetImageFromArray(voxels)
        guess.CopyInformation(image)
        sitk.WriteImage(guess, os.path.join(predicted, os.path.basename(file)))
    return predicted, moved


def main():
    serpentine, truths = sys.argv[1:3]
    made = tempfile.TemporaryDirectory()
    if len(sys.argv) > 3:
        predicted = sys.argv[3]
    else:
        predicted, truths = make_pairs(truths, made.name)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([serpentine, "segment", "evaluate", predicted, truths, "-o", folder],
                       check=True, stdout=subprocess.DEVNULL)
        with open(f"{folder}/cases.csv", encoding="utf-8") as file:
            ours = list(csv.DictReader(file))
    worst = dict.fromkeys(COLUMNS, 0.0)
    pairs = 0
    for row in ours:
        files = [glob.glob(os.path.join(where, row["case"] + ".nii*"))[0]
                 for where in (predicted, truths)]
        guess, truth = (sitk.ReadImage(file, sitk.sitkUInt8) for file in files)
        theirs = of_others(guess, truth, int(row["class"]))
        pairs += 1
        for column in COLUMNS:
            own = float(row[column]) if row[column] else math.nan
            both_undefined = math.isnan(own) and not math.isfinite(theirs[column])
            difference = 0.0 if both_undefined else abs(own - theirs[column]) / max(1, abs(own))
            if not difference <= worst[column]:
                worst[column] = difference
    print(f"{pairs} masks; largest differences:")
    for column in COLUMNS:
        print(f"  {column:8} {worst[column]:.2e}")
    sys.exit(0 if all(value <= 1e-5 for value in worst.values()) else 1)


if __name__ == "__main__":
    main()
