# `cmake --install`: static libraries, public headers and what find_package(Espalier) reads.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Espalier)

install(TARGETS espalier espalier_core espalier_autograd espalier_datasets espalier_layers espalier_training
        espalier_pruning espalier_pipeline EXPORT EspalierTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT EspalierTargets NAMESPACE Espalier:: DESTINATION ${package_dir})

file(STRINGS cmake/private_headers.txt private_headers REGEX "^[^#]")
set(exclude "")
foreach(header IN LISTS private_headers)
  list(APPEND exclude PATTERN ${header} EXCLUDE)
endforeach()
install(DIRECTORY core autograd datasets layers training pruning pipeline DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/espalier
        FILES_MATCHING PATTERN "*.h" ${exclude})
install(FILES espalier.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/espalier)

configure_package_config_file(cmake/EspalierConfig.cmake.in ${PROJECT_BINARY_DIR}/EspalierConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/EspalierConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/EspalierConfig.cmake ${PROJECT_BINARY_DIR}/EspalierConfigVersion.cmake
        cmake/FindOpenBLAS.cmake cmake/FindCUDNN.cmake DESTINATION ${package_dir})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
