// Writing a state dict as torch.save would: a zip of one pickle and the storages.
#include <caffe2/serialize/inline_container.h>
#include <torch/torch.h>

#include <exception>
#include <functional>
#include <map>
#include <set>

#include "core/io/atomic_file.h"
#include "core/io/bytes.h"
#include "core/io/torch_pickle.h"
#include "core/io/torch_storage.h"

namespace serpentine {
namespace {

/// Appends the opcodes (protocol 2) that torch.save emits for a dictionary of tensors.
class Writer {
 public:
  void begin() { out += "\x80\x02}("; }
  void end() { out += "u."; }
  void tensor(const std::string& name, const torch::Tensor& tensor, const std::string& key) {
    text(name);
    global("torch._utils", "_rebuild_tensor_v2");
    out += "((";
    text("storage");
    global("torch", storage_class(tensor.scalar_type()));
    text(key);
    text("cpu");
    number(tensor.numel());
    out += "tQ";
    number(0);
    tuple(tensor.sizes());
    tuple(tensor.strides());
    out += "\x89";  // requires_grad
    global("collections", "OrderedDict");
    out += ")RtR";
  }

  std::string out;

 private:
  void text(const std::string& value) {
    out += 'X';
    append_little(out, static_cast<uint32_t>(value.size()));
    out += value;
  }
  void global(const std::string& module, const std::string& name) {
    out += 'c';
    out.append(module).append("\n").append(name).append("\n");
  }
  void number(int64_t value) {
    out += "\x8a\x08";  // LONG1 of 8 bytes holds any int64
    append_little(out, value);
  }
  void tuple(at::IntArrayRef values) {
    out += '(';
    for (const int64_t value : values) number(value);
    out += 't';
  }
};

}  // namespace

void write_torch_state_dict(const std::string& path, const StateDict& tensors) {
  std::vector<torch::Tensor> rows;
  std::set<std::string> names;
  Writer pickle;
  pickle.begin();
  for (const auto& [name, tensor] : tensors) {
    TORCH_CHECK(tensor.defined() && !storage_class(tensor.scalar_type()).empty(),
                "write_torch_state_dict: '", name, "' is undefined or of a type without storage");
    TORCH_CHECK(names.insert(name).second, "write_torch_state_dict: '", name, "' is given twice");
    pickle.tensor(name, tensor.detach().cpu().contiguous(), std::to_string(rows.size()));
    rows.push_back(tensor.detach().cpu().contiguous());
  }
  pickle.end();

  // torch's writer must not be left by an exception, so the first error waits for its end
  AtomicFile file(path);
  std::exception_ptr error;
  const auto write = [&](const void* data, size_t size) {
    try {
      if (!error) file.write(data, size);
    } catch (...) {
      error = std::current_exception();
    }
    return size;
  };
  {
    caffe2::serialize::PyTorchStreamWriter archive(write);
    archive.writeRecord("data.pkl", pickle.out.data(), pickle.out.size());
    archive.writeRecord("byteorder", "little", 6);
    for (size_t i = 0; i < rows.size(); ++i) {
      archive.writeRecord("data/" + std::to_string(i), rows[i].data_ptr(), rows[i].nbytes());
    }
    archive.writeEndOfFile();
  }
  if (error) std::rethrow_exception(error);
  file.commit();
}

}  // namespace serpentine
