// Code for x86-64, assembled by Xbyak: of each entry the place in the tile and the row's register are in the
// instructions, its value comes from a stream. So an entry is one instruction (AVX-512: a multiply-add that broadcasts
// its value) or two (AVX2), and no index is ever loaded.
#include "core/sparse/generated.h"

#if defined(__x86_64__) && defined(__linux__) && __has_include(<xbyak/xbyak.h>)
#include <array>
#include <cstring>

#include <xbyak/xbyak.h>

namespace espalier {
namespace {

using Xbyak::Reg64;

/// One instruction, assembled once and written many times with another displacement: asking the assembler for each
/// takes ten times as long.
struct Instruction {
  std::array<uint8_t, 16> bytes = {};
  size_t size = 0, displacement = 0;  ///< bytes of the whole, and of its displacement at its end
};

/// Arguments as System V passes them: x in rdi, values in rsi, y in rdx, its stride in rcx.
struct PanelWriter : Xbyak::CodeGenerator {
  PanelWriter(size_t bytes, bool avx512, int64_t rows, int64_t vectors)
      : CodeGenerator(bytes, Xbyak::DontSetProtectRWE), avx512_(avx512), vectors_(static_cast<int>(vectors)) {
    // Displacements that no shorter form can hold; AVX-512's short ones count in units, so x moves on there.
    for (int j = 0; j < vectors_; ++j)
      load_x_.push_back(assembled(avx512_ ? 1 : 4, [&] { vmovups(x(j), ptr[rdi + (avx512_ ? 64 : 1 << 20)]); }));
    const int value = avx512_ ? 4 : 1;  // the unit of a short displacement
    if (!broadcasts_within()) load_weight_ = assembled(1, [&] { vbroadcastss(weight(), ptr[rsi + value]); });
    for (int64_t r = 0; r < rows; ++r) {
      for (int j = 0; j < vectors_; ++j) {
        multiply_add_.push_back(broadcasts_within()
                                    ? assembled(1, [&] { vfmadd231ps(sum(r, 0), x(0), ptr_b[rsi + value]); })
                                    : assembled(0, [&] { vfmadd231ps(sum(r, j), x(j), weight()); }));
      }
    }
    reset();
  }

  /// Where the function begins.
  size_t write(const PanelCode& panel) {
    align(64);
    const size_t start = getSize();
    x_at_ = values_at_ = 0;
    for (int r = 0; r < panel.rows; ++r)
      for (int j = 0; j < vectors_; ++j)
        if (!panel.adds) zero(sum(r, j));
    if (panel.adds) move_sums(panel.rows, true);
    int64_t value = 0;
    for (size_t e = 0; e < panel.entries.size();) {
      const int32_t column = panel.entries[e].column;
      load_x(column);
      for (; e < panel.entries.size() && panel.entries[e].column == column; ++e) add(panel.entries[e].row, value++);
    }
    move_sums(panel.rows, false);
    vzeroupper();
    ret();
    return start;
  }

 private:
  int lanes() const { return avx512_ ? 16 : 8; }
  int64_t row_bytes() const { return int64_t{4} * lanes() * vectors_; }
  bool broadcasts_within() const { return avx512_ && vectors_ == 1; }
  Xbyak::Xmm vector(int i) const { return avx512_ ? Xbyak::Xmm(Xbyak::Zmm(i)) : Xbyak::Xmm(Xbyak::Ymm(i)); }
  Xbyak::Xmm sum(int64_t r, int j) const { return vector(static_cast<int>(r) * vectors_ + j); }
  Xbyak::Xmm x(int j) const { return vector((avx512_ ? 31 : 15) - j); }
  Xbyak::Xmm weight() const { return vector((avx512_ ? 31 : 15) - vectors_); }

  template <class F>
  Instruction assembled(size_t displacement, const F& assemble) {
    reset();
    assemble();
    Instruction instruction{.bytes = {}, .size = getSize(), .displacement = displacement};
    std::copy_n(getCode(), instruction.size, instruction.bytes.begin());
    return instruction;
  }
  void put(Instruction instruction, int64_t displacement = 0) {
    const auto value = static_cast<int32_t>(displacement);
    std::memcpy(instruction.bytes.data() + instruction.size - instruction.displacement, &value,
                instruction.displacement);
    db(instruction.bytes.data(), instruction.size);
  }

