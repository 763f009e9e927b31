// Runs blocks on one thread of the operating system: their threads as fibres, their shared memory, their barriers.
#pragma once

#include <boost/context/detail/fcontext.hpp>

#include <memory>
#include <string>
#include <vector>

#include "cuda/emulation/block.h"
#include "cuda/emulation/launch.h"
#include "cuda/emulation/shared.h"
#include "cuda/emulation/signals.h"

namespace espalier::emulation {

/// A stack and what runs on it: thread after thread of a block.
class Fibre {
 public:
  static constexpr size_t kStackBytes = size_t{128} << 10;
  explicit Fibre(unsigned number);
  ~Fibre();
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  /// Forgets what was running; the next switch begins anew.
  void reset();
  void* stack() const;
  bool guards(uintptr_t address) const;  ///< whether an overflow of this stack touches that address

  boost::context::detail::fcontext_t context = nullptr;

 private:
  void* memory_;
  unsigned number_;
};

/// The first fault of a block.
struct BlockFault {
  cudaError_t status = cudaSuccess;
  std::string words;
};

class Worker {
 public:
  Worker();
  ~Worker();

  /// Runs a block whose threads are ordered by `seed`. Returns what went wrong, if anything.
  BlockFault run(const Call& call, uint3 block, size_t shared_limit, uint64_t seed);

  /// The calling thread's; null where none has run a block.
  static Worker* current();
  static Worker& of_this_thread();

  /// A kernel of this worker is running.
  bool busy() const { return on_ != nullptr; }
  /// Leaves the running thread for good: its block ends with this fault. Works in a signal handler.
  [[noreturn]] void stop(cudaError_t status, const std::string& what);
  bool stack_overflowed_at(uintptr_t address) const;

  int barrier(BlockVote vote, bool predicate, const std::source_location& where);
  uint64_t exchange(WarpOp op, unsigned mask, uint64_t value, unsigned source, const std::source_location& where);
  void* static_shared(const void* tag, size_t bytes, const char* name);
  void* dynamic_shared(size_t& bytes) const;
  Cell* cells_of(const void* shared, size_t element_bytes) const;
  std::string name_of_thread(unsigned thread) const;

 private:
  enum class State : uint8_t { unstarted, active, ready, at_barrier, in_exchange, finished };
  struct Thread {
    State state = State::unstarted;
    WarpOp op{};
    unsigned mask = 0, source = 0;
    uint64_t value = 0, result = 0;
    Fibre* fibre = nullptr;
    uint3 index{};
    const std::source_location* where = nullptr;  ///< of what it waits at, on its own stack
  };
  struct Warp {
    unsigned waiting, gone;  ///< lanes in an exchange; lanes that have ended or never were
    WarpClock clock;
  };
  struct StaticArray {
    const void* tag;
    size_t offset;
  };

  friend class Fibre;
  static void fibre_main(boost::context::detail::transfer_t from);
  void become(unsigned thread);
  /// The fibre that continues with what may run next, or null for the scheduler.
  Fibre* next();
  void switch_to(Fibre* fibre);
  void wait();
  void release_barrier();
  void complete_exchange(const Thread& last);
  BlockFault deadlock() const;
  unsigned random();
  uint3 index_of(unsigned thread) const;

  SignalStack signal_stack_;
  std::vector<std::unique_ptr<Fibre>> fibres_;
  std::vector<Fibre*> idle_;
  Fibre* on_ = nullptr;  ///< the fibre that runs
  boost::context::detail::fcontext_t scheduler_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;

  const Call* call_ = nullptr;
  unsigned threads_count_ = 0, started_ = 0, finished_ = 0, at_barrier_ = 0;
  unsigned start_at_ = 0, start_step_ = 1;
  bool started_first_ = true;  ///< unstarted threads before those that can go on
  std::vector<Thread> threads_;
  std::vector<uint16_t> ready_;  ///< a ring of kMaxThreads
  unsigned ready_begin_ = 0, ready_count_ = 0;
  BlockVote vote_{};
  std::source_location meeting_;  ///< the barrier that threads wait at
  unsigned met_by_ = 0;           ///< the first of them
  int votes_ = 0, vote_result_ = 0;
  uint64_t random_ = 0;
  BlockFault fault_;

  std::vector<Warp> warps_;
  uint32_t epoch_ = 0;
  size_t shared_limit_ = 0, shared_used_ = 0;
  std::vector<StaticArray> static_arrays_;
  unsigned char* shared_ = nullptr;
  Cell* cells_ = nullptr;
};

}  // namespace espalier::emulation
