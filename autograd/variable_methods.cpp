// Operations as methods: each is the function of its name.
#include "autograd/ops.h"

namespace espalier {

Variable Variable::reshape(const Shape& shape) const { return espalier::reshape(*this, shape); }
Variable Variable::permute(const std::vector<int>& axes) const { return espalier::permute(*this, axes); }
Variable Variable::transpose(int axis0, int axis1) const { return espalier::transpose(*this, axis0, axis1); }
Variable Variable::slice(int axis, int64_t start, int64_t end, int64_t step) const {
  return espalier::slice(*this, axis, start, end, step);
}
Variable Variable::select(int axis, int64_t index) const { return espalier::select(*this, axis, index); }
Variable Variable::expand(const Shape& shape) const { return espalier::expand(*this, shape); }
Variable Variable::squeeze(int axis) const { return espalier::squeeze(*this, axis); }
Variable Variable::unsqueeze(int axis) const { return espalier::unsqueeze(*this, axis); }
Variable Variable::flatten(int first, int last) const { return espalier::flatten(*this, first, last); }
Variable Variable::to(DType dtype) const { return espalier::to(*this, dtype); }
Variable Variable::to(Device device) const { return espalier::to(*this, device); }
Variable Variable::abs() const { return espalier::abs(*this); }
Variable Variable::square() const { return espalier::square(*this); }
Variable Variable::sqrt() const { return espalier::sqrt(*this); }
Variable Variable::exp() const { return espalier::exp(*this); }
Variable Variable::log() const { return espalier::log(*this); }
Variable Variable::tanh() const { return espalier::tanh(*this); }
Variable Variable::sigmoid() const { return espalier::sigmoid(*this); }
Variable Variable::relu() const { return espalier::relu(*this); }
Variable Variable::sum(const std::vector<int>& axes, bool keep_axes) const {
  return espalier::sum(*this, axes, keep_axes);
}
Variable Variable::mean(const std::vector<int>& axes, bool keep_axes) const {
  return espalier::mean(*this, axes, keep_axes);
}
Variable Variable::matmul(const Variable& other) const { return espalier::matmul(*this, other); }

}  // namespace espalier
