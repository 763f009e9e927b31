// Registry: what users name in text, and how it is made.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/ranges.h>

#include "core/error.h"

namespace espalier {

/// Names of one kind of thing ("criterion"), each with the function that makes it, in the order in which they came.
/// The library's own stand in an explicit list, which the function that holds the Registry gives it: an object that
/// registered itself would be dropped by linkers. A program adds its own before it uses them. Not for several threads.
template <class Signature>
class Registry {
 public:
  using Make = std::function<Signature>;

  Registry(const char* kind, std::vector<std::pair<std::string, Make>> entries)
      : kind_(kind), entries_(std::move(entries)) {}

  /// Throws ArgumentError when the name is taken.
  void add(const std::string& name, Make make) {
    check(!name.empty() && make != nullptr, "register", "expected a name and a function that makes the {}", kind_);
    check(!contains(name), "register", "the {} '{}' is known already; choose another name", kind_, name);
    entries_.emplace_back(name, std::move(make));
  }
  /// Adds it, or puts it in the place of the one of that name.
  void replace(const std::string& name, Make make) {
    std::erase_if(entries_, [&](const auto& entry) { return entry.first == name; });
    add(name, std::move(make));
  }
  bool contains(const std::string& name) const {
    for (const auto& [known, make] : entries_)
      if (known == name) return true;
    return false;
  }
  /// Throws ArgumentError in the name of `operation` on an unknown name, naming the nearest.
  const Make& find(const char* operation, const std::string& name) const {
    for (const auto& [known, make] : entries_)
      if (known == name) return make;
    fail(operation, "unknown {} '{}'{}; known: {}", kind_, name, did_you_mean(name, names()), fmt::join(names(), ", "));
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, make] : entries_) names.push_back(name);
    return names;
  }

 private:
  const char* kind_;
  std::vector<std::pair<std::string, Make>> entries_;
};

}  // namespace espalier
