# serpentine_cuda: what our CUDA sources need of the toolkit and of LibTorch's CUDA libraries.
#
# The kernels know no torch header, so nvcc is quick; CMAKE_CUDA_ARCHITECTURES is all they heed.
if(NOT CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(CMAKE_CUDA_ARCHITECTURES "80-real;90") # the A100 and all that followed
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
add_library(serpentine_cuda INTERFACE)
foreach(library IN ITEMS torch_cuda c10_cuda)
  set(path "${SERPENTINE_TORCH_ROOT}/lib/lib${library}.so")
  if(NOT EXISTS "${path}")
    message(FATAL_ERROR "SERPENTINE_CUDA=ON needs a LibTorch for CUDA: ${path} is missing.")
  endif()
  target_link_libraries(serpentine_cuda INTERFACE $<BUILD_INTERFACE:${path}>)
endforeach()
target_link_libraries(serpentine_cuda INTERFACE $<BUILD_INTERFACE:CUDA::cudart>)
target_compile_options(serpentine_cuda INTERFACE
  # 128: a pass that needs no part of a kernel leaves loops that nothing reaches
  $<$<COMPILE_LANGUAGE:CUDA>:--extended-lambda --expt-relaxed-constexpr -diag-suppress=128>)
