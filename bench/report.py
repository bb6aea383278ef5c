"""Tables of a benchmark run, and the bound that each case is held against."""

import datetime
import os
import platform
from importlib import metadata

PEERS = {"fwd": ("ggml", "onnxruntime"), "both": ("pscan", "loop")}
TITLES = {"fwd": "Forward", "both": "Forward and backward"}


def machine():
    """What the numbers were measured on."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        model = next((l.split(":")[1].strip() for l in lines if l.startswith("model name")), "?")
    now = datetime.datetime.now(datetime.timezone.utc)
    about = {"processor": model, "cores": os.cpu_count(), "system": platform.platform()}
    for package in ("torch", "onnxruntime", "mambapy"):
        try:
            about[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            about[package] = "none"
    return about | {"date": f"{now:%Y-%m-%d}"}


def print_row(row):
    """One line while the run goes on."""
    shape = ",".join(map(str, row["shape"]))
    head = f"({shape}) {row['threads']} thread(s) {row['what']:4} {row['name']:12}"
    if row["count"]:
        print(f"{head} {row['median']:10.3f} ms, least {row['least']:10.3f}, {row['count']} times, "
              f"error {row['error']:.1e} ({row['worst']})", flush=True)
    else:
        print(f"{head} left out: {row['left_out']}", flush=True)


def bound(limits, shape, what):
    """The least time in ms by arithmetic and by memory traffic, and the instruction set meant."""
    batch, channels, length, states = shape
    elements, few = batch * length * channels, batch * length * states
    name, rate = next(iter(limits["vector"].items()))  # the widest comes first
    # softplus takes an exponential and a logarithm an element, its derivative one division
    work = elements * states / rate["forward"]["best"] + 2 * elements / rate["exp2"]["best"]
    moved = 4 * (3 * elements + 2 * few)
    if what == "both":
        work += elements * states / rate["backward"]["best"] + 3 * elements / rate["exp2"]["best"]
        moved += 4 * (5 * elements + 4 * few)
    sizes = sorted(limits["bytes"], key=int)
    fitting = next((s for s in sizes if moved <= int(s) << 20), sizes[-1])
    return 1e3 * work, 1e3 * moved / limits["bytes"][fitting]["best"], name


def _number(value):
    """Three digits, never an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _time(row):
    if row is None:
        return "–"
    if not row["count"]:
        return row["left_out"] or "–"
    return f"{_number(row['median'])} ({_number(row['least'])})"


def _ratio(peer, ours):
    return f"{_number(peer['median'] / ours['median'])}×" if peer and peer["count"] else "–"


def _table(results, what):
    peers = PEERS[what]
    head = ["(B, D, L, N)", "threads", "serpentine, ms (least)", *peers,
            *[f"over {peer}" for peer in peers], "bound, ms", "binds", "bound over ours"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    rows = {(tuple(r["shape"]), r["threads"], r["name"]): r
            for r in results["rows"] if r["what"] == what}
    for (shape, threads, name), ours in rows.items():
        if name != "serpentine" or not ours["count"]:
            continue
        others = [rows.get((shape, threads, peer)) for peer in peers]
        work, moved, _ = bound(results["limits"][str(threads)], shape, what)
        least = max(work, moved)
        cells = [str(shape), str(threads), _time(ours), *[_time(other) for other in others],
                 *[_ratio(other, ours) for other in others], _number(least),
                 "arithmetic" if work > moved else "memory", f"{least / ours['median']:.0%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _errors(results):
    worst = {}
    for row in results["rows"]:
        if row["error"] is not None:
            key = (row["name"], row["what"])
            worst[key] = max(worst.get(key, (0.0, "", [])), (row["error"], row["worst"], row["shape"]))
    lines = ["| implementation | what | largest error | in | at |", "| --- | --- | --- | --- | --- |"]
    for (name, what), (error, where, shape) in worst.items():
        lines.append(f"| {name} | {TITLES[what].lower()} | {error:.1e} | {where} | {tuple(shape)} |")
    return "\n".join(lines)


def _limits(results):
    lines = ["| limit | " + " | ".join(f"{t} thread(s)" for t in results["limits"]) + " |",
             "| --- |" + " --- |" * len(results["limits"])]
    every = list(results["limits"].values())
    for name in every[0]["vector"]:
        for loop in ("exp2", "forward", "backward"):
            cells = [f"{one['vector'][name][loop]['best'] / 1e9:.2f}e9/s" for one in every]
            lines.append(f"| {name}, {loop} | " + " | ".join(cells) + " |")
    for size in every[0]["bytes"]:
        cells = [f"{one['bytes'][size]['best'] / 1e9:.1f} GB/s" for one in every]
        lines.append(f"| three reads, one write, {size} MiB | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _memory(results):
    if "memory" not in results:
        return ""
    one, mib = results["memory"], 2.0**20
    return (f"Memory at {tuple(one['shape'])}: the resident set grows by {one['fwd'] / mib:.0f} MiB in "
            f"forward and {one['both'] / mib:.0f} MiB in forward and backward, results and gradients "
            f"included; all states at once would take {one['all_states'] / mib:.0f} MiB.")


def tables(results):
    """The whole report as markdown."""
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    parts = [about]
    for what, title in TITLES.items():
        parts += [f"### {title}", _table(results, what)]
    parts += ["### Agreement with float64", _errors(results), "### Limits of the machine",
              _limits(results), _memory(results)]
    return "\n\n".join(part for part in parts if part) + "\n"
