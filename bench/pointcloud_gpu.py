"""Operations on points on a GPU beside plain torch and the published extension: one run, in turns.

Usage: pointcloud_gpu.py WORKER [--rounds 30]

WORKER is build/cuda/bench/bench_points. Beside it run the definitions in plain torch, written here,
and pointnet2_ops' extension for farthest points and balls where it can be imported as
`pointnet2_batch_cuda`. A time is from the call until the GPU has finished, the median of the rounds
after three calls that do not count. Results are compared before anything is timed.
"""

import argparse
import statistics
import tempfile
import time

import numpy as np
import torch
from pointcloud import Worker


def farthest(points, x, _):
    batch, count, _ = points.shape
    distance = points.new_full((batch, count), 1e10)
    chosen = torch.zeros(batch, x, dtype=torch.long, device=points.device)
    last = chosen[:, 0]
    rows = torch.arange(batch, device=points.device)
    for i in range(1, x):
        distance = torch.minimum(distance, (points - points[rows, last][:, None]).square().sum(-1))
        last = distance.argmax(1)
        chosen[:, i] = last
    return chosen


def in_blocks(points, find):
    each = max(1, 64_000_000 // (points.shape[0] * points.shape[1]))
    return torch.cat([find(block) for block in points.split(each, 1)], 1)


def nearest(points, x, _):
    return in_blocks(points, lambda block: torch.cdist(block, points).topk(x, -1, largest=False)[1])


def ball(points, x, y):
    numbers = torch.arange(points.shape[1], device=points.device)

    def find(block):
        inside = torch.cdist(block, points) < y
        first = torch.where(inside, numbers, len(numbers)).topk(x, -1, largest=False)[0].sort(-1)[0]
        return torch.where(first == len(numbers), first[..., :1], first)

    return in_blocks(points, find)


def cells(points, side):
    index = torch.floor(points / side).long()
    return index - index.amin(1, keepdim=True)


def snake(points, _, side):
    index = cells(points, side)
    x, y, z = index.unbind(-1)
    width, height = index.amax((0, 1))[:2] + 1
    line = torch.where(y % 2 == 1, width - 1 - x, x) + y * width
    return (z * width * height + torch.where(z % 2 == 1, width * height - 1 - line, line)).argsort(dim=1, stable=True)


def z_order(points, _, side):
    index = cells(points, side)
    key = 0
    for bit in range(20):
        for axis in range(3):
            key = key | ((index[..., axis] >> bit) & 1) << (3 * bit + 2 - axis)
    return key.argsort(dim=1, stable=True)


def published():
    try:
        import pointnet2_batch_cuda as extension
    except ImportError as error:
        print("the published extension is left out:", error)
        return {}

    def fps(points, x, _):
        batch, count, _ = points.shape
        distance = points.new_full((batch, count), 1e10)
        out = torch.empty(batch, x, dtype=torch.int32, device=points.device)
        extension.furthest_point_sampling_wrapper(batch, count, x, points, distance, out)
        return out

    return {"farthest": fps}


def milliseconds(call):
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def sphere(batch, count):
    random = np.random.default_rng(1)
    way = random.normal(size=(batch, count, 3))
    way /= np.linalg.norm(way, axis=2, keepdims=True)
    return (way * (1 + 0.1 * np.sin(9 * way[..., :1]) * np.sin(7 * way[..., 1:2]))).astype(np.float32)


def cases(batch, count):
    spacing = float(np.sqrt(4 * np.pi / count))
    few = [("farthest", min(count // 2, 1024), 0, f"farthest {min(count // 2, 1024):,}", farthest)]
    if count <= 100_000:
        few += [("nearest", 16, 0, "16 nearest", nearest), ("ball", 32, 2.5 * spacing, "ball, at most 32", ball)]
    side = 0.02 if batch > 1 else 0.002
    return few + [("walk-xyz", 0, side, "traverse xyz", snake), ("walk-z", 0, side, "z-order", z_order),
                  ("walk-hilbert", 0, side, "Hilbert", None)]


def same(operation, ours, theirs, points):
    """The share of rows with the same points; of neighbours, by their distances."""
    if operation != "nearest":
        return float((ours == theirs).float().mean())
    apart = [(points[0, :1000, None] - points[0][index[0, :1000]]).square().sum(-1) for index in (ours, theirs)]
    return float((apart[0] - apart[1]).abs().max())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("worker")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    extension = published()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print("| clouds | operation | serpentine, ms | plain torch, ms | over it | extension, ms | over it | equal |\n" + "|---" * 8 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for batch, count in ((32, 1024), (32, 8192), (1, 100_000), (1, 1_000_000)):
            cloud = sphere(batch, count)
            np.save(folder + "/cloud.npy", cloud)
            worker, points = Worker(arguments.worker, folder + "/cloud.npy", 1, "cuda"), torch.from_numpy(cloud).cuda()
            for operation, x, y, text, plain in cases(batch, count):
                worker.ask("save", operation, x, y, folder + "/ours.npy")
                found = torch.from_numpy(np.load(folder + "/ours.npy")).cuda()
                row, peers = [], {"plain": plain, "extension": extension.get(operation)}
                equal = [f"{same(operation, found, call(points, x, y), points):.6g}" for call in peers.values() if call]
                times = {name: [] for name in ["ours", *peers]}
                slow = count > 8192 and operation == "farthest"
                for turn in range(3, -1, -1):
                    rounds = 2 if turn or slow else arguments.rounds
                    ours = worker.ask("time", operation, x, y, rounds, 1)["ms"]
                    theirs = {name: [milliseconds(lambda: call(points, x, y)) for _ in range(rounds)] for name, call in peers.items() if call}
                    if turn == 0:
                        times = {"ours": ours, **theirs}
                own = statistics.median(times["ours"])
                for name in peers:
                    value = statistics.median(times[name]) if times.get(name) else None
                    row += [f"{value:.3f} | {value / own:.1f}" if value else "- | -"]
                print(f"| {batch} x {count:,} | {text} | {own:.3f} | {' | '.join(row)} | {', '.join(equal)} |", flush=True)
            worker.close()


if __name__ == "__main__":
    main()
