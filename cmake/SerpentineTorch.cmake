# Finds LibTorch and defines the target `serpentine_torch`.
#
# Three sources, in this order: a user's own LibTorch (Torch_DIR or CMAKE_PREFIX_PATH), or the torch
# wheel of the Python that SERPENTINE_PYTHON (or PATH) names. find_package(Torch) stops with an error
# when the library was built for CUDA and the machine has no toolkit, so its libraries are linked
# directly: torch_cpu and c10 always, the CUDA ones only with SERPENTINE_CUDA.
set(SERPENTINE_PYTHON "" CACHE FILEPATH "Python whose torch wheel is linked")

set(_torch_root "")
if(Torch_DIR)
  get_filename_component(_torch_root "${Torch_DIR}/../../.." ABSOLUTE)
endif()
foreach(_prefix IN LISTS CMAKE_PREFIX_PATH)
  if(NOT _torch_root AND EXISTS "${_prefix}/share/cmake/Torch/TorchConfig.cmake")
    set(_torch_root "${_prefix}")
  endif()
endforeach()
if(NOT _torch_root)
  if(NOT SERPENTINE_PYTHON)
    find_program(SERPENTINE_PYTHON_ON_PATH NAMES python3)
    set(SERPENTINE_PYTHON "${SERPENTINE_PYTHON_ON_PATH}")
  endif()
  execute_process(
    COMMAND "${SERPENTINE_PYTHON}" -c
            "import importlib.util as u, os; print(os.path.dirname(u.find_spec('torch').origin))"
    OUTPUT_VARIABLE _torch_root OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(NOT EXISTS "${_torch_root}/include/torch/csrc/api/include/torch/torch.h")
  message(FATAL_ERROR
    "LibTorch was not found. Run ./serpent build (it installs the pinned wheel), or pass "
    "-DCMAKE_PREFIX_PATH=/path/to/libtorch or -DSERPENTINE_PYTHON=/path/to/python3 with torch.")
endif()
message(STATUS "LibTorch: ${_torch_root}")
set(SERPENTINE_TORCH_ROOT "${_torch_root}" CACHE INTERNAL "LibTorch's folder")

# The wheel's own CUDA run-time library lies beside it; torch_cpu of a CUDA build needs it to load.
file(GLOB _nvidia_libs "${_torch_root}/../nvidia/*/lib")
set(SERPENTINE_RPATH "${_torch_root}/lib;${_nvidia_libs}")
list(APPEND CMAKE_BUILD_RPATH ${SERPENTINE_RPATH})
list(APPEND CMAKE_INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}" ${SERPENTINE_RPATH})

add_library(serpentine_torch INTERFACE)
target_include_directories(serpentine_torch SYSTEM INTERFACE
  "${_torch_root}/include" "${_torch_root}/include/torch/csrc/api/include")
target_link_libraries(serpentine_torch INTERFACE
  "${_torch_root}/lib/libtorch_cpu.so" "${_torch_root}/lib/libc10.so")
foreach(_dir IN LISTS SERPENTINE_RPATH)
  target_link_options(serpentine_torch INTERFACE "LINKER:-rpath-link,${_dir}")
endforeach()
target_compile_definitions(serpentine_torch INTERFACE USE_C10D USE_C10D_GLOO)
