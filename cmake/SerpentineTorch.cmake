# serpentine_find_torch(OUT): LibTorch's folder; serpentine_link_torch(TARGET ROOT): use it.
#
# Three sources, in this order: a user's own LibTorch (Torch_DIR or CMAKE_PREFIX_PATH), or the torch
# wheel of the Python that SERPENTINE_PYTHON (or PATH) names. find_package(Torch) stops with an error
# when the library was built for CUDA and the machine has no toolkit, so its libraries are linked
# directly: torch_cpu and c10. The installed package reads this file too.
set(SERPENTINE_PYTHON "" CACHE FILEPATH "Python whose torch wheel is linked")

function(serpentine_find_torch out)
  set(candidates "")
  if(Torch_DIR)
    get_filename_component(root "${Torch_DIR}/../../.." ABSOLUTE)
    list(APPEND candidates "${root}")
  endif()
  file(TO_CMAKE_PATH "$ENV{CMAKE_PREFIX_PATH}" from_environment)
  foreach(prefix IN LISTS CMAKE_PREFIX_PATH from_environment)
    if(EXISTS "${prefix}/share/cmake/Torch/TorchConfig.cmake")
      list(APPEND candidates "${prefix}")
    endif()
  endforeach()
  foreach(python IN ITEMS "${SERPENTINE_PYTHON}" python3)
    if(python)
      execute_process(
        COMMAND "${python}" -c
          "import importlib.util as u, os; print(os.path.dirname(u.find_spec('torch').origin))"
        OUTPUT_VARIABLE root OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
      list(APPEND candidates "${root}")
    endif()
  endforeach()
  foreach(root IN LISTS candidates ARGN) # ARGN: where else to look
    if(EXISTS "${root}/include/torch/csrc/api/include/torch/torch.h")
      set(${out} "${root}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
  set(${out} "" PARENT_SCOPE)
endfunction()

# The wheel's own CUDA run-time library lies beside it; torch_cpu of a CUDA build needs it to load.
function(serpentine_torch_rpath root out)
  file(GLOB nvidia "${root}/../nvidia/*/lib")
  set(${out} "${root}/lib;${nvidia}" PARENT_SCOPE)
endfunction()

function(serpentine_link_torch target root)
  target_include_directories(${target} SYSTEM INTERFACE
    "${root}/include" "${root}/include/torch/csrc/api/include")
  target_link_libraries(${target} INTERFACE "${root}/lib/libtorch_cpu.so" "${root}/lib/libc10.so")
  serpentine_torch_rpath("${root}" rpath)
  foreach(dir IN LISTS rpath)
    target_link_options(${target} INTERFACE "LINKER:-rpath-link,${dir}")
  endforeach()
  # at::RecordFunction has one more member without NDEBUG; released libraries are built with it
  target_compile_definitions(${target} INTERFACE
    USE_C10D USE_C10D_GLOO $<$<CONFIG:Debug>:NDEBUG>)
endfunction()
