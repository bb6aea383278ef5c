"""Makes the .pth files beside it, with torch 2.11: python3 make_torch_files.py FOLDER"""
import argparse
import collections
import os
import sys

import torch

os.chdir(sys.argv[1])
ramp = torch.arange(6, dtype=torch.float32).view(2, 3)
state = collections.OrderedDict(
    [
        ("w", ramp),
        ("t", ramp.t()),
        ("half", ramp.half()),
        ("brain", ramp.bfloat16()),
        ("steps", torch.tensor(7)),
    ]
)
state._metadata = collections.OrderedDict([("", {"version": 1})])
torch.save(state, "plain.pth")
torch.save(state, "legacy.pth", _use_new_zipfile_serialization=False)
names = argparse.Namespace(lr=0.1, dims=[1, 2], size=torch.Size([2, 3]), kind=torch.float16)
torch.save({"epoch": 3, "model": state, "args": names, "names": {"a"}, "big": 1 << 80}, "nested.pth")
torch.save({"state_dict": {"module." + k: v for k, v in state.items()}, "arch": "x"}, "ddp.pth")
