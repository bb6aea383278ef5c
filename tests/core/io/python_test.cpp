// Files exchanged with the real torch, NumPy and TensorBoard of the Python that built us.
#include <torch/torch.h>

#include <cstdlib>

#include "core/io/files.h"
#include "core/io/npy.h"
#include "core/io/run_folder.h"
#include "core/io/torch_pickle.h"

namespace serpentine {
namespace {

class PythonTest : public FolderTest {
 protected:
  /// Runs a script in the test's folder.
  void python(const std::string& script) {
    write("script.py", script);
    const std::string command =
        "cd '" + folder_.string() + "' && '" SERPENTINE_PYTHON "' script.py > out.txt 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << read_bytes(at("out.txt"));
  }
  static bool has_module(const std::string& name) {
    const std::string python = SERPENTINE_PYTHON;
    return !python.empty() &&
           std::system(("'" + python + "' -c 'import " + name + "' > /dev/null 2>&1").c_str()) == 0;
  }
};

#define SERPENTINE_NEEDS(name) \
  if (!has_module(name)) GTEST_SKIP() << "this Python has no " << name

torch::Tensor ramp(int64_t rows, int64_t columns) {
  return torch::arange(rows * columns, torch::kFloat32).view({rows, columns});
}

TEST_F(PythonTest, ReadsEveryKindOfTorchFile) {
  SERPENTINE_NEEDS("torch");
  python(R"(
import argparse, collections, torch
ramp = torch.arange(6, dtype=torch.float32).view(2, 3)
shared = torch.arange(12, dtype=torch.float32)
state = collections.OrderedDict(
    w=ramp, t=ramp.t(), half=ramp.half(), brain=ramp.bfloat16(), long=torch.tensor(7),
    flags=torch.tensor([True, False]), head=shared[:6].view(2, 3), tail=shared[6:],
    parameter=torch.nn.Parameter(ramp), wide=torch.ones(1).expand(2, 2), none=torch.empty(0, 4),
    byte=torch.tensor([1, 2], dtype=torch.uint8), double=ramp.double())
torch.save(state, 'plain.pth')
torch.save(state, 'legacy.pth', _use_new_zipfile_serialization=False)
for protocol in (3, 4, 5):
    torch.save(state, f'protocol{protocol}.pth', pickle_protocol=protocol)
args = argparse.Namespace(lr=0.1, dims=[1, 2], size=torch.Size([2, 3]), kind=torch.float16)
optimizer = torch.optim.AdamW([torch.nn.Parameter(ramp)])
torch.save({'epoch': 3, 'model': state, 'args': args, 'optimizer': optimizer.state_dict(),
            'gpu': torch.device('cpu'), 'names': {'a', 'b'}, 'big': 1 << 80}, 'nested.pth')
torch.save({'state_dict': {'module.' + k: v for k, v in state.items()}, 'arch': 'x'}, 'ddp.pth')
)");
  for (const char* name : {"plain.pth", "legacy.pth", "protocol3.pth", "protocol4.pth",
                           "protocol5.pth", "nested.pth", "ddp.pth"}) {
    SCOPED_TRACE(name);
    const auto read = read_state_dict(at(name));
    const std::map<std::string, torch::Tensor> all(read.begin(), read.end());
    ASSERT_EQ(all.size(), 13U);
    EXPECT_EQ(read.front().first, "w");
    EXPECT_TRUE(torch::equal(all.at("w"), ramp(2, 3)));
    EXPECT_TRUE(torch::equal(all.at("t"), ramp(2, 3).t()));
    EXPECT_TRUE(torch::equal(all.at("half"), ramp(2, 3).to(torch::kHalf)));
    EXPECT_TRUE(torch::equal(all.at("brain"), ramp(2, 3).to(torch::kBFloat16)));
    EXPECT_TRUE(torch::equal(all.at("double"), ramp(2, 3).to(torch::kDouble)));
    EXPECT_TRUE(torch::equal(all.at("parameter"), ramp(2, 3)));
    EXPECT_TRUE(torch::equal(all.at("flags"), torch::tensor({true, false})));
    EXPECT_TRUE(torch::equal(all.at("tail"), ramp(2, 6)[1]));
    EXPECT_TRUE(torch::equal(all.at("wide"), torch::ones({2, 2})));
    EXPECT_EQ(all.at("none").sizes(), (std::vector<int64_t>{0, 4}));
    EXPECT_EQ(all.at("long").item<int64_t>(), 7);
    for (const auto& [key, tensor] : all) {
      EXPECT_TRUE(tensor.is_contiguous()) << key;
    }
  }
  const auto skipped = read_torch_pickle(at("nested.pth")).skipped;
  EXPECT_NE(std::find(skipped.begin(), skipped.end(), "argparse.Namespace"), skipped.end());
}

TEST_F(PythonTest, SaysWhatAWholeModuleHolds) {
  SERPENTINE_NEEDS("torch");
  python(
      "import torch\ntorch.save(torch.nn.Linear(2, 3), 'm.pt')\n"
      "torch.save({'lr': 1, 'epoch': 2}, 'n.pt')\n");
  EXPECT_EQ(error_of([&] { read_state_dict(at("m.pt")); }),
            at("m.pt") +
                ": holds no state dict but an object of torch.nn.modules.linear.Linear (save its "
                "state_dict() in Python to read it here)");
  EXPECT_EQ(error_of([&] { read_state_dict(at("n.pt")); }),
            at("n.pt") + ": holds no state dict but a dictionary with the keys 'lr' 'epoch'");
}

TEST_F(PythonTest, TorchReadsWhatWeWrite) {
  SERPENTINE_NEEDS("torch");
  write_torch_state_dict(at("ours.pth"), {{"w", ramp(2, 3)},
                                          {"brain", ramp(1, 2).to(torch::kBFloat16)},
                                          {"empty", torch::empty({0, 2})},
                                          {"flag", torch::tensor({true})},
                                          {"n", torch::tensor(int64_t{-5})}});
  python(R"(
import torch
state = torch.load('ours.pth', weights_only=True)
assert list(state) == ['w', 'brain', 'empty', 'flag', 'n'], list(state)
assert torch.equal(state['w'], torch.arange(6, dtype=torch.float32).view(2, 3))
assert torch.equal(state['brain'], torch.tensor([[0, 1]], dtype=torch.bfloat16))
assert state['empty'].shape == (0, 2)
assert state['flag'].tolist() == [True] and state['n'].item() == -5
torch.load('ours.pth', weights_only=True, mmap=True)
)");
}

TEST_F(PythonTest, ReadsNumPyFiles) {
  SERPENTINE_NEEDS("numpy");
  python(R"(
import numpy as np
ramp = np.arange(6, dtype=np.float32).reshape(2, 3)
np.save('a.npy', ramp)
np.save('f.npy', np.asfortranarray(ramp))
np.save('o.npy', np.array([{}], dtype=object))
np.save('big.npy', ramp.astype('>f4'))
arrays = dict(data=ramp.astype(np.float64), long=np.arange(3), one=np.float32(2.5),
              half=ramp.astype(np.float16), flags=np.array([True, False]),
              small=np.array([65535], dtype=np.uint16), none=np.zeros((0, 3), np.float32))
np.savez('plain.npz', **arrays)
np.savez_compressed('packed.npz', **arrays)
)");
  EXPECT_TRUE(torch::equal(read_npy(at("a.npy")), ramp(2, 3)));
  EXPECT_TRUE(torch::equal(read_npy(at("f.npy")), ramp(2, 3)));
  EXPECT_NE(error_of([&] { read_npy(at("o.npy")); }).find("(Python objects) is not supported"),
            std::string::npos);
  expect_sentence(error_of([&] { read_npy(at("big.npy")); }), at("big.npy"));
  for (const char* name : {"plain.npz", "packed.npz"}) {
    const auto read = read_npz(at(name));
    ASSERT_EQ(read.size(), 7U);
    EXPECT_EQ(read[0].first, "data");
    EXPECT_TRUE(torch::equal(read[0].second, ramp(2, 3).to(torch::kDouble)));
    EXPECT_TRUE(torch::equal(read[1].second, torch::arange(3)));
    EXPECT_EQ(read[2].second.item<float>(), 2.5F);
    EXPECT_TRUE(torch::equal(read[4].second, torch::tensor({true, false})));
    EXPECT_EQ(read[5].second.item<int32_t>(), 65535);
    EXPECT_EQ(read[6].second.sizes(), (std::vector<int64_t>{0, 3}));
  }
  const std::string whole = read_bytes(at("a.npy"));
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto path = write("cut.npy", whole.substr(0, size));
    expect_sentence(error_of([&] { read_npy(path); }), path);
  }
}

TEST_F(PythonTest, TensorBoardReadsOurEvents) {
  SERPENTINE_NEEDS("tensorboard");
  auto folder = RunFolder::open(at("run"));
  folder.log(1, {{"loss", 0.5}, {"train/lr", 1e-3}});
  folder.log(300, {{"loss", 0.25}});
  auto resumed = RunFolder::open(at("run"), 200);
  resumed.log(201, {{"loss", 0.125}});
  python(R"(
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator('run')
events.Reload()
loss = events.Scalars('loss')
assert [(e.step, e.value) for e in loss] == [(1, 0.5), (201, 0.125)], loss
assert abs(events.Scalars('train/lr')[0].value - 1e-3) < 1e-9
assert loss[0].wall_time > 1e9
)");
}

}  // namespace
}  // namespace serpentine
