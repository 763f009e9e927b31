#include "autograd/weight_view.h"

#include "autograd/engine.h"
#include "autograd/ops.h"

namespace espalier {

namespace {
thread_local WeightProductObserver* t_product_observers = nullptr;
}  // namespace

Variable weight_gradient(Variable dense, const WeightViewPtr& view) {
  if (!view || view->flow == GradientFlow::dense) return dense;
  Variable result;
  if (grad_enabled()) {
    result = apply_mask(dense, view->mask);
  } else {
    Tensor values = Engine::take(std::move(dense));
    view->mask.apply_(values);
    result = Variable(std::move(values));
  }
  result.set_weight_view(view);
  return result;
}

void announce_product(const char* operation, WeightProduct product, const WeightViewPtr& view) {
  if (!view || !t_product_observers || (product != WeightProduct::forward && grad_enabled())) return;
  for (const WeightProductObserver* observer = t_product_observers; observer; observer = observer->previous_)
    observer->callback_(operation, product, *view);
}

WeightProductObserver::WeightProductObserver(Callback callback)
    : callback_(std::move(callback)), previous_(t_product_observers) {
  t_product_observers = this;
}

WeightProductObserver::~WeightProductObserver() { t_product_observers = previous_; }

}  // namespace espalier
