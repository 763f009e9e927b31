// Where a tensor lives.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace espalier {

/// A device: the CPU, or one CUDA GPU by its index.
class Device {
 public:
  enum class Type : uint8_t { cpu, cuda };

  static constexpr Device cpu() { return Device(Type::cpu, 0); }
  static constexpr Device cuda(int index = 0) { return Device(Type::cuda, index); }

  /// "cpu", "cuda" or "cuda:1". Throws ArgumentError otherwise.
  static Device parse(std::string_view text);

  constexpr Type type() const { return type_; }
  constexpr int index() const { return index_; }
  constexpr bool is_cpu() const { return type_ == Type::cpu; }
  std::string name() const;
  constexpr bool operator==(const Device&) const = default;

 private:
  constexpr Device(Type type, int index) : type_(type), index_(static_cast<int8_t>(index)) {}
  Type type_;
  int8_t index_;
};

}  // namespace espalier
