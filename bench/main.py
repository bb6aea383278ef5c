"""Measures the CPU selective scan beside its peers, in one run, in turn: see docs/benchmarks.md."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import report
import truth
import workers

SHAPES = [(b, d, l, n) for n in (16, 1)
          for b, d, l in ((1, 384, 196), (8, 384, 196), (1, 768, 3136), (1, 1024, 10000))]


def make_inputs(folder, batch, channels, length, states):
    """Draws inputs as a trained block has them (A = -1..-N, steps of 1e-3 to 1e-1) and writes them."""
    draw = np.random.default_rng(0)
    step = np.exp(draw.uniform(np.log(1e-3), np.log(1e-1), channels))
    bias = step + np.log(-np.expm1(-step))  # softplus of it is the step
    rows, few = (batch, length, channels), (batch, length, states)
    values = {
        "u": draw.standard_normal(rows), "delta": 0.5 * draw.standard_normal(rows) + bias,
        "A": -np.tile(np.arange(1.0, states + 1), (channels, 1)),
        "B": draw.standard_normal(few), "C": draw.standard_normal(few),
        "dy": draw.standard_normal(rows)}
    inputs = {name: value.astype(np.float32) for name, value in values.items()}
    for name, value in inputs.items():
        value.tofile(f"{folder}/{name}.f32")
    return inputs


def shortage(worker, shape):
    """Why a case is left out for this worker, or None: two peers hold B L D N floats many times."""
    batch, channels, length, states = shape
    if worker.name not in ("pscan", "loop"):
        return None
    padded = 1 << (length - 1).bit_length() if worker.name == "pscan" else length
    need = 13 * 4 * batch * padded * channels * states
    with open("/proc/meminfo", encoding="ascii") as lines:
        available = next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    return f"needs about {need / 1e9:.0f} GB of memory" if need > 0.8 * available else None


def measure(entries, options):
    """Times all entries in turn: rounds over the implementations, each within its share of time."""
    for entry in entries:
        first = entry["worker"].ask("time", entry["what"], 1, 0)
        entry["error_text"] = first.get("error")
        entry["ms"] = first.get("ms", [])
    entries = [entry for entry in entries if entry["ms"]]
    for entry in entries:
        entry["spent"], entry["first"] = entry["ms"][0], entry["ms"][0]
    for _ in range(options.rounds):
        for entry in entries:
            if entry["spent"] + entry["first"] > 1e3 * options.seconds:
                continue
            count = max(1, min(100, int(100 / entry["first"])))
            start = time.perf_counter()
            warm = 1 if entry["first"] < 1000 else 0
            answer = entry["worker"].ask("time", entry["what"], count, warm)
            if "error" in answer:
                raise RuntimeError(f"{entry['name']}: {answer['error']}")
            entry["ms"] += answer["ms"]
            entry["spent"] += (time.perf_counter() - start) * 1e3
    for entry in entries:
        if len(entry["ms"]) > 1:
            entry["ms"] = entry["ms"][1:]  # the first call also warms up


def run_case(pool, shape, threads, folder, inputs, expected, options):
    """One row of results for each implementation and direction."""
    entries = []
    for worker in pool:
        reason = shortage(worker, shape)
        answer = {} if reason else worker.ask("load", folder, *shape, threads)
        for what in worker.abilities:
            entry = {"worker": worker, "what": what, "name": worker.name}
            entry["left_out"] = reason or answer.get("error")
            entries.append(entry)
            if entry["left_out"]:
                continue
            answer = worker.ask("save", what, worker.name)
            entry["left_out"] = answer.get("error")
            if not entry["left_out"]:
                names = truth.NAMES if what == "both" else truth.NAMES[:1]
                entry["error"], entry["worst"] = truth.worst_error(
                    folder, worker.name, {name: expected[name] for name in names})
    for what in ("fwd", "both"):
        measure([e for e in entries if e["what"] == what and not e["left_out"]], options)
    rows = []
    for entry in entries:
        row = {key: entry.get(key) for key in ("name", "what", "left_out", "error", "worst")}
        row |= {"shape": list(shape), "threads": threads, "count": len(entry.get("ms", []))}
        if row["count"]:
            row |= {"median": statistics.median(entry["ms"]), "least": min(entry["ms"])}
        rows.append(row)
        report.print_row(row)
    return rows


def memory(command, shape, folder):
    """Growth of the resident set at its peak, forward and with backward, each in a fresh process."""
    growth = {}
    for what in ("fwd", "both"):
        lines = f"load {folder} {' '.join(map(str, shape))} 2\nmemory {what}\n"
        done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
        growth[what] = json.loads(done.stdout.splitlines()[-1]).get("growth")
    batch, channels, length, states = shape
    growth["all_states"] = 4 * batch * channels * length * states
    growth["shape"] = list(shape)
    return growth


def limits(folder, threads):
    """What the machine does at best, once for each number of threads."""
    command = os.path.join(folder, "limits")
    return {str(count): json.loads(subprocess.check_output([command, str(count)], text=True))
            for count in threads}


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", required=True, help="folder of scan_cpu and limits")
    parser.add_argument("--ggml", help="the ggml_scan program")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--only", help="cases whose shape B,D,L,N matches this regular expression: ',1$'")
    parser.add_argument("--peers", help="implementations to run, by commas; all by default")
    parser.add_argument("--rounds", type=int, default=9, help="turns of every implementation")
    parser.add_argument("--seconds", type=float, default=8.0,
                        help="an implementation that took this long in a case has no more turns")
    parser.add_argument("--quick", action="store_true", help="the two small shapes, a few turns")
    parser.add_argument("--out", help="folder of results.json and results.md")
    parser.add_argument("--docs", help="markdown file whose part after '## Results' is replaced")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 3, 1.0
    return options


def main():
    options = parse()
    threads = [int(count) for count in options.threads.split(",")]
    shapes = [s for s in SHAPES if (not options.quick or s[2] == 196)
              and (not options.only or re.search(options.only, ",".join(map(str, s))))]
    results = {"machine": report.machine(), "limits": limits(options.workers, threads), "rows": []}
    pool = workers.start(options.workers, options.ggml)
    if options.peers:
        chosen = options.peers.split(",")
        for worker in [w for w in pool if w.name not in chosen]:
            worker.close()
            pool.remove(worker)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for shape in shapes:
                inputs = make_inputs(folder, *shape)
                expected = truth.scan(inputs, backward=True)
                for count in threads:
                    results["rows"] += run_case(pool, shape, count, folder, inputs, expected, options)
                if shape == max(shapes, key=np.prod):
                    command = [os.path.join(options.workers, "scan_cpu")]
                    results["memory"] = memory(command, shape, folder)
    finally:
        for worker in pool:
            worker.close()
    out = options.out or options.workers
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    text = report.tables(results)
    with open(os.path.join(out, "results.md"), "w", encoding="utf-8") as file:
        file.write(text)
    if options.docs:
        with open(options.docs, encoding="utf-8") as file:
            head = file.read().split("## Results\n")[0]
        with open(options.docs, "w", encoding="utf-8") as file:
            file.write(head + "## Results\n\n" + text)
    print("\n" + text)
    print(f"results: {os.path.join(out, 'results.json')} and results.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
