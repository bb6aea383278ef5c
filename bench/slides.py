"""Tissue, tiles and tile reading of one slide: serpentine beside openslide-python with CLAM's method.

Usage: slides.py SERPENTINE SLIDE [--default-mpp M] [--repeat N] [--size S]

The peer is what CLAM does, in one process as its patching runs, and once more with its tiles read by
as many processes as there are cores (a DataLoader's workers): saturation, median filter, threshold,
closing, outlines and holes on an overview; tiles of S pixels whose centre lies in an outline;
coordinates to HDF5; then every tile read from the slide and converted to RGB, as before an encoder.
Ours is `serpentine tile`, which also measures each tile's sharpness and writes picture, outlines and
report. Both are timed inside their process, without start-up; the best of N runs counts. Processor
seconds (start-up taken off) are given too: on a machine that others use they say more.
Needs: pip install openslide-python openslide-bin opencv-python-headless numpy h5py
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import tempfile
import time

import cv2
import h5py
import numpy as np
import openslide


def overview_level(slide):
    return slide.get_best_level_for_downsample(64)


def tissue(slide):
    """Outlines in level-0 pixels, each with its holes."""
    level = overview_level(slide)
    scale = slide.level_downsamples[level]
    picture = np.array(slide.read_region((0, 0), level, slide.level_dimensions[level]))
    saturation = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGBA2RGB), cv2.COLOR_RGB2HSV)[:, :, 1]
    smooth = cv2.medianBlur(saturation, 7)
    _, mask = cv2.threshold(smooth, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((4, 4), np.uint8))
    found, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    pieces = []
    for index, outline in enumerate(found):
        if tree[0][index][3] == -1 and cv2.contourArea(outline) * scale**2 > 100 * 512**2 / 64:
            holes = [found[k] for k in range(len(found)) if tree[0][k][3] == index]
            pieces.append(((outline * scale).astype(np.int32), [(h * scale).astype(np.int32) for h in holes]))
    return pieces


def coordinates(slide, pieces, size):
    corners = []
    for outline, holes in pieces:
        x0, y0, w, h = cv2.boundingRect(outline)
        for y in range(y0, y0 + h, size):
            for x in range(x0, x0 + w, size):
                centre = (x + size / 2, y + size / 2)
                if cv2.pointPolygonTest(outline, centre, False) < 0:
                    continue
                if any(cv2.pointPolygonTest(hole, centre, False) > 0 for hole in holes):
                    continue
                corners.append((x, y))
    return np.array(corners)


shared = {}


def open_worker(path, size):
    shared["slide"], shared["size"] = openslide.open_slide(path), size


def read_tile(corner):
    picture = shared["slide"].read_region(tuple(map(int, corner)), 0, (shared["size"],) * 2).convert("RGB")
    return int(np.asarray(picture)[0, 0, 0])


def clam(path, size, workers, folder):
    begin = time.perf_counter()
    slide = openslide.open_slide(path)
    corners = coordinates(slide, tissue(slide), size)
    with h5py.File(os.path.join(folder, "coords.h5"), "w") as file:
        file.create_dataset("coords", data=corners)
    if workers == 1:
        open_worker(path, size)
        for corner in corners:
            read_tile(corner)
        return time.perf_counter() - begin, len(corners)
    spent = time.perf_counter() - begin
    with multiprocessing.Pool(workers, open_worker, (path, size)) as pool:
        pool.map(abs, range(workers))  # started before the clock
        begin = time.perf_counter()
        pool.map(read_tile, corners, chunksize=8)
        return spent + time.perf_counter() - begin, len(corners)


def ours(program, path, size, mpp, folder):
    out = os.path.join(folder, "tiles")
    shutil.rmtree(out, ignore_errors=True)
    command = [program, "tile", path, "-o", out, "--downsample", "1", "--size", str(size)]
    command += ["--default-mpp", str(mpp)] if mpp else []
    subprocess.run(command, check=True, capture_output=True)
    reports = os.listdir(os.path.join(out, "reports"))
    with open(os.path.join(out, "reports", reports[0]), encoding="utf-8") as file:
        report = json.load(file)
    return report["seconds"], report["tiles"]


def processor_seconds():
    """Of this process and of all its children that have ended."""
    return sum(r.ru_utime + r.ru_stime for r in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def start_up(program):
    begin = processor_seconds()
    subprocess.run([program, "--version"], check=True, capture_output=True)
    return processor_seconds() - begin


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("slide")
    parser.add_argument("--default-mpp", type=float, default=0)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            "CLAM's method, 1 process": lambda: clam(options.slide, options.size, 1, folder),
            f"CLAM's method, {cores} readers": lambda: clam(options.slide, options.size, cores, folder),
            "serpentine tile": lambda: ours(
                options.program, options.slide, options.size, options.default_mpp, folder
            ),
        }
        best, least = {}, {}
        for _ in range(options.repeat):  # in turn, so that other work of the machine meets all
            for name, run in kinds.items():
                spare = start_up(options.program) if name == "serpentine tile" else 0
                begin = processor_seconds()
                seconds, tiles = run()
                least[name] = min(least.get(name, 1e9), processor_seconds() - begin - spare)
                rate = tiles / seconds
                if name not in best or rate > best[name][2]:
                    best[name] = (seconds, tiles, rate)
    print(f"{options.slide}, tiles of {options.size} pixels, {cores} cores, OpenSlide {openslide.__library_version__}")
    base = best["CLAM's method, 1 process"][2]
    for name, (seconds, tiles, rate) in best.items():
        print(f"{name:28s} {seconds:7.3f} s {tiles:6d} tiles {rate:8.1f} tiles/s {rate / base:5.2f}x,"
              f" {1e3 * least[name] / tiles:6.2f} ms of a processor a tile")


if __name__ == "__main__":
    main()