  void zero(const Xbyak::Xmm& v) {
    if (avx512_)
      vpxord(v, v, v);
    else
      vxorps(v, v, v);
  }
  /// y's rows to the sums or back; their register goes along.
  void move_sums(int64_t rows, bool load) {
    if (load) mov(rax, rdx);
    const Reg64& y = load ? rax : rdx;
    for (int64_t r = 0; r < rows; ++r) {
      for (int j = 0; j < vectors_; ++j) {
        if (load)
          vmovups(sum(r, j), ptr[y + 4 * lanes() * j]);
        else
          vmovups(ptr[y + 4 * lanes() * j], sum(r, j));
      }
      if (r + 1 < rows) CodeGenerator::add(y, rcx);
    }
  }
  /// The displacement of the last of `span` units, at a byte, after the register has followed: short ones reach from
  /// 128 units below it to 127 above.
  int64_t reach(const Reg64& pointer, int64_t& at, int64_t place, int64_t unit, int64_t span) {
    if (place - at > 127 * unit) {
      const int64_t by = place - at + (129 - span) * unit;
      CodeGenerator::add(pointer, static_cast<uint32_t>(by));
      at += by;
    }
    return (place - at) / unit;
  }
  void load_x(int64_t column) {
    const int64_t place = column * row_bytes();
    if (avx512_) {
      const int64_t last = reach(rdi, x_at_, place + row_bytes() - 64, 64, vectors_);
      for (int j = 0; j < vectors_; ++j) put(load_x_[static_cast<size_t>(j)], last - vectors_ + 1 + j);
    } else {
      for (int j = 0; j < vectors_; ++j) put(load_x_[static_cast<size_t>(j)], place + 32 * j);
    }
  }
  void add(int64_t row, int64_t value) {
    const int64_t from = reach(rsi, values_at_, 4 * value, avx512_ ? 4 : 1, 1);
    if (broadcasts_within()) {
      put(multiply_add_[static_cast<size_t>(row)], from);
      return;
    }
    put(load_weight_, from);
    for (int j = 0; j < vectors_; ++j) put(multiply_add_[static_cast<size_t>(row * vectors_ + j)]);
  }

  bool avx512_;
  int vectors_;
  int64_t x_at_ = 0, values_at_ = 0;  ///< how far the registers have moved
  std::vector<Instruction> load_x_, multiply_add_;
  Instruction load_weight_;
};

class X86Code : public GeneratedCode {
 public:
  X86Code(std::unique_ptr<PanelWriter> writer, std::vector<size_t> starts)
      : writer_(std::move(writer)), starts_(std::move(starts)) {}
  PanelFunction function(size_t panel) const override {
    return reinterpret_cast<PanelFunction>(reinterpret_cast<uintptr_t>(writer_->getCode() + starts_[panel]));
  }
  int64_t bytes() const override { return static_cast<int64_t>(writer_->getSize()); }

 private:
  std::unique_ptr<PanelWriter> writer_;
  std::vector<size_t> starts_;
};

}  // namespace

bool fits_registers(VectorIsa isa, int64_t rows, int64_t vectors) {
  if (isa == VectorIsa::portable || rows < 1 || vectors < 1) return false;
  // The sums, a row of x, and a weight that isn't broadcast within the multiply-add.
  const bool holds_weight = isa != VectorIsa::avx512 || vectors > 1;
  return (rows + 1) * vectors + (holds_weight ? 1 : 0) <= (isa == VectorIsa::avx512 ? 32 : 16);
}

std::unique_ptr<GeneratedCode> generate_panels(VectorIsa isa, int64_t rows, int64_t vectors, size_t count,
                                               int64_t entries, const std::function<PanelCode(size_t)>& panel) {
  if (isa == VectorIsa::portable) return nullptr;
  // Instructions of at most 11 bytes: of an entry its broadcast, its multiply-adds, x's loads and two register moves;
  // of a panel its zeros, loads and stores. What isn't written is never touched.
  const auto panel_bytes = static_cast<int64_t>(32) * 4 * 11 + 128;
  const int64_t bytes = entries * (2 * vectors + 3) * 11 + static_cast<int64_t>(count) * panel_bytes + 4096;
  try {
    auto writer = std::make_unique<PanelWriter>(static_cast<size_t>(bytes), isa == VectorIsa::avx512, rows, vectors);
    std::vector<size_t> starts;
    for (size_t p = 0; p < count; ++p) starts.push_back(writer->write(panel(p)));
    writer->setProtectModeRE();
    return std::make_unique<X86Code>(std::move(writer), std::move(starts));
  } catch (const Xbyak::Error&) {
    return nullptr;  // the system gives no memory that may hold code
  }
}

}  // namespace espalier

#else

namespace espalier {
bool fits_registers(VectorIsa, int64_t, int64_t) { return false; }
std::unique_ptr<GeneratedCode> generate_panels(VectorIsa, int64_t, int64_t, size_t, int64_t,
                                               const std::function<PanelCode(size_t)>&) {
  return nullptr;
}
}  // namespace espalier
#endif
