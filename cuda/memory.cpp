// Device memory from CUDA's stream-ordered pool, and copies.
#include "cuda/context.h"

namespace espalier::cuda {
namespace {

cudaMemPool_t pool_of(int index) {
  cudaMemPool_t pool = nullptr;
  check(cudaDeviceGetDefaultMemPool(&pool, index), "cudaDeviceGetDefaultMemPool");
  return pool;
}

uint64_t attribute(int index, cudaMemPoolAttr which) {
  uint64_t value = 0;
  check(cudaMemPoolGetAttribute(pool_of(index), which, &value), "cudaMemPoolGetAttribute");
  return value;
}

}  // namespace

void* allocate(int index, size_t bytes) {
  const Context& context = Context::of(Device::cuda(index));
  void* pointer = nullptr;
  const cudaError_t status = cudaMallocAsync(&pointer, bytes, context.stream());
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // the caller says it in its own words; the device stays usable
    return nullptr;
  }
  check(status, "cudaMallocAsync");
  return pointer;
}

void deallocate(int index, void* pointer) {
  // No check: this runs in destructors, at the end of the process even after the driver has left.
  const Context* const context = Context::existing(index);
  if (!context || !pointer) return;
  cudaSetDevice(index);
  cudaFreeAsync(pointer, context->stream());
  cudaGetLastError();
}

PoolStats pool_stats(int index) {
  Context::of(Device::cuda(index));  // cudaMemGetInfo asks the current device
  PoolStats stats;
  stats.reserved = attribute(index, cudaMemPoolAttrReservedMemCurrent);
  stats.used = attribute(index, cudaMemPoolAttrUsedMemCurrent);
  check(cudaMemGetInfo(&stats.device_free, &stats.device_total), "cudaMemGetInfo");
  return stats;
}

void release(int index) {
  Context::of(Device::cuda(index)).synchronize();
  check(cudaMemPoolTrimTo(pool_of(index), 0), "cudaMemPoolTrimTo");
}

void synchronize(int index) { Context::of(Device::cuda(index)).synchronize(); }

std::vector<std::string> describe_devices() {
  std::vector<std::string> lines;
  int driver = 0, runtime = 0, devices = 0;
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  lines.push_back(fmt::format("CUDA {}.{}, driver for {}.{}, cuDNN {}", runtime / 1000, runtime % 1000 / 10,
                              driver / 1000, driver % 1000 / 10, cudnnGetVersion()));
  for (int i = 0; i < devices; ++i) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, i), "cudaGetDeviceProperties");
    lines.push_back(fmt::format("{}: {}, compute capability {}.{}, {} multiprocessors, {:.1f} GB",
                                Device::cuda(i).name(), properties.name, properties.major, properties.minor,
                                properties.multiProcessorCount, static_cast<double>(properties.totalGlobalMem) / 1e9));
  }
  return lines;
}

void copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  if (bytes == 0) return;
  if (from_device.is_cpu()) {
    Context::of(to_device).upload(to, from, bytes);
  } else if (to_device.is_cpu()) {
    Context& context = Context::of(from_device);
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, context.stream()), "cudaMemcpyAsync");
    context.synchronize();
  } else if (to_device == from_device) {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, Context::of(to_device).stream()),
          "cudaMemcpyAsync");
  } else {
    Context::of(from_device).synchronize();
    Context& context = Context::of(to_device);
    check(cudaMemcpyPeerAsync(to, to_device.index(), from, from_device.index(), bytes, context.stream()),
          "cudaMemcpyPeerAsync");
    context.synchronize();  // before the source may be freed on its own stream
  }
}

}  // namespace espalier::cuda
