#include "core/calibration_probes.h"

#if defined(__x86_64__) && defined(__linux__) && __has_include(<xbyak/xbyak.h>)
#include <xbyak/xbyak.h>
#define ESPALIER_HAS_XBYAK 1
#endif

namespace espalier {
namespace {

#if defined(ESPALIER_HAS_XBYAK)

/// rdi: data, rsi: rounds.
struct ProbeWriter : Xbyak::CodeGenerator {
  ProbeWriter() : CodeGenerator(4096, Xbyak::DontSetProtectRWE) {}

  static Xbyak::Xmm vector(VectorIsa isa, int i) {
    return isa == VectorIsa::avx512 ? Xbyak::Xmm(Xbyak::Zmm(i)) : Xbyak::Xmm(Xbyak::Ymm(i));
  }
  void zero(VectorIsa isa, int i) {
    const Xbyak::Xmm v = vector(isa, i);
    if (isa == VectorIsa::avx512)
      vpxord(v, v, v);
    else
      vxorps(v, v, v);
  }
  /// Sums that don't wait for each other; returns how many.
  int write_fma(VectorIsa isa) {
    const int sums = isa == VectorIsa::avx512 ? 24 : 12;
    for (int i = 0; i <= sums; ++i) zero(isa, i);
    Xbyak::Label again;
    align(64);
    L(again);
    for (int i = 0; i < sums; ++i) vfmadd231ps(vector(isa, i), vector(isa, sums), vector(isa, sums));
    sub(rsi, 1);
    jnz(again);
    vzeroupper();
    ret();
    return sums;
  }
  void write_loads(VectorIsa isa, int64_t bytes) {
    Xbyak::Label round, block;
    L(round);
    mov(rax, rdi);
    mov(rcx, static_cast<uint64_t>(bytes / 1024));
    align(64);
    L(block);
    const auto step = static_cast<int>(vector_bytes(isa));
    for (int at = 0; at < 1024; at += step) vmovups(vector(isa, at / step % 8), ptr[rax + at]);
    add(rax, 1024);
    sub(rcx, 1);
    jnz(block);
    sub(rsi, 1);
    jnz(round);
    vzeroupper();
    ret();
  }
};

class GeneratedProbe : public Probe {
 public:
  void run(const void* data, int64_t rounds) const override {
    writer_.getCode<void (*)(const void*, int64_t)>()(data, rounds);
  }
  ProbeWriter& writer() { return writer_; }

 private:
  ProbeWriter writer_;
};

#endif

using Lanes = float __attribute__((vector_size(64)));

struct PortableFma : Probe {
  static constexpr int kUnrolled = 16;
  PortableFma() { per_round = kUnrolled * 8 * 16 * 2; }
  void run(const void*, int64_t rounds) const override {
    Lanes sums[8] = {};
    Lanes factor = {};
    for (int64_t r = 0; r < rounds; ++r) {
      for (int i = 0; i < kUnrolled; ++i)
        for (Lanes& sum : sums) sum += factor * factor;
      asm volatile("" : "+m"(factor));
    }
    asm volatile("" ::"m"(sums));
  }
};

struct PortableLoads : Probe {
  explicit PortableLoads(int64_t bytes) { per_round = static_cast<double>(bytes); }
  void run(const void* data, int64_t rounds) const override {
    Lanes sums[8] = {};
    const auto* vectors = static_cast<const Lanes*>(data);
    for (int64_t r = 0; r < rounds; ++r)
      for (int64_t i = 0; i < static_cast<int64_t>(per_round) / 64; i += 8)
        for (int64_t j = 0; j < 8; ++j) sums[j] += vectors[i + j];
    asm volatile("" ::"m"(sums));
  }
};

}  // namespace

int64_t vector_bytes(VectorIsa isa) { return isa == VectorIsa::avx2 ? 32 : 64; }

std::unique_ptr<Probe> make_fma_probe(VectorIsa isa) {
#if defined(ESPALIER_HAS_XBYAK)
  if (isa != VectorIsa::portable) {
    auto probe = std::make_unique<GeneratedProbe>();
    const int sums = probe->writer().write_fma(isa);
    if (probe->writer().setProtectModeRE(false)) {
      probe->per_round = sums * static_cast<double>(vector_bytes(isa)) / 4 * 2;
      return probe;
    }
  }
#endif
  return std::make_unique<PortableFma>();
}

std::unique_ptr<Probe> make_load_probe(VectorIsa isa, int64_t bytes) {
#if defined(ESPALIER_HAS_XBYAK)
  if (isa != VectorIsa::portable) {
    auto probe = std::make_unique<GeneratedProbe>();
    probe->writer().write_loads(isa, bytes);
    if (probe->writer().setProtectModeRE(false)) {
      probe->per_round = static_cast<double>(bytes);
      return probe;
    }
  }
#endif
  return std::make_unique<PortableLoads>(bytes);
}

}  // namespace espalier
