# The CUDA backend joins espalier_core: cuda/unavailable.cpp without one, or the kernels, by nvcc or emulated on the CPU.
if(ESPALIER_CUDA STREQUAL "off")
  target_sources(espalier_core PRIVATE cuda/unavailable.cpp)
  return()
endif()

file(GLOB cuda_host_sources CONFIGURE_DEPENDS cuda/*.cpp)
list(FILTER cuda_host_sources EXCLUDE REGEX "unavailable.cpp$")
file(GLOB cuda_kernels CONFIGURE_DEPENDS cuda/*.cu)
target_sources(espalier_core PRIVATE ${cuda_host_sources} ${cuda_kernels})

if(ESPALIER_CUDA STREQUAL "on")
  # Machine code for these two; PTX for whatever comes later.
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 90-virtual CACHE STRING "GPUs to compile for")
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 doesn't know it of nvcc
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  endif()
  find_package(CUDAToolkit REQUIRED)
  find_package(CUDNN REQUIRED)
  target_link_libraries(espalier_core PRIVATE CUDA::cudart_static CUDA::cublas CUDNN::CUDNN)
  # fmt 9 turns constexpr off for nvcc, and then can't check its format strings; nvcc 13 does well with it.
  target_compile_options(espalier_core PRIVATE
    "$<$<COMPILE_LANGUAGE:CUDA>:-DFMT_USE_CONSTEXPR=1;--expt-relaxed-constexpr;--extended-lambda;-Werror=all-warnings;-Xcompiler=-Wall,-Wextra;-Xptxas=-v>")
  # What ptxas says of registers and spills goes to a file beside each object; scripts/cuda-resources reads them.
  find_program(PYTHON3 python3 REQUIRED)
  set(launcher ${PYTHON3} ${PROJECT_SOURCE_DIR}/cmake/keep_ptxas_log.py ${CMAKE_CXX_COMPILER_LAUNCHER})
  # The target is older than the language, so nothing has given it the architectures yet.
  set_target_properties(espalier_core PROPERTIES
    CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}" CUDA_COMPILER_LAUNCHER "${launcher}")
elseif(ESPALIER_CUDA STREQUAL "emulated")
  find_package(Boost REQUIRED COMPONENTS context)
  file(GLOB_RECURSE emulation CONFIGURE_DEPENDS cuda/emulation/*.cpp)
  target_sources(espalier_core PRIVATE ${emulation})
  set_source_files_properties(${cuda_kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
  # Before the toolkit's own headers, should there be any.
  target_include_directories(espalier_core BEFORE PRIVATE cuda/emulation/include)
  target_link_libraries(espalier_core PRIVATE Boost::context)
else()
  message(FATAL_ERROR "ESPALIER_CUDA: expected off, on or emulated, got '${ESPALIER_CUDA}'")
endif()
