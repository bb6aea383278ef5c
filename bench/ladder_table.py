#!/usr/bin/env python3
"""Prints the table of docs/kernels.md from results of bench/ladder.py.

Usage: ladder_table.py ladder.json [further.json ...]      # a case of a later file replaces that of an earlier
"""
import json
import sys


def main():
    rows = {}
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            for row in json.load(file)["rows"]:
                rows[row["case"], row["dtype"], row["who"]] = row
    print("| case | type | ours, us | share of the bound, % | best peer | its time, us | peer / ours | memory ours / peer, MiB |\n"
          "|---|---|---|---|---|---|---|---|")
    for (case, dtype, who), ours in rows.items():
        if who != "ours":
            continue
        times = [ours["forward_ms"][0], ours["backward_ms"][0]]
        line = [case, dtype, " / ".join(f"{1e3 * t:.0f}" for t in times),
                " / ".join(f"{100 * b / t:.0f}" for b, t in zip(ours["bound_ms"], times))]
        peers = [row for key, row in rows.items() if key[:2] == (case, dtype) and not key[2].startswith("ours")]
        if peers:
            best = min(peers, key=lambda row: row["forward_ms"][0] + row["backward_ms"][0])
            theirs = [best["forward_ms"][0], best["backward_ms"][0]]
            line += [best["who"], " / ".join(f"{1e3 * t:.0f}" for t in theirs),
                     " / ".join(f"{t / o:.2f}" for t, o in zip(theirs, times)),
                     f"{ours['memory_mib'][1]:.0f} / {best['memory_mib'][1]:.0f}"]
        else:
            line += ["-", "-", "-", f"{ours['memory_mib'][1]:.0f} / -"]
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
