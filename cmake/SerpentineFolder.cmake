# serpentine_folder(NAME SOURCES ... LINK ...): one folder's OBJECT library `serpentine_NAME_objects`.
#
# torch/torch.h takes over ten seconds to parse, so one precompiled header is built once and reused.
include(SerpentineIncludes)
add_library(serpentine_pch OBJECT ${CMAKE_SOURCE_DIR}/cmake/pch.cpp)
target_link_libraries(serpentine_pch PUBLIC serpentine_torch serpentine_options)
target_precompile_headers(serpentine_pch PRIVATE <torch/torch.h> <nlohmann/json_fwd.hpp>)
target_compile_options(serpentine_pch PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>
  "$<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>")

function(serpentine_folder name)
  cmake_parse_arguments(arg "NO_PCH" "" "SOURCES;LINK" ${ARGN})
  set(target serpentine_${name}_objects)
  add_library(${target} OBJECT ${arg_SOURCES})
  target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(${target} PUBLIC serpentine_torch serpentine_options ${arg_LINK})
  if(NOT arg_NO_PCH)
    serpentine_use_pch(${target})
  endif()
endfunction()

# serpentine_cuda_part(NAME SOURCES ... INSTEAD FILE): what a folder has for GPUs, or the file that
# stands in for it in a build without CUDA.
function(serpentine_cuda_part name)
  cmake_parse_arguments(arg "" "INSTEAD" "SOURCES" ${ARGN})
  set(target serpentine_${name}_objects)
  if(NOT SERPENTINE_CUDA)
    target_sources(${target} PRIVATE ${arg_INSTEAD})
    return()
  endif()
  target_sources(${target} PRIVATE ${arg_SOURCES})
  # joined, the kernels would be compiled one after another
  set_source_files_properties(${arg_SOURCES} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  target_link_libraries(${target} PUBLIC serpentine_cuda)
endfunction()

# serpentine_library(NAME PARTS ...): the SHARED library `serpentine_NAME` of one or more folders.
function(serpentine_library name)
  cmake_parse_arguments(arg "" "" "PARTS;LINK" ${ARGN})
  set(objects "")
  foreach(part IN LISTS arg_PARTS)
    list(APPEND objects $<TARGET_OBJECTS:serpentine_${part}_objects>)
  endforeach()
  add_library(serpentine_${name} SHARED ${objects})
  add_library(Serpentine::${name} ALIAS serpentine_${name})
  set_target_properties(serpentine_${name} PROPERTIES EXPORT_NAME ${name} LINKER_LANGUAGE CXX)
  target_include_directories(serpentine_${name} PUBLIC
    $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}> $<INSTALL_INTERFACE:include/serpentine>)
  target_link_libraries(serpentine_${name} PUBLIC serpentine_torch PRIVATE serpentine_options)
  target_link_libraries(serpentine_${name} PUBLIC ${arg_LINK})
  target_compile_features(serpentine_${name} PUBLIC cxx_std_20)
  install(TARGETS serpentine_${name} EXPORT SerpentineTargets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
endfunction()

# serpentine_test(NAME LABELS ... SOURCES ... LINK ...): one GoogleTest program, one CTest entry.
#
# Programs labelled `unit` belong to the target `unit_tests`, which the sanitizer build stops at.
add_custom_target(unit_tests)
function(serpentine_test name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINK;LABELS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE serpentine_options ${arg_LINK} GTest::gtest GTest::gtest_main)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/tests)
  serpentine_use_pch(${name})
  target_compile_definitions(${name} PRIVATE SERPENTINE_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}")
  if("unit" IN_LIST arg_LABELS)
    add_dependencies(unit_tests ${name})
  endif()
endfunction()
