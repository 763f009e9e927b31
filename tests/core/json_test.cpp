// JSON that is not to be trusted.
#include "core/json.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

std::string nested(int64_t depth) {
  return std::string(static_cast<size_t>(depth), '[') + std::string(static_cast<size_t>(depth), ']');
}

TEST(Json, DepthCountsBracketsOutsideOfStrings) {
  EXPECT_EQ(json_depth("1"), 0);
  EXPECT_EQ(json_depth(R"({"a": [1, {"b": 2}], "c": []})"), 3);
  EXPECT_EQ(json_depth(R"(["[[[[", "\"[[", "\\", ["{"]])"), 2);
  EXPECT_EQ(json_depth(nested(1000)), 1000);
  EXPECT_EQ(json_depth(R"("\)"), 0);  // ends within an escape
}

TEST(Json, RefusesWhatIsTooDeepBeforeItIsParsed) {
  EXPECT_EQ(json_depth(parse_json(nested(kDeepestJson)).dump()), kDeepestJson);
  try {
    parse_json(nested(75'000));
    FAIL() << "expected an error";
  } catch (const nlohmann::json::exception& error) {
    EXPECT_STREQ(error.what(), "expected objects and arrays at most 256 deep, found 75000");
  }
  EXPECT_THROW(parse_json("{\"a\": "), nlohmann::json::exception);
}

TEST(Json, WhatIsNoObjectIsAnEmptyOneWhereItDoesNotMatter) {
  EXPECT_EQ(parse_json_object_or_empty(R"({"a": 1})").value("a", 0), 1);
  for (const std::string& text : {std::string("[1]"), std::string("{"), std::string(), nested(75'000)})
    EXPECT_EQ(parse_json_object_or_empty(text), nlohmann::json::object()) << text.substr(0, 10);
}

}  // namespace
}  // namespace espalier
