#include "layers/size_budget.h"

#include <algorithm>

#include <sys/resource.h>
#include <unistd.h>

#include "core/error.h"

namespace espalier {

namespace {
thread_local SizeBudget* t_budget = nullptr;

/// Of the machine, or what `ulimit -v` leaves of it.
double memory_of_this_machine() {
  const double physical = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  rlimit limit = {};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return physical;
  return std::min(physical, static_cast<double>(limit.rlim_cur));
}
}  // namespace

SizeBudget::SizeBudget(uint64_t bytes, std::string advice)
    : left_(static_cast<double>(bytes)), advice_(std::move(advice)), outer_(t_budget) {
  t_budget = this;
}

SizeBudget::~SizeBudget() { t_budget = outer_; }

uint64_t SizeBudget::bytes_of(int64_t elements) {
  constexpr uint64_t kEachTensor = 256;
  return kEachTensor + static_cast<uint64_t>(elements) * sizeof(float);
}

void SizeBudget::check_fits(const char* operation, const std::string& what, double bytes) {
  const double left = t_budget != nullptr ? t_budget->left_ : memory_of_this_machine();
  check(bytes <= left, operation, "{} would take {:.0f} bytes, expected at most {:.0f}: {}", what, bytes, left,
        t_budget != nullptr ? t_budget->advice_ : "that is all the memory there is; choose smaller sizes");
}

void SizeBudget::claim(const char* operation, const Shape& shape) {
  double elements = 1;  // which can't overflow
  for (const int64_t size : shape) {
    check(size > 0, operation, "expected positive sizes, got parameters of shape {}", shape);
    elements *= static_cast<double>(size);
  }
  // Above 2^53 the product is rounded, and refused on any machine.
  const double bytes = elements * sizeof(float);
  check_fits(operation, "parameters of shape " + shape.to_string(), bytes);
  if (t_budget != nullptr) t_budget->left_ -= static_cast<double>(bytes_of(static_cast<int64_t>(elements)));
}

}  // namespace espalier
