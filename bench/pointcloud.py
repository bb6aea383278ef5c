"""Operations on points beside their peers: one run, one machine, in turns. See docs/benchmarks.md.

Usage: pointcloud.py WORKER [--threads 2] [--rounds 7] [--points 1024,100000,1000000] [--cloud FILE.npy]

WORKER is build/release/bench/bench_points. Peers are what can be imported of open3d, scipy and fpsample
(pip install open3d scipy fpsample); each is given the threads it can use, and what it builds (a tree)
is built in the timed call, as ours is. Times are medians over all rounds. What takes less than 20 ms
is called once more before the timed call, so that neither a process that was just woken nor a cache
full of another's data is measured. Before anything is timed the results are compared: nearest points
and farthest points must be the same but for ties, balls must hold the same points, voxels must be
those of a grid that begins where the peer's does, normals the same lines.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

import numpy as np


class Worker:
    def __init__(self, program, cloud, threads, device="cpu"):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask("load", cloud, threads)
        self.ask("device", device)

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def peers_of(points, threads):
    """{operation: {peer: function of (x, y)}}: what there is to call."""
    peers = {name: {} for name in ("farthest", "nearest", "ball", "voxel", "normals")}
    try:
        import open3d as o3d

        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.astype(np.float64)))
        tensor = o3d.core.Tensor(points)
        tensor_cloud = o3d.t.geometry.PointCloud(tensor)
        search = o3d.core.nns.NearestNeighborSearch

        def nearest(x, _):
            tree = search(tensor)
            tree.knn_index()
            return tree.knn_search(tensor, x)[0].numpy()

        def hybrid(x, y):
            tree = search(tensor)
            tree.hybrid_index(y)
            return tree.hybrid_search(tensor, y, x)[0].numpy()

        def normals(x, _):
            cloud.estimate_normals(o3d.geometry.KDTreeSearchParamKNN(x), fast_normal_computation=True)
            return np.asarray(cloud.normals)

        peers["farthest"]["open3d"] = lambda x, _: tensor_cloud.farthest_point_down_sample(x).point.positions.numpy()
        peers["nearest"]["open3d"] = nearest
        peers["ball"]["open3d"] = hybrid
        peers["voxel"]["open3d"] = lambda _, y: tensor_cloud.voxel_down_sample(y).point.positions.numpy()
        peers["voxel"]["open3d legacy"] = lambda _, y: np.asarray(cloud.voxel_down_sample(y).points)
        peers["normals"]["open3d"] = normals
    except ImportError:
        print("open3d cannot be imported; its columns stay empty")
    try:
        from scipy.spatial import cKDTree

        peers["nearest"]["scipy"] = lambda x, _: cKDTree(points).query(points, x, workers=threads)[1]
        peers["ball"]["scipy"] = lambda _, y: cKDTree(points).query_ball_point(points, y, workers=threads, return_sorted=False)
    except ImportError:
        print("scipy cannot be imported; its columns stay empty")
    try:
        import fpsample

        peers["farthest"]["fpsample"] = lambda x, _: fpsample.fps_sampling(points, x, start_idx=0)
        peers["farthest"]["fpsample buckets"] = lambda x, _: fpsample.bucket_fps_kdline_sampling(points, x, h=7, start_idx=0)
    except ImportError:
        print("fpsample cannot be imported; its columns stay empty")
    return peers


def voxels_of(points, ours, theirs, side):
    """Whether each has the voxels of its grid, and where theirs begins."""
    exact = points.astype(np.float64)
    count = lambda places: len(np.unique(np.floor(places), axis=0))
    least = exact.min(0)
    if ours != count((exact - least) / side):
        return f"{ours} voxels, which is wrong"
    begins = {"at the least coordinates": (exact - least) / side, "half a side lower": (exact - least) / side + 0.5, "at zero": points / np.float32(side)}
    found = [name for name, places in begins.items() if count(places) == theirs]
    return f"{ours} and {theirs} voxels" + (f", theirs begin {found[0]}" if found else ", why is not known")


def agreement(operation, points, ours, theirs, x, y):
    """How far two results are from one another, in words."""
    if operation == "farthest":
        theirs = theirs if theirs.ndim == 2 else points[theirs.astype(np.int64)]
        own = points[ours]
        if np.array_equal(own, theirs):
            return "same points"
        # where a tie was decided otherwise, or another point began: how far the samples reach
        reach = lambda chosen: np.sqrt(max(((points[i:i + 4096, None] - chosen[None]) ** 2).sum(2).min(1).max() for i in range(0, min(len(points), 40960), 4096)))
        return f"reach {reach(own):.4f} and {reach(theirs):.4f}"
    if operation == "nearest":
        far = lambda index: np.sort(((points[:2000, None] - points[index[:2000]]) ** 2).sum(2), 1)
        return f"distances differ by {np.abs(far(ours) - far(theirs)).max():.1e}"
    if operation == "ball":
        if theirs.dtype == object:  # every point inside, in any sequence
            same = all(set(ours[i]) == set(sorted(theirs[i])[:x]) for i in range(min(2000, len(points))))
            return "same points" if same else "other points"
        inside = ((points[:2000, None] - points[ours[:2000]]) ** 2).sum(2).max()
        return f"all within {np.sqrt(inside):.4f}"
    if operation == "voxel":
        return voxels_of(points, len(ours), len(theirs), y)
    cosine = np.abs((ours * theirs).sum(1))
    return f"median angle {np.degrees(np.arccos(min(1, np.median(cosine)))):.3f} degrees"


def cloud_of(count, path):
    """A scan's points, or points of a bumpy sphere: a surface, as scans have them."""
    if path:
        points = np.load(path)[:, :3].astype(np.float32)
        return points[np.random.default_rng(0).permutation(len(points))[:count]]
    random = np.random.default_rng(1)
    way = random.normal(size=(count, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    return (way * (1 + 0.1 * np.sin(9 * way[:, :1]) * np.sin(7 * way[:, 1:2]))).astype(np.float32)


def cases_of(count):
    """(operation, x, y, text): about ten points a ball, some hundred a voxel."""
    spacing = float(np.sqrt(4 * np.pi / count))
    return [
        ("farthest", min(count // 2, 1024), 0, f"farthest {min(count // 2, 1024):,}"),
        ("nearest", 16, 0, "16 nearest"),
        ("ball", 32, 2.5 * spacing, "ball, at most 32"),
        ("voxel", 0, 8 * spacing, "voxel grid"),
        ("normals", 16, 0, "normals of 16"),
    ]


def milliseconds(call, x, y):
    start = time.perf_counter()
    call(x, y)
    return 1e3 * (time.perf_counter() - start)


def measure(operation, x, y, worker, peers, rounds):
    ours = lambda warm: worker.ask("time", operation, x, y, 1, warm)["ms"][0]
    first = {name: milliseconds(call, x, y) for name, call in peers.items()}
    warm = {name: int(value < 20) for name, value in (first | {"serpentine": ours(0)}).items()}
    times = {name: [] for name in ["serpentine", *peers]}
    for _ in range(rounds):
        times["serpentine"].append(ours(warm["serpentine"]))
        for name, call in peers.items():
            if warm[name]:
                call(x, y)
            times[name].append(milliseconds(call, x, y))
    return {name: statistics.median(values) for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("worker")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--points", default="1024,100000,1000000")
    parser.add_argument("--cloud")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    print("| points | operation | serpentine, ms | peers, ms | over the best | results |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for count in map(int, arguments.points.split(",")):
            points = cloud_of(count, arguments.cloud)
            np.save(folder + "/cloud.npy", points)
            worker = Worker(arguments.worker, folder + "/cloud.npy", arguments.threads)
            every = peers_of(points, arguments.threads)
            for operation, x, y, text in cases_of(len(points)):
                peers = {k: v for k, v in every[operation].items() if not (len(points) > 200000 and operation == "farthest" and "buckets" not in k)}
                worker.ask("save", operation, x, y, folder + "/ours.npy")
                ours = np.load(folder + "/ours.npy")
                words = [f"{name}: {agreement(operation, points, ours, call(x, y), x, y)}" for name, call in peers.items()]
                median = measure(operation, x, y, worker, peers, arguments.rounds)
                own = median.pop("serpentine")
                shown = ", ".join(f"{name} {value:.3g}" for name, value in median.items())
                best = f"{min(median.values()) / own:.1f}" if median else "-"
                print(f"| {len(points):,} | {text} | {own:.3g} | {shown} | {best} | {'; '.join(words)} |", flush=True)
            worker.close()


if __name__ == "__main__":
    main()
