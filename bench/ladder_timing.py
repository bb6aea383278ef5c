"""How bench/ladder.py measures: device time between events, and the allocator's peak."""

import statistics
import time

import torch


class Timer:
    def __init__(self, reps, warm):
        self.reps, self.warm = reps, warm
        self.flush = torch.empty(128 << 20, dtype=torch.int32, device="cuda")

    def run(self, stages):
        """stages(mark) calls mark() after each stage; returns the median milliseconds of each."""
        for _ in range(self.warm):
            stages(lambda: None)
        torch.cuda.synchronize()
        start = time.perf_counter()
        stages(lambda: None)
        cycles = int((time.perf_counter() - start) * 2.0e9 * 2) + 400_000
        torch.cuda.synchronize()
        rows = []
        for _ in range(self.reps):
            self.flush.zero_()
            torch.cuda._sleep(cycles)
            events = []

            def mark():
                events.append(torch.cuda.Event(enable_timing=True))
                events[-1].record()

            mark()
            stages(mark)
            torch.cuda.synchronize()
            rows.append([a.elapsed_time(b) for a, b in zip(events, events[1:])])
        columns = [sorted(column) for column in zip(*rows)]
        return [(statistics.median(c), c[len(c) // 10], c[-1 - len(c) // 10]) for c in columns]


def copy_bandwidth(timer):
    """Bytes read and written a second."""
    source = torch.ones(1 << 28, device="cuda")
    target = torch.empty_like(source)
    milliseconds = timer.run(lambda mark: (target.copy_(source), mark()))[0][0]
    return 2 * 4 * source.numel() / milliseconds * 1e3


def extra_memory(call):
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    del result
    return peak / 2**20
