// What the processor itself finds: accesses to memory that isn't there. In a kernel they become a fault of its launch;
// a device pointer that host code follows ends the process, with words.
#pragma once

namespace espalier::emulation {

/// Takes over SIGSEGV, SIGBUS, SIGFPE and SIGILL; what isn't ours goes on to whoever had them.
void handle_signals();

/// A stack for the calling thread's signal handlers, as a kernel's own may be what overflowed. For the life of the
/// object.
class SignalStack {
 public:
  SignalStack();
  ~SignalStack();
  SignalStack(const SignalStack&) = delete;
  SignalStack& operator=(const SignalStack&) = delete;

 private:
  void* stack_ = nullptr;
};

}  // namespace espalier::emulation
