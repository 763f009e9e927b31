#include "cuda/emulation/worker.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <numeric>

#include <fmt/format.h>

#include "cuda/emulation/address_sanitizer.h"

namespace espalier::emulation {
namespace {

namespace context = boost::context::detail;

constexpr unsigned kMaxThreads = 1024;
constexpr size_t kPage = 4096;
constexpr size_t kSharedCapacity = 228 * 1024;

thread_local Worker* current_worker = nullptr;

void* map(size_t bytes) {
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return memory;
}

std::string place(const std::source_location& where) {
  const std::string_view file = where.file_name();
  return fmt::format("{}:{}", file.substr(file.rfind('/') + 1), where.line());
}

}  // namespace

Fibre::Fibre(unsigned number) : memory_(map(kPage + kStackBytes)), number_(number) {
  mprotect(memory_, kPage, PROT_NONE);
  reset();
}
Fibre::~Fibre() { munmap(memory_, kPage + kStackBytes); }
bool Fibre::guards(uintptr_t address) const { return address - reinterpret_cast<uintptr_t>(memory_) < kPage; }

Worker* Worker::current() { return current_worker; }
Worker& Worker::of_this_thread() {
  static thread_local Worker worker;
  return worker;
}

Worker::Worker() : threads_(kMaxThreads), ready_(kMaxThreads), warps_(kMaxThreads / kLanes) {
  shared_ = static_cast<unsigned char*>(map(kSharedCapacity));
  cells_ = static_cast<Cell*>(map((kSharedCapacity / 4 + kSharedCapacity) * sizeof(Cell)));
  current_worker = this;
}
Worker::~Worker() {
  current_worker = nullptr;
  munmap(shared_, kSharedCapacity);
  munmap(cells_, (kSharedCapacity / 4 + kSharedCapacity) * sizeof(Cell));
}

// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
unsigned Worker::random() {
  uint64_t z = random_ += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return static_cast<unsigned>((z ^ (z >> 31)) >> 32);
}

uint3 Worker::index_of(unsigned thread) const {
  const dim3& block = call_->block;
  if (block.y == 1 && block.z == 1) return {thread, 0, 0};
  return {thread % block.x, thread / block.x % block.y, thread / (block.x * block.y)};
}

std::string Worker::name_of_thread(unsigned thread) const {
  const uint3 i = index_of(thread);
  return fmt::format("({},{},{})", i.x, i.y, i.z);
}

void Worker::become(unsigned thread) {
  threads_[thread].state = State::active;
  running.thread = thread;
  running.thread_index = threads_[thread].index;
  running.warp = thread / kLanes;
  running.lane_bit = 1u << (thread % kLanes);
  running.clock = &warps_[running.warp].clock;
}

void* Fibre::stack() const { return static_cast<char*>(memory_) + kPage; }

void Fibre::reset() {
  forget_frames(stack(), kStackBytes);
  // Stacks that begin at different places of a page don't compete for the same lines of the cache.
  const size_t shift = number_ * 320 % kPage / 64 * 64;
  context = context::make_fcontext(static_cast<char*>(stack()) + kStackBytes - shift, kStackBytes - shift,
                                   [](context::transfer_t from) { Worker::fibre_main(from); });
}

void Worker::fibre_main(context::transfer_t from) {
  Worker& w = *current_worker;
  const void* left = nullptr;
  size_t left_bytes = 0;
  enter_stack(nullptr, &left, &left_bytes);
  // Whoever switched here left its context: the scheduler, or the fibre named in `data`.
  if (from.data) {
    static_cast<Fibre*>(from.data)->context = from.fctx;
  } else {
    w.scheduler_ = from.fctx;
    w.scheduler_stack_ = left;
    w.scheduler_stack_bytes_ = left_bytes;
  }
  Fibre* const self = w.on_;
  for (;;) {
    while (w.started_ < w.threads_count_) {
      const unsigned thread = w.start_at_;
      w.start_at_ += w.start_step_;
      if (w.start_at_ >= w.threads_count_) w.start_at_ -= w.threads_count_;
      ++w.started_;
      w.threads_[thread].fibre = self;
      w.threads_[thread].index = w.index_of(thread);
      w.become(thread);
      w.call_->invoke(w.call_->bound);
      w.threads_[running.thread].state = State::finished;
      w.warps_[running.warp].gone |= running.lane_bit;
      ++w.finished_;
      if (!w.started_first_ && w.ready_count_ > 0) break;
    }
    w.idle_.push_back(self);
    w.switch_to(w.next());
  }
}

Fibre* Worker::next() {
  if (started_ < threads_count_ && (started_first_ || ready_count_ == 0)) {
    if (idle_.empty()) {
      fibres_.push_back(std::make_unique<Fibre>(static_cast<unsigned>(fibres_.size())));
      idle_.push_back(fibres_.back().get());
    }
    Fibre* const fibre = idle_.back();
    idle_.pop_back();
    return fibre;
  }
  if (ready_count_ == 0) return nullptr;
  const unsigned thread = ready_[ready_begin_];
  ready_begin_ = (ready_begin_ + 1) % kMaxThreads;
  --ready_count_;
  become(thread);
  return threads_[thread].fibre;
}

/// Leaves the running fibre; returns when something switches back to it.
void Worker::switch_to(Fibre* fibre) {
  Fibre* const self = on_;
  if (fibre == self) return;
  on_ = fibre;
  void* saved = nullptr;
  leave_stack(&saved, fibre ? fibre->stack() : scheduler_stack_, fibre ? Fibre::kStackBytes : scheduler_stack_bytes_);
  const context::transfer_t back = context::jump_fcontext(fibre ? fibre->context : scheduler_, self);
  enter_stack(saved);
  (back.data ? static_cast<Fibre*>(back.data)->context : scheduler_) = back.fctx;
}

void Worker::wait() { switch_to(next()); }

BlockFault Worker::run(const Call& call, uint3 block, size_t shared_limit, uint64_t seed) {
  call_ = &call;
  random_ = seed;
  threads_count_ = call.block.x * call.block.y * call.block.z;
  started_ = finished_ = at_barrier_ = ready_begin_ = ready_count_ = 0;
  std::fill_n(threads_.begin(), threads_count_, Thread{});
  start_at_ = random() % threads_count_;
  do start_step_ = random() % threads_count_ + 1;
  while (std::gcd(start_step_, threads_count_) != 1);
  started_first_ = random() % 2 == 0;
  fault_ = {};
  if (epoch_ > UINT32_MAX - (1u << 20)) {  // old stamps must not look new
    std::memset(static_cast<void*>(cells_), 0, (kSharedCapacity / 4 + kSharedCapacity) * sizeof(Cell));
    epoch_ = 0;
  }
  for (unsigned warp = 0; warp * kLanes < threads_count_; ++warp) {
    Warp& w = warps_[warp];
    const unsigned lanes = threads_count_ - warp * kLanes;
    w.waiting = 0;
    w.gone = lanes < kLanes ? ~0u << lanes : 0;
    w.clock.time = w.clock.full = 0;
    w.clock.partial = false;
  }
  shared_limit_ = shared_limit;
  shared_used_ = (call.shared_bytes + 15) / 16 * 16;
  static_arrays_.clear();
  running.block_index = block;
  running.block_dim = call.block;
  running.grid_dim = call.grid;
  running.first_epoch = running.epoch = ++epoch_;

  on_ = nullptr;
  while (Fibre* const fibre = next()) {
    on_ = fibre;
    void* saved = nullptr;
    leave_stack(&saved, fibre->stack(), Fibre::kStackBytes);
    const context::transfer_t back = context::jump_fcontext(fibre->context, nullptr);
    enter_stack(saved);
    if (fault_.status != cudaSuccess) break;
    static_cast<Fibre*>(back.data)->context = back.fctx;
  }
  if (fault_.status == cudaSuccess && finished_ < threads_count_) fault_ = deadlock();
  if (fault_.status != cudaSuccess) {
    // The kernel's frames stay where they are; the stacks begin anew.
    idle_.clear();
    for (const auto& fibre : fibres_) {
      fibre->reset();
      idle_.push_back(fibre.get());
    }
  }
  call_ = nullptr;
  return fault_;
}

void Worker::stop(cudaError_t status, const std::string& what) {
  const uint3& b = running.block_index;
  fault_ = {status, fmt::format("kernel {}, block ({},{},{}), thread {}: {}", call_->name, b.x, b.y, b.z,
                                name_of_thread(running.thread), what)};
  on_ = nullptr;
  leave_stack(nullptr, scheduler_stack_, scheduler_stack_bytes_);
  context::jump_fcontext(scheduler_, nullptr);
  __builtin_unreachable();
}

bool Worker::stack_overflowed_at(uintptr_t address) const { return on_ && on_->guards(address); }

void raise(cudaError_t status, const std::string& what) { current_worker->stop(status, what); }

// Barriers.

int block_barrier(BlockVote vote, bool predicate, const std::source_location& where) {
  return current_worker->barrier(vote, predicate, where);
}

int Worker::barrier(BlockVote vote, bool predicate, const std::source_location& where) {
  Thread& self = threads_[running.thread];
  if (at_barrier_ == 0) {
    vote_ = vote;
    votes_ = 0;
    meeting_ = where;
    met_by_ = running.thread;
  } else if (where.line() != meeting_.line() || vote != vote_ ||
             (where.file_name() != meeting_.file_name() && std::strcmp(where.file_name(), meeting_.file_name()) != 0)) {
    stop(cudaErrorLaunchFailure, fmt::format("reached the barrier at {} while thread {} waits at the one at {}",
                                             place(where), name_of_thread(met_by_), place(meeting_)));
  }
  votes_ += predicate;
  self.state = State::at_barrier;
  if (++at_barrier_ == threads_count_) release_barrier();
  wait();
  return vote_result_;
}

void Worker::release_barrier() {
  const int all = static_cast<int>(threads_count_);
  vote_result_ = vote_ == BlockVote::count ? votes_ : vote_ == BlockVote::all ? votes_ == all : votes_ > 0;
  at_barrier_ = 0;
  running.epoch = ++epoch_;
  unsigned thread = random() % threads_count_, step;
  do step = random() % threads_count_ + 1;
  while (std::gcd(step, threads_count_) != 1);
  ready_begin_ = 0;
  ready_count_ = threads_count_;
  for (unsigned i = 0; i < threads_count_; ++i) {
    threads_[thread].state = State::ready;
    ready_[i] = static_cast<uint16_t>(thread);
    thread += step;
    if (thread >= threads_count_) thread -= threads_count_;
  }
}

uint64_t warp_exchange(WarpOp op, unsigned mask, uint64_t value, unsigned source, const std::source_location& where) {
  return current_worker->exchange(op, mask, value, source, where);
}

uint64_t Worker::exchange(WarpOp op, unsigned mask, uint64_t value, unsigned source,
                          const std::source_location& where) {
  Thread& self = threads_[running.thread];
  Warp& warp = warps_[running.warp];
  if (!(mask & running.lane_bit))
    stop(cudaErrorLaunchFailure,
         fmt::format("the mask {:#010x} at {} lacks the calling lane {}", mask, place(where), running.thread % kLanes));
  if (const unsigned gone = mask & warp.gone; gone != 0)
    stop(cudaErrorLaunchFailure, fmt::format("the mask {:#010x} at {} names lane {}, which has ended or never was",
                                             mask, place(where), std::countr_zero(gone)));
  self.state = State::in_exchange;
  self.op = op;
  self.mask = mask;
  self.value = value;
  self.source = source;
  self.where = &where;
  warp.waiting |= running.lane_bit;
  if ((warp.waiting & mask) == mask) {
    complete_exchange(self);
  } else {
    wait();
  }
  if (op == WarpOp::shuffle && !(mask >> self.source & 1u))
    stop(cudaErrorLaunchFailure,
         fmt::format("reads lane {} at {}, which isn't in the mask {:#010x}", self.source, place(where), mask));
  return self.result;
}

void Worker::complete_exchange(const Thread& last) {
  const unsigned first = running.warp * kLanes, mask = last.mask;
  Warp& warp = warps_[running.warp];
  uint64_t ballot = 0;
  for (unsigned lanes = mask; lanes != 0; lanes &= lanes - 1) {
    const auto lane = static_cast<unsigned>(std::countr_zero(lanes));
    const Thread& thread = threads_[first + lane];
    if (thread.mask != mask || thread.op != last.op)
      stop(cudaErrorLaunchFailure, fmt::format("calls {} with mask {:#010x}, lane {} calls {} with mask {:#010x}",
                                               place(*last.where), mask, lane, place(*thread.where), thread.mask));
    ballot |= uint64_t{thread.value != 0} << lane;
  }
  warp.waiting &= ~mask;
  // The lanes continue in another order each time.
  const unsigned turn = random();
  for (unsigned k = 0; k < kLanes; ++k) {
    const unsigned i = (k * (turn << 1 | 1u) + (turn >> 16)) % kLanes;
    if (!(mask >> i & 1u)) continue;
    Thread& thread = threads_[first + i];
    if (last.op == WarpOp::vote) {
      thread.result = ballot;
    } else if (mask >> thread.source & 1u) {
      thread.result = threads_[first + thread.source].value;
    }
    if (&thread == &last) continue;
    thread.state = State::ready;
    ready_[(ready_begin_ + ready_count_++) % kMaxThreads] = static_cast<uint16_t>(first + i);
  }
  threads_[running.thread].state = State::active;

  WarpClock& clock = warp.clock;
  const unsigned lanes = std::min(kLanes, threads_count_ - first);
  ++clock.time;
  if (std::popcount(mask) == static_cast<int>(lanes)) {
    clock.full = clock.time;
    return;
  }
  if (!clock.partial) std::memset(clock.known, 0, sizeof(clock.known));
  clock.partial = true;
  uint32_t known[kLanes] = {};
  for (unsigned i = 0; i < lanes; ++i) {
    if (!(mask >> i & 1u)) continue;
    for (unsigned k = 0; k < kLanes; ++k) known[k] = std::max(known[k], clock.known[i][k]);
  }
  for (unsigned i = 0; i < lanes; ++i)
    if (mask >> i & 1u) known[i] = clock.time;
  for (unsigned i = 0; i < lanes; ++i)
    if (mask >> i & 1u) std::memcpy(clock.known[i], known, sizeof(known));
}

BlockFault Worker::deadlock() const {
  const uint3& b = running.block_index;
  const auto fault = [&](const std::string& what) {
    return BlockFault{cudaErrorLaunchFailure,
                      fmt::format("kernel {}, block ({},{},{}): {}", call_->name, b.x, b.y, b.z, what)};
  };
  for (unsigned t = 0; t < threads_count_; ++t) {
    if (threads_[t].state != State::in_exchange) continue;
    const unsigned first = t / kLanes * kLanes;
    for (unsigned lanes = threads_[t].mask; lanes != 0; lanes &= lanes - 1) {
      const unsigned other = first + static_cast<unsigned>(std::countr_zero(lanes));
      const Thread& missing = threads_[other];
      if (missing.state == State::in_exchange && missing.mask == threads_[t].mask) continue;
      const std::string instead =
          missing.state == State::finished ? "has ended"
          : missing.state == State::at_barrier
              ? fmt::format("waits at the barrier at {}", place(meeting_))
              : fmt::format("waits at {} for those of {:#010x}", place(*missing.where), missing.mask);
      return fault(fmt::format("thread {} waits at {} for the lanes of mask {:#010x}, but thread {} {}",
                               name_of_thread(t), place(*threads_[t].where), threads_[t].mask, name_of_thread(other),
                               instead));
    }
  }
  unsigned missing = 0;
  while (threads_[missing].state == State::at_barrier) ++missing;
  return fault(
      fmt::format("the barrier at {} was reached by {} of {} threads; the others have ended, thread {} among "
                  "them",
                  place(meeting_), at_barrier_, threads_count_, name_of_thread(missing)));
}

// Shared memory.

void* static_shared(const void* tag, size_t bytes, const char* name) {
  return current_worker->static_shared(tag, bytes, name);
}
void* dynamic_shared(size_t& bytes) { return current_worker->dynamic_shared(bytes); }
Cell* cells_of(const void* shared, size_t element_bytes) { return current_worker->cells_of(shared, element_bytes); }

void* Worker::static_shared(const void* tag, size_t bytes, const char* name) {
  for (const StaticArray& array : static_arrays_)
    if (array.tag == tag) return shared_ + array.offset;
  const size_t offset = shared_used_;
  shared_used_ += (bytes + 15) / 16 * 16;
  constexpr size_t kStaticLimit = 48 * 1024;
  const size_t static_bytes = shared_used_ - (call_->shared_bytes + 15) / 16 * 16;
  if (static_bytes > kStaticLimit)
    stop(cudaErrorLaunchOutOfResources,
         fmt::format("static shared memory of {} bytes up to '{}' exceeds the {} that a block may have", static_bytes,
                     name, kStaticLimit));
  if (shared_used_ > shared_limit_)
    stop(cudaErrorLaunchOutOfResources,
         fmt::format("{} bytes of dynamic and {} of static shared memory exceed the {} that a block may have",
                     call_->shared_bytes, static_bytes, shared_limit_));
  static_arrays_.push_back({tag, offset});
  return shared_ + offset;
}

void* Worker::dynamic_shared(size_t& bytes) const {
  bytes = call_->shared_bytes;
  return shared_;
}

Cell* Worker::cells_of(const void* shared, size_t element_bytes) const {
  const size_t offset = static_cast<size_t>(static_cast<const unsigned char*>(shared) - shared_);
  return element_bytes < 4 ? cells_ + kSharedCapacity / 4 + offset : cells_ + offset / 4;
}

void shared_out_of_bounds(const char* name, int64_t index, int64_t count) {
  raise(cudaErrorIllegalAddress, fmt::format("element {} of shared array '{}', which has {}", index, name, count));
}
void shared_uninitialised(const char* name, int64_t index) {
  raise(
      cudaErrorLaunchFailure,
      fmt::format("uninitialised shared memory: reads element {} of '{}', which nothing was written to", index, name));
}
void shared_race(const char* name, int64_t index, SharedAccess access, const Stamp& earlier, bool was_read) {
  const Running& r = running;
  uint32_t lanes = earlier.warp == r.warp ? earlier.lanes & ~r.lane_bit : earlier.lanes;
  std::string other = "another thread";
  if (lanes != 0)
    other = "thread " +
            current_worker->name_of_thread(earlier.warp * kLanes + static_cast<unsigned>(std::countr_zero(lanes)));
  const char* const now = access == SharedAccess::read ? "reads" : access == SharedAccess::write ? "writes" : "updates";
  raise(cudaErrorLaunchFailure,
        fmt::format("race: {} element {} of shared array '{}', which {} {} with no barrier between", now, index, name,
                    other, was_read ? "has read" : "has written"));
}

}  // namespace espalier::emulation
