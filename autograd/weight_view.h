// WeightView: what travels with a masked weight, so that operations and their gradients know which elements exist.
#pragma once

#include <memory>
#include <typeinfo>

#include "autograd/variable.h"
#include "core/mask.h"
#include "core/sparse/dispatch.h"

namespace espalier {

/// Which gradients a masked weight has.
enum class GradientFlow : uint8_t {
  masked,  ///< where weights exist, 0 elsewhere
  dense,   ///< everywhere, for regrowth and straight-through criteria; optimisers still leave masked weights alone
};

/// A place for what a kernel prepares from a masked weight, its plan: indices, packed values, generated code. The plan
/// is kept with the mask and the values that it was made of, so nobody gets a stale one. Not for several threads.
class PlanSlot {
 public:
  /// The plan of the weight. `make(mask, values)` returns a new Plan when there is none, or one of another mask or
  /// type; `refill(plan, values)` is called instead when only the values are others than the plan has seen.
  template <class Plan, class Make, class Refill>
  Plan& get(const Mask& mask, const Tensor& values, Make&& make, Refill&& refill) {
    if (plan_ == nullptr || *type_ != typeid(Plan) || mask_version_ != mask.version()) {
      plan_ = std::make_shared<Plan>(make(mask, values));
      type_ = &typeid(Plan);
    } else if (storage_.lock() != values.storage() || values_version_ != values.version()) {
      refill(*static_cast<Plan*>(plan_.get()), values);
    }
    mask_version_ = mask.version();
    storage_ = values.storage();
    values_version_ = values.version();
    return *static_cast<Plan*>(plan_.get());
  }
  bool is_empty() const { return plan_ == nullptr; }
  /// Weights that exist, counted once for each mask.
  int64_t count(const Mask& mask) {
    if (count_ < 0 || counted_version_ != mask.version()) count_ = mask.count_elements();
    counted_version_ = mask.version();
    return count_;
  }

 private:
  std::shared_ptr<void> plan_;
  const std::type_info* type_ = nullptr;
  uint64_t mask_version_ = 0, values_version_ = 0;
  int64_t count_ = -1;
  uint64_t counted_version_ = 0;
  std::weak_ptr<Storage> storage_;
};

/// What is known of a Variable whose elements outside of a mask are exactly 0.
struct WeightView {
  Mask mask;
  GradientFlow flow = GradientFlow::masked;
  std::shared_ptr<PlanSlot> plan = {};  ///< of the Parameter, for all its operands; nullptr: there is no place for one
};
using WeightViewPtr = std::shared_ptr<const WeightView>;

/// The gradient of a weight that has this view (or nullptr), as an operation hands it on: 0 where no weights exist, if
/// the view's flow is masked. The result carries the view, which tells mask_gradient that nothing is left to do. A
/// kernel that computes the gradient at the mask's positions only takes the place of the product and of this.
Variable weight_gradient(Variable dense, const WeightViewPtr& view);

/// Operations call this before each product with a weight, where a kernel is chosen. A recorded backward pass is made
/// of dense products, which do not count.
void announce_product(const char* operation, WeightProduct product, const WeightViewPtr& view);

/// While alive, `callback` sees every announced product of this thread with a weight that has a view.
class WeightProductObserver {
 public:
  using Callback = std::function<void(const char* operation, WeightProduct product, const WeightView& view)>;
  explicit WeightProductObserver(Callback callback);
  ~WeightProductObserver();
  WeightProductObserver(const WeightProductObserver&) = delete;
  WeightProductObserver& operator=(const WeightProductObserver&) = delete;

 private:
  friend void announce_product(const char*, WeightProduct, const WeightViewPtr&);
  Callback callback_;
  WeightProductObserver* previous_;
};

}  // namespace espalier
