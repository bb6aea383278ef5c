# The installed package: find_package(Serpentine) gives Serpentine::core and one library a domain,
# as Serpentine::timeseries.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Serpentine)
install(TARGETS serpentine_torch EXPORT SerpentineTargets COMPONENT development)
install(EXPORT SerpentineTargets NAMESPACE Serpentine:: DESTINATION ${package_dir}
  COMPONENT development)
configure_package_config_file(cmake/SerpentineConfig.cmake.in
  ${CMAKE_BINARY_DIR}/SerpentineConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/SerpentineConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/SerpentineConfig.cmake
  ${CMAKE_BINARY_DIR}/SerpentineConfigVersion.cmake cmake/SerpentineTorch.cmake
  DESTINATION ${package_dir} COMPONENT development)
install(DIRECTORY core scans timeseries pointcloud vision segmentation pathology DESTINATION include/serpentine COMPONENT development
  FILES_MATCHING PATTERN "*.h" PATTERN "gloo_declared" EXCLUDE)
install(FILES LICENSE NOTICE DESTINATION ${CMAKE_INSTALL_DOCDIR})
