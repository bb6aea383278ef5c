"""Peers of the selective scan in Python, as a timed worker: python peers.py onnxruntime|pscan|loop.

Speaks the commands of bench/worker.h. Each computes y = scan(u, softplus(delta), A, B, C) alone, from
inputs in the layout it likes best: what it takes to bring them there is not timed.
"""

import json
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

NAMES = ("u", "delta", "A", "B", "C")


def read_inputs(folder, batch, channels, length, states):
    """The arrays that the driver wrote, by name, as float32."""
    rows, few = (batch, length, channels), (batch, length, states)
    shapes = {"u": rows, "delta": rows, "A": (channels, states), "B": few, "C": few, "dy": rows}
    return {name: np.fromfile(f"{folder}/{name}.f32", np.float32).reshape(shape)
            for name, shape in shapes.items()}


class TorchPeer:
    """A scan in torch operations; gradients by autograd."""

    def load(self, inputs, threads):
        torch.set_num_threads(threads)
        self.inputs = [torch.from_numpy(inputs[name]) for name in NAMES]
        self.dy = torch.from_numpy(inputs["dy"])

    def run(self, backward):
        if not backward:
            with torch.no_grad():
                return [self.scan(*self.inputs)]
        inputs = [tensor.detach().requires_grad_() for tensor in self.inputs]
        y = self.scan(*inputs)
        return [y.detach(), *torch.autograd.grad(y, inputs, self.dy)]


class Loop(TorchPeer):
    """The published definition's way: decays and inputs of all steps at once, then a loop over time."""

    def scan(self, u, delta, A, B, C):
        delta = F.softplus(delta)
        decay = torch.exp(delta.unsqueeze(-1) * A)
        inputs = (delta * u).unsqueeze(-1) * B.unsqueeze(2)
        state = torch.zeros_like(decay[:, 0])
        ys = []
        # unbind: indexing inside the loop would make the backward quadratic in the length
        for a, x, c in zip(decay.unbind(1), inputs.unbind(1), C.unbind(1)):
            state = a * state + x
            ys.append((state @ c.unsqueeze(-1)).squeeze(-1))
        return torch.stack(ys, 1)


class PScan(TorchPeer):
    """mambapy's parallel scan, called as mambapy's own block calls it."""

    def __init__(self):
        from mambapy.pscan import pscan

        self.pscan = pscan

    def scan(self, u, delta, A, B, C):
        delta = F.softplus(delta)
        decay = torch.exp(delta.unsqueeze(-1) * A)
        inputs = delta.unsqueeze(-1) * B.unsqueeze(2) * u.unsqueeze(-1)
        return (self.pscan(decay, inputs) @ C.unsqueeze(-1)).squeeze(3)


class OnnxScan:
    """ONNX's Scan operator in onnxruntime, fed time-major."""

    def __init__(self):
        import onnx
        import onnxruntime

        self.onnx, self.runtime = onnx, onnxruntime

    def load(self, inputs, threads):
        batch, length, channels = inputs["u"].shape
        states = inputs["A"].shape[1]
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        model = self.model(batch, channels, length, states)
        self.session = self.runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.feed = {"h0": np.zeros((batch, channels, states), np.float32), "A": inputs["A"]}
        for name, axis in (("u", 3), ("delta", 3), ("B", 2), ("C", 3)):
            time_major = inputs[name].transpose(1, 0, 2)
            self.feed[name] = np.ascontiguousarray(np.expand_dims(time_major, axis))

    def model(self, batch, channels, length, states):
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        node = helper.make_node

        def tensor(name, *shape):
            return helper.make_tensor_value_info(name, kind, shape)

        h, column = (batch, channels, states), (batch, channels, 1)
        row, up = (batch, 1, states), (batch, states, 1)
        step = helper.make_graph(
            [node("Mul", ["dt", "A"], ["dtA"]), node("Exp", ["dtA"], ["a"]),
             node("Mul", ["a", "h"], ["ah"]), node("Mul", ["dtu", "b"], ["x"]),
             node("Add", ["ah", "x"], ["h_next"]), node("MatMul", ["h_next", "c"], ["y"])], "step",
            [tensor("h", *h), tensor("dt", *column), tensor("dtu", *column), tensor("b", *row),
             tensor("c", *up)], [tensor("h_next", *h), tensor("y", *column)])
        graph = helper.make_graph(
            [node("Softplus", ["delta"], ["dts"]), node("Mul", ["dts", "u"], ["dtus"]),
             node("Scan", ["h0", "dts", "dtus", "B", "C"], ["h_last", "ys"], num_scan_inputs=4,
                  body=step)], "scan",
            [tensor("h0", *h), tensor("u", length, *column), tensor("delta", length, *column),
             tensor("A", channels, states), tensor("B", length, *row), tensor("C", length, *up)],
            [tensor("ys", length, *column)])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        return model

    def run(self, backward):
        if backward:
            raise RuntimeError("onnxruntime's Scan has no backward here")
        return [self.session.run(None, self.feed)[0].squeeze(-1)]


def time_major(peer, result):
    return result.transpose(1, 0, 2) if isinstance(peer, OnnxScan) else result.numpy()


def answer(peer, words, state):
    command, what = words[0], words[1]
    if command == "load":
        state["folder"] = what
        peer.load(read_inputs(what, *map(int, words[2:6])), int(words[6]))
        return {"loaded": True}
    backward = what == "both"
    if command == "time":
        for _ in range(int(words[3])):
            peer.run(backward)
        times = []
        for _ in range(int(words[2])):
            start = time.perf_counter()
            peer.run(backward)
            times.append((time.perf_counter() - start) * 1e3)
        return {"ms": times}
    if command == "save":
        results = zip(("y", "du", "ddelta", "dA", "dB", "dC"), peer.run(backward))
        for name, result in results:
            np.ascontiguousarray(time_major(peer, result)).tofile(
                f"{state['folder']}/{words[2]}.{name}.f32")
        return {"saved": True}
    raise RuntimeError(f"unknown command {command}")


def main():
    peer = {"onnxruntime": OnnxScan, "pscan": PScan, "loop": Loop}[sys.argv[1]]()
    state = {}
    for line in sys.stdin:
        try:
            reply = answer(peer, line.split(), state)
        except Exception as error:  # the driver reports it and goes on with the other peers
            reply = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
