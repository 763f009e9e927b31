#include "cuda/emulation/signals.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <new>

#include <fmt/format.h>

#include "cuda/emulation/stream.h"
#include "cuda/emulation/worker.h"

namespace espalier::emulation {
namespace {

struct sigaction old_actions[NSIG];

std::string describe(uintptr_t device_address) {
  std::lock_guard guard(state().mutex);
  return state().memory.describe(device_address);
}

/// How the faulting instruction accessed memory, where the processor tells.
const char* access_of([[maybe_unused]] const void* machine) {
#if defined(__x86_64__) && defined(REG_ERR)
  return static_cast<const ucontext_t*>(machine)->uc_mcontext.gregs[REG_ERR] & 2 ? "writes" : "reads";
#else
  return "accesses";
#endif
}

void in_kernel(Worker& worker, int signal, const siginfo_t& info, const void* machine) {
  const DeviceMemory& memory = state().memory;
  const auto address = reinterpret_cast<uintptr_t>(info.si_addr);
  if (signal == SIGFPE)
    worker.stop(cudaErrorLaunchFailure, "an integer was divided by zero, or the quotient overflows");
  if (signal == SIGILL)
    worker.stop(cudaErrorIllegalInstruction,
                "an illegal instruction: a trap, or undefined behaviour that the compiler saw");
  if (worker.stack_overflowed_at(address))
    worker.stop(
        cudaErrorHardwareStackError,
        fmt::format("the thread's local variables exceed the emulator's {} bytes of stack", Fibre::kStackBytes));
  const char* const access = access_of(machine);
  if (memory.contains_bytes(address)) {
    const uintptr_t device = memory.to_device(address);
    worker.stop(cudaErrorIllegalAddress,
                fmt::format("{} device memory at {:#x}: {}", access, device, describe(device)));
  }
  if (memory.contains(address))
    worker.stop(
        cudaErrorIllegalAddress,
        fmt::format("{} device memory at {:#x}: {} (a pointer that reached the kernel through memory, not as an "
                    "argument, or far out of bounds)",
                    access, address, describe(address)));
  std::unique_lock lock(state().mutex);
  const uintptr_t host = memory.trapped(address);
  lock.unlock();
  if (host != 0)
    worker.stop(cudaErrorIllegalAddress,
                fmt::format("{} through a host pointer given to the kernel in a struct ({:#x})", access, host));
  if (info.si_code == SI_KERNEL)
    worker.stop(cudaErrorMisalignedAddress, "a vector access to a misaligned address, or an address that can't be one");
  if (address < 4096)
    worker.stop(cudaErrorIllegalAddress, fmt::format("{} through a null pointer (address {:#x})", access, address));
  worker.stop(cudaErrorIllegalAddress, fmt::format("{} memory at {:#x}, which is no device memory", access, address));
}

void handle(int signal, siginfo_t* info, void* machine) {
  Worker* const worker = Worker::current();
  if (worker && worker->busy()) in_kernel(*worker, signal, *info, machine);
  const DeviceMemory& memory = state().memory;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  const bool device = memory.contains(address), bytes = memory.contains_bytes(address);
  if ((signal == SIGSEGV || signal == SIGBUS) && (device || bytes)) {
    const uintptr_t pointer = device ? address : memory.to_device(address);
    const std::string words =
        fmt::format("[cuda emulation] host code dereferenced device pointer {:#x}: {}\n", pointer, describe(pointer));
    std::fputs(words.c_str(), stderr);
    std::abort();
  }
  const struct sigaction& old = old_actions[signal];
  if (old.sa_flags & SA_SIGINFO) {
    old.sa_sigaction(signal, info, machine);
  } else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) {
    old.sa_handler(signal);
  } else {
    ::signal(signal, SIG_DFL);  // the instruction runs again and ends the process
  }
}

}  // namespace

void handle_signals() {
  struct sigaction action {};
  action.sa_sigaction = handle;
  // A kernel's fault leaves the handler by a jump: its signal must not stay blocked.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigaction(signal, &action, &old_actions[signal]);
}

namespace {
constexpr size_t kSignalStack = 64 * 1024;
}

SignalStack::SignalStack() {
  stack_ = mmap(nullptr, kSignalStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (stack_ == MAP_FAILED) throw std::bad_alloc();
  stack_t stack{};
  stack.ss_sp = stack_;
  stack.ss_size = kSignalStack;
  sigaltstack(&stack, nullptr);
}

SignalStack::~SignalStack() {
  stack_t none{};
  none.ss_flags = SS_DISABLE;
  sigaltstack(&none, nullptr);
  munmap(stack_, kSignalStack);
}

}  // namespace espalier::emulation
