# serpentine_parquet: Arrow and its reader of Parquet files.
#
# A user's own Arrow if CMake finds its package, else the libraries and headers that the pyarrow wheel
# of SERPENTINE_PYTHON carries: Debian 12 and Ubuntu 24.04 have no package.
add_library(serpentine_parquet INTERFACE)
find_package(Arrow CONFIG QUIET)
find_package(Parquet CONFIG QUIET)
if(Arrow_FOUND AND Parquet_FOUND)
  target_link_libraries(serpentine_parquet INTERFACE Arrow::arrow_shared Parquet::parquet_shared)
  message(STATUS "Parquet: Arrow ${Arrow_VERSION} in ${Arrow_DIR}")
  return()
endif()

foreach(python IN ITEMS "${SERPENTINE_PYTHON}" python3)
  if(python AND NOT wheel)
    execute_process(
      COMMAND "${python}" -c
        "import importlib.util as u, os; print(os.path.dirname(u.find_spec('pyarrow').origin))"
      OUTPUT_VARIABLE wheel OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
endforeach()
if(NOT EXISTS "${wheel}/include/parquet/arrow/reader.h")
  message(FATAL_ERROR
    "SERPENTINE_PARQUET=ON found neither Arrow's CMake package nor a pyarrow wheel. Run "
    "SERPENTINE_PARQUET=ON ./serpent build (it installs the pinned wheel), or pass "
    "-DCMAKE_PREFIX_PATH=/path/to/arrow or -DSERPENTINE_PYTHON=/path/to/python3 with pyarrow.")
endif()
target_include_directories(serpentine_parquet SYSTEM INTERFACE "${wheel}/include")
foreach(part IN ITEMS parquet arrow)
  file(GLOB library "${wheel}/lib${part}.so.*")
  list(LENGTH library count)
  if(NOT count EQUAL 1)
    message(FATAL_ERROR "${wheel} must hold one lib${part}.so.*, it holds ${count}")
  endif()
  target_link_libraries(serpentine_parquet INTERFACE "${library}")
endforeach()
list(APPEND CMAKE_BUILD_RPATH "${wheel}")
list(APPEND CMAKE_INSTALL_RPATH "${wheel}")
message(STATUS "Parquet: the pyarrow wheel in ${wheel}")
