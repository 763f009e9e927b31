// The texts of errors.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "core/error.h"

namespace espalier::testing_support {

/// The message of the exception of type E that f throws, or "" with a failed test.
template <class E = ArgumentError, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  }
  ADD_FAILURE() << "expected an error, none was thrown";
  return "";
}

inline void expect_contains(const std::string& text, std::string_view part) {
  EXPECT_NE(text.find(part), std::string::npos) << "expected '" << part << "' in: " << text;
}

inline void expect_contains(const std::string& text, std::initializer_list<std::string_view> parts) {
  for (const std::string_view part : parts) expect_contains(text, part);
}

/// f throws an E whose message holds all of `parts`.
template <class E = ArgumentError, class F>
void expect_error(F&& f, std::initializer_list<std::string_view> parts) {
  expect_contains(message_of<E>(f), parts);
}

}  // namespace espalier::testing_support
