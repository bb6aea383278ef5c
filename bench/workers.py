"""Worker processes: one an implementation, stopped while another is measured."""

import json
import os
import signal
import subprocess
import sys

# implementation: what it can be asked for
ABILITIES = {
    "serpentine": ("fwd", "both"),
    "ggml": ("fwd",),
    "onnxruntime": ("fwd",),
    "pscan": ("both",),
    "loop": ("both",),
}


class Worker:
    """One process that speaks the commands of bench/worker.h."""

    def __init__(self, name, command):
        self.name, self.abilities = name, ABILITIES[name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pause()

    def pause(self):
        """Idle thread pools may spin for a while: a stopped process cannot."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def ask(self, *words):
        """Sends one command and returns the answer; an error becomes {"error": text}."""
        if self.process.poll() is not None:
            return {"error": f"{self.name} ended with status {self.process.returncode}"}
        os.kill(self.process.pid, signal.SIGCONT)
        try:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.process.wait()
            return {"error": f"{self.name} ended with status {self.process.returncode}"}
        self.pause()
        return json.loads(answer)

    def close(self):
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.stdin.close()
            self.process.wait()


def start(folder, ggml):
    """Starts what is there; prints a line for each peer that is not. Serpentine must be there."""
    here = os.path.dirname(os.path.abspath(__file__))
    commands = {"serpentine": [os.path.join(folder, "scan_cpu")]}
    if ggml and os.path.exists(ggml):
        commands["ggml"] = [ggml]
    else:
        print("bench: no ggml; its column stays empty")
    for name, module in (("onnxruntime", "onnxruntime"), ("pscan", "mambapy"), ("loop", "torch")):
        check = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True,
                               check=False)
        if check.returncode == 0:
            commands[name] = [sys.executable, os.path.join(here, "peers.py"), name]
        else:
            print(f"bench: {module} cannot be imported; its column stays empty")
    return [Worker(name, command) for name, command in commands.items()]
