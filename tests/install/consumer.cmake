# Run by the test install_consumer; see CMakeLists.txt beside this file.
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "install_consumer: failed: ${ARGV}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/first --component development)
file(RENAME ${WORK}/first ${WORK}/moved)
run(${CMAKE_COMMAND} -S ${CONSUMER} -B ${WORK}/build -G Ninja -DCMAKE_MAKE_PROGRAM=${MAKE}
  -DCMAKE_PREFIX_PATH=${WORK}/moved\;${TORCH_ROOT})
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${WORK}/build/consumer)
