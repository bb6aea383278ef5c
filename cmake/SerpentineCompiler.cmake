# Warnings and sanitizers for our own targets: the interface target `serpentine_options`.
add_library(serpentine_options INTERFACE)
target_compile_options(serpentine_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
  -Wno-missing-field-initializers>)
if(SERPENTINE_WERROR)
  target_compile_options(serpentine_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
# what GCC's optimiser guesses differs with version and flags, and is at times wrong (bug 105651)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  foreach(guess IN ITEMS restrict maybe-uninitialized stringop-overflow stringop-overread
          array-bounds free-nonheap-object)
    target_compile_options(serpentine_options INTERFACE
      $<$<COMPILE_LANGUAGE:CXX>:-Wno-${guess}>)
  endforeach()
endif()
if(SERPENTINE_SANITIZE)
  target_compile_options(serpentine_options INTERFACE
    -fsanitize=${SERPENTINE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
  target_link_options(serpentine_options INTERFACE -fsanitize=${SERPENTINE_SANITIZE})
  # GCC 13 aligns the stack frames of this check to 32 bytes, AVX-512 needs 64 (bug 110027)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(serpentine_options INTERFACE
      $<$<COMPILE_LANGUAGE:CXX>:--param=asan-use-after-return=0>)
  endif()
endif()

# Compilers cache: paths are taken relative to the source tree, so that clones share results; the
# precompiled header needs the two sloppiness flags. GCC 13 and older refuse a cached precompiled
# header only when it is stale, which the hash of its content rules out.
find_program(SERPENTINE_CCACHE ccache)
if(SERPENTINE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime CCACHE_NOHASHDIR=1
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} ${SERPENTINE_CCACHE})
endif()
find_program(SERPENTINE_LLD ld.lld)
if(SERPENTINE_LLD)
  add_link_options(-fuse-ld=lld)
endif()
