"""Peak memory of labelling one large volume: `serpentine segment predict` on N x N x N voxels.

Usage: segment_memory.py SERPENTINE [--size 512] [--classes 14] [--memory 8]

Writes a volume of noise with labels, lets the program plan it for the given memory, trains a network
of one channel for one step under that plan, and labels the volume. The peak of the process (as the
kernel counts it) is printed beside that of the same command when there is nothing to label, which
has the program, LibTorch and the network but no volume. Needs nothing but Python.
"""

import argparse
import os
import re
import struct
import subprocess
import tempfile
import time


def nifti(path, size, kind, slices):
    """An uncompressed NIfTI-1 file of size^3 voxels, 1 mm, orientated."""
    code, bits = {"int16": (4, 16), "uint8": (2, 8)}[kind]
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, size, size, size, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, code, bits)
    struct.pack_into("<8f", head, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, 352)
    struct.pack_into("<2h", head, 252, 0, 1)
    struct.pack_into("<12f", head, 280, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    head[344:348] = b"n+1\0"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(head)
        for part in slices:
            file.write(part)


def write_case(folder, size, classes):
    """Noise, and labels that change from row to row."""
    nifti(f"{folder}/images/case.nii", size, "int16",
          (os.urandom(2 * size * size) for _ in range(size)))
    rows = [bytes([(y * classes // size)]) * size for y in range(size)]
    nifti(f"{folder}/labels/case.nii", size, "uint8", (b"".join(rows) for _ in range(size)))


def run(command):
    """The peak resident bytes of a command, its seconds and its output."""
    begin = time.time()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        text = log.read().decode(errors="replace")
    if process.returncode != 0:
        raise SystemExit(" ".join(command) + "\n" + text)
    return usage.ru_maxrss * 1024, time.time() - begin, text


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("serpentine")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--memory", type=float, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_case(f"{folder}/large", given.size, given.classes)
        write_case(f"{folder}/small", 64, given.classes)
        plan = f"{folder}/plan.yaml"
        peak, seconds, _ = run([given.serpentine, "segment", "plan", f"{folder}/large",
                                "--memory", str(given.memory), "-o", plan])
        print(f"plan: peak {peak / 2**30:.2f} GiB, {seconds:.0f} s")
        with open(plan, encoding="utf-8") as file:
            print("".join(line for line in file if re.match("(patch|classes):", line)), end="")
        with open(f"{folder}/one.yaml", "w", encoding="utf-8") as file:
            file.write(f"""data: {{type: segmentation, path: {folder}/small, plan: {plan}, fold: -1, patches: 1}}
task: {{type: segmentation}}
model: {{type: unet, features: [1, 1], kernels: ["1", "1"], strides: ["1", "1"]}}
optimizer: {{type: sgd, lr: 0.01}}
loader: {{batch_size: 1}}
trainer: {{epochs: 1, device: cpu}}
""")
        run([given.serpentine, "train", f"{folder}/one.yaml", "--out", f"{folder}/run"])
        predict = [given.serpentine, "segment", "predict", f"{folder}/run",
                   f"{folder}/large/images", "-o", f"{folder}/out", "--no-mirror"]
        peak, seconds, text = run(predict)
        print(next(line for line in text.splitlines() if "memory beside" in line))
        base, _, _ = run(predict)  # its result is there already
        print(f"predict: peak {peak / 2**30:.2f} GiB, {seconds:.0f} s; with nothing to label "
              f"{base / 2**30:.2f} GiB; the volume takes {(peak - base) / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
