// serpentine doctor: versions, hardware, what is built in, and the command that adds what is
// missing.
#include <cstdio>
#include <filesystem>

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/torch.h>
#include <torch/version.h>
#include <CLI/CLI.hpp>

#include "apps/build_info.h"
#include "apps/command.h"
#include "apps/doctor_checks.h"
#include "apps/packages.h"

namespace serpentine {
namespace {

constexpr const char* kDoctorFooter =
    R"(A line that begins with '-' is missing, and ends with the command that adds it. Nothing that is
missing stops training on the CPU; gnuplot is needed for plots.
Example:
  serpentine doctor)";

void line(const char* what, const std::string& found) {
  std::printf("  %-14s %s\n", what, found.c_str());
}

void feature(const char* what, bool there, const std::string& found, const std::string& add) {
  std::printf("%c %-14s %s\n", there ? '+' : '-', what,
              there ? found.c_str() : ("missing: " + add).c_str());
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : " ") + name;
  return text;
}

void print_build() {
  const BuildInfo& info = build_info();
  std::string build = info.build_type;
  if (*info.sanitize) build += std::string(", sanitizers ") + info.sanitize;
  std::printf("Build\n");
  line("serpentine", info.version);
  line("compiler", std::string(info.compiler) + ", C++ ABI " +
                       (_GLIBCXX_USE_CXX11_ABI ? "cxx11" : "pre-cxx11") + ", " + build);
  line("LibTorch", std::string(TORCH_VERSION) + " in " + info.torch_root);
  if (info.cuda) line("CUDA toolkit", info.toolkit);
  const Packages packages = all_packages();
  line("models", join(packages.models.names()));
  line("data", join(packages.sources.names()));
  line("tasks", join(packages.tasks.names()));
}

void print_machine() {
  std::printf("Machine\n");
  line("processor", processor());
  line("SIMD",
       at::get_cpu_capability() + " (LibTorch), " + simd_name() + " (scan and convolution)");
  line("threads",
       std::to_string(at::get_num_threads()) + " for mathematics (--threads changes it)");
  const auto found = gpus();
  for (const auto& gpu : found) line("GPU", gpu);
  if (found.empty()) line("GPU", "none that a driver knows");
  const std::string toolkit = cuda_toolkit();
  line("CUDA toolkit", toolkit.empty() ? "none" : toolkit);
}

void print_features() {
  const BuildInfo& info = build_info();
  std::printf("Built in (+) and missing (-)\n");
  feature("processes", true, "several over Gloo: --nproc N, torchrun, Slurm", "");
  if (info.cuda) {
    feature("NCCL", info.nccl, "several GPUs may share a training",
            "pip install nvidia-nccl-cu13, then SERPENTINE_CUDA=ON ./serpent build");
  }
  feature("CUDA kernels", info.cuda, "yes",
          gpus().empty() ? "no GPU here; SERPENTINE_CUDA=ON ./serpent build on a machine with one"
                         : "SERPENTINE_CUDA=ON ./serpent build");
  const std::string rebuild = "; configure with -DSERPENTINE_";
  feature("pictures", info.opencv, "OpenCV",
          "apt-get install libopencv-imgcodecs-dev" + rebuild + "OPENCV=ON");
  feature("DICOM", info.gdcm, "GDCM", "apt-get install libgdcm-dev" + rebuild + "GDCM=ON");
  feature("DICOM-SEG", info.dcmtk, "DCMTK", "apt-get install libdcmtk-dev" + rebuild + "DCMTK=ON");
  feature("slides", info.openslide, "OpenSlide",
          "apt-get install libopenslide-dev" + rebuild + "OPENSLIDE=ON");
  feature("tiled TIFF", info.tiff, "libtiff",
          "apt-get install libtiff-dev" + rebuild + "LIBTIFF=ON");
  feature("HDF5", info.hdf5, "yes", "apt-get install libhdf5-dev" + rebuild + "HDF5=ON");
  feature("viewer", info.http, "cpp-httplib",
          "apt-get install libcpp-httplib-dev" + rebuild + "VIEWER=ON");
  feature("Parquet", info.parquet, "Arrow", "SERPENTINE_PARQUET=ON ./serpent build");
  const std::string gnuplot = find_program("gnuplot");
  feature("plots", !gnuplot.empty(), gnuplot.empty() ? "" : version_of(gnuplot) + " in " + gnuplot,
          "apt-get install gnuplot-nox");
  const std::string tensorboard = find_program("tensorboard");
  feature("TensorBoard", !tensorboard.empty(), tensorboard,
          "pip install tensorboard (runs write its files anyway)");
}

int run_doctor() {
  print_build();
  print_machine();
  print_features();
  return 0;
}

}  // namespace

void add_doctor_command(CLI::App& app, Action& action) {
  auto* command =
      app.add_subcommand("doctor", "Show versions, hardware, what is built in and what is missing");
  command->footer(kDoctorFooter);
  command->callback([&action] { action = run_doctor; });
}

}  // namespace serpentine
