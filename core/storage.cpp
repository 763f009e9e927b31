#include "core/storage.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/kernels.h"

namespace espalier {
namespace {

/// ESPALIER_CUDA_CACHE=0: every tensor on a GPU is a block of its own and of its exact size, given back when the tensor
/// is, so that compute-sanitizer and the emulator see accesses beyond its end or after it.
bool cuda_cache_enabled() {
  const char* const value = std::getenv("ESPALIER_CUDA_CACHE");
  return !value || std::string_view(value) != "0";
}

/// Hands out the memory of one device, counts it, and keeps freed blocks in lists by size, so that a training loop,
/// which asks for the same sizes in every step, takes nothing from the system after its first step. Sizes are rounded
/// up to bound the number of lists and the waste (1/8). Of a CUDA device a block may be handed out again while kernels
/// still use it: the next owner's kernels run after them, in the order of the device's one stream.
class CachingAllocator {
 public:
  explicit CachingAllocator(Device device) : device_(device), keeps_(device.is_cpu() || cuda_cache_enabled()) {}

  void* allocate(size_t bytes, size_t& capacity) {
    capacity = keeps_ ? round_up(bytes) : std::max<size_t>(bytes, 1);
    std::lock_guard lock(mutex_);
    void* block = take_cached(capacity);
    if (!block) {
      block = take_new(capacity);
      if (!block) {  // the cache may hold enough, in blocks of other sizes
        release_locked();
        block = take_new(capacity);
      }
      if (!block) fail_out_of_memory(bytes);
    }
    stats_.current += capacity;
    stats_.peak = std::max(stats_.peak, stats_.current);
    return block;
  }

  void deallocate(void* block, size_t capacity) {
    std::lock_guard lock(mutex_);
    stats_.current -= capacity;
    if (!keeps_) return give_back(block);
    stats_.cached += capacity;
    free_[capacity].push_back(block);
  }

  void release() {
    std::lock_guard lock(mutex_);
    release_locked();
  }

  MemoryStats stats() {
    std::lock_guard lock(mutex_);
    MemoryStats stats = stats_;
    if (!device_.is_cpu()) {
      const cuda::PoolStats pool = cuda::pool_stats(device_.index());
      stats.cached += pool.reserved - pool.used;
    }
    return stats;
  }

  void reset_peak() {
    std::lock_guard lock(mutex_);
    stats_.peak = stats_.current;
  }

 private:
  /// Multiples of 64 up to 512; above, eight sizes for each power of two.
  static size_t round_up(size_t bytes) {
    size_t step = 64;
    while (step * 16 < bytes) step *= 2;
    return std::max<size_t>((bytes + step - 1) / step * step, 64);
  }

  void* take_cached(size_t capacity) {
    const auto list = free_.find(capacity);
    if (list == free_.end() || list->second.empty()) return nullptr;
    void* block = list->second.back();
    list->second.pop_back();
    stats_.cached -= capacity;
    return block;
  }

  void* take_new(size_t capacity) {
    void* const block = device_.is_cpu() ? std::aligned_alloc(64, capacity) : cuda::allocate(device_.index(), capacity);
    if (block) ++stats_.system_calls;
    return block;
  }

  void give_back(void* block) {
    if (device_.is_cpu())
      std::free(block);
    else
      cuda::deallocate(device_.index(), block);
  }

  void release_locked() {
    for (auto& [capacity, blocks] : free_)
      for (void* block : blocks) give_back(block);
    free_.clear();
    stats_.cached = 0;
    if (!device_.is_cpu()) cuda::release(device_.index());
  }

  [[noreturn]] void fail_out_of_memory(size_t bytes) const {
    std::string device;
    if (!device_.is_cpu()) {
      const cuda::PoolStats pool = cuda::pool_stats(device_.index());
      device = fmt::format(", {} of the device's {} are free", pool.device_free, pool.device_total);
    }
    fail<Error>("allocate", "out of memory on {}: asked for {} bytes, {} are in use (peak {}){}; use a smaller batch",
                device_.name(), bytes, stats_.current, stats_.peak, device);
  }

  Device device_;
  bool keeps_;  ///< freed blocks, of rounded sizes
  std::mutex mutex_;
  std::unordered_map<size_t, std::vector<void*>> free_;
  MemoryStats stats_;
};

/// Never destroyed: tensors with static lifetime may be freed after it would have been.
CachingAllocator& allocator(Device device) {
  static std::mutex mutex;
  static auto& cuda_allocators = *new std::unordered_map<int, CachingAllocator*>;
  static auto& cpu_allocator = *new CachingAllocator(Device::cpu());
  if (device.is_cpu()) return cpu_allocator;
  std::lock_guard lock(mutex);
  CachingAllocator*& slot = cuda_allocators[device.index()];
  if (!slot) slot = new CachingAllocator(device);
  return *slot;
}

}  // namespace

MemoryStats memory_stats(Device device) { return allocator(device).stats(); }
void reset_peak_memory(Device device) { allocator(device).reset_peak(); }
void release_cached_memory(Device device) { allocator(device).release(); }

Storage::Storage(size_t bytes, Device device) : bytes_(bytes), device_(device) {
  data_ = allocator(device).allocate(bytes, capacity_);
}

Storage::~Storage() { allocator(device_).deallocate(data_, capacity_); }

}  // namespace espalier
