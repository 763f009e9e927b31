// Bundle: what goes into a network or comes out of it.
#pragma once

#include <initializer_list>
#include <utility>

#include "autograd/variable.h"

namespace espalier {

/// One Variable, as most networks take and give, or several: an input and its lengths, the outputs of several heads.
/// Where one Variable is expected the first is taken, so that code for one needs no word about the others.
class Bundle {
 public:
  Bundle() = default;
  Bundle(Tensor one) : Bundle(Variable(std::move(one))) {}
  Bundle(Variable one) : all_{std::move(one)} {}
  Bundle(Variables all) : all_(std::move(all)) {}
  Bundle(std::initializer_list<Variable> all) : all_(all) {}

  operator const Variable&() const { return first(); }
  /// Throws when there is none.
  const Variable& first() const { return (*this)[0]; }
  const Variable& operator[](size_t i) const {
    check(i < all_.size(), "Bundle", "expected at least {} inputs or outputs, got {}", i + 1, all_.size());
    return all_[i];
  }
  const Tensor& data() const { return first().data(); }
  size_t size() const { return all_.size(); }
  auto begin() const { return all_.begin(); }
  auto end() const { return all_.end(); }
  const Variables& all() const { return all_; }

 private:
  Variables all_;
};

}  // namespace espalier
