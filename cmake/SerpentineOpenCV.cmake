# serpentine_opencv: the three modules of OpenCV that pictures need.
#
# OpenCV's own package file stands in Debian's libopencv-dev, which brings everything from cameras
# to VTK; headers and libraries of the three modules are found without it.
find_path(SERPENTINE_OPENCV_INCLUDE opencv2/imgcodecs.hpp PATH_SUFFIXES opencv4 REQUIRED)
add_library(serpentine_opencv INTERFACE)
target_include_directories(serpentine_opencv SYSTEM INTERFACE ${SERPENTINE_OPENCV_INCLUDE})
foreach(part IN ITEMS imgcodecs imgproc core)
  find_library(SERPENTINE_OPENCV_${part} opencv_${part} REQUIRED)
  target_link_libraries(serpentine_opencv INTERFACE ${SERPENTINE_OPENCV_${part}})
endforeach()
