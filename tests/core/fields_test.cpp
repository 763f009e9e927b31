// Fields and registries: options and names written once.
#include "core/fields.h"

#include <cmath>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/registry.h"
#include "tests/expect_error.h"

namespace espalier {
namespace {

using testing_support::expect_contains;
using testing_support::message_of;

enum class Colour : uint8_t { red, green };
constexpr std::pair<Colour, const char*> kColours[] = {{Colour::red, "red"}, {Colour::green, "green"}};
EnumNames names_of(Colour) { return {"colour", kColours}; }

struct Part {
  std::string name;
  double weight = 1;
};
void fields(FieldVisitor& f, Part& p) {
  f("name", p.name, "Its name");
  f("weight", p.weight, at_least(0), "Its weight");
}

struct Options {
  double share = 0.5;
  int64_t count = 3;
  bool on = false;
  std::optional<double> maybe = {};
  Colour colour = Colour::green;
  std::vector<std::string> names = {"a", "b"};
  std::map<std::string, double> of = {};
  std::vector<Part> parts = {};
};
void fields(FieldVisitor& f, Options& o) {
  f("share", o.share, share(), "A share");
  f("count", o.count, at_least(1), "A number");
  f("on", o.on, "A switch");
  f("maybe", o.maybe, above(0), "May be left out");
  f("colour", o.colour, "One of two");
  f("names", o.names, "Several");
  f.unless_default("of", o.of, share_below_one(), "By name");
  f.list("part", o.parts, "Parts");
  f.judge([&] { check(o.count < 100 || o.on, "op", "many need on"); });
}

TEST(Fields, RangesSayWhatIsInThem) {
  EXPECT_TRUE(share().contains(0) && share().contains(1));
  EXPECT_FALSE(share().contains(std::nan("")) || share_below_one().contains(1) || share_above_zero().contains(0));
  EXPECT_FALSE(above(0).contains(0));
  EXPECT_FALSE(Range().contains(-INFINITY) || at_least(0).contains(INFINITY));
  EXPECT_TRUE(Range().contains(-1e300));
  EXPECT_EQ(Range().expectation(), "that is finite");
  EXPECT_EQ(share_below_one().to_string(), "in [0,1)");
  EXPECT_EQ(at_least(1).to_string(), "of at least 1");
  EXPECT_EQ(above(0.5).to_string(), "above 0.5");
  EXPECT_EQ(Range().to_string(), "");
}

TEST(Fields, BecomeJson) {
  Options o{.of = {{"x", 0.25}}, .parts = {{.name = "p"}}};
  const nlohmann::json json = json_of_fields([&](FieldVisitor& f) { fields(f, o); });
  EXPECT_EQ(json, nlohmann::json::parse(R"({"share": 0.5, "count": 3, "on": false, "maybe": null, "colour": "green",
      "names": ["a", "b"], "of": {"x": 0.25}, "part": [{"name": "p", "weight": 1.0}]})"));
}

TEST(Fields, NumbersOutOfTheirRangesAreNamed) {
  const auto judge = [](Options o) { check_option_ranges("op", o); };
  judge({});
  expect_contains(message_of([&] { judge({.share = 1.5}); }), "[op] expected share in [0,1], got 1.5");
  expect_contains(message_of([&] { judge({.count = 0}); }), "expected count of at least 1, got 0");
  expect_contains(message_of([&] { judge({.count = 100}); }), "many need on");
  expect_contains(message_of([&] { judge({.maybe = 0.0}); }), "expected maybe above 0, got 0");
  expect_contains(message_of([&] { judge({.of = {{"fc1", 1}}}); }), "expected a number in [0,1) for 'fc1', got 1");
  expect_contains(message_of([&] { judge({.parts = {{.name = "p", .weight = -1}}}); }),
                  "expected weight of at least 0, got -1");
}

TEST(Fields, AreDescribed) {
  Options o;
  const std::vector<FieldDescription> all = describe_fields([&](FieldVisitor& f) { fields(f, o); });
  ASSERT_EQ(all.size(), 10U);
  EXPECT_EQ(all[0].field.name, "share");
  EXPECT_EQ(all[0].otherwise, "0.5");
  EXPECT_EQ(all[3].otherwise, "") << "an optional one has no default of its own";
  EXPECT_EQ(all[4].choices, (std::vector<std::string>{"red", "green"}));
  EXPECT_EQ(all[9].field.name, "part.weight");
  EXPECT_TRUE(o.parts.empty() && !o.maybe) << "to describe changes nothing";
}

TEST(Registry, FindsWhatWasAddedAndNamesTheNearest) {
  Registry<int(int)> registry("operation", {{"twice", [](int x) { return 2 * x; }}});
  registry.add("square", [](int x) { return x * x; });
  EXPECT_EQ(registry.find("op", "square")(3), 9);
  EXPECT_EQ(registry.names(), (std::vector<std::string>{"twice", "square"}));
  expect_contains(message_of([&] { registry.find("op", "twic"); }),
                  "[op] unknown operation 'twic', did you mean 'twice'?");
  expect_contains(message_of([&] { registry.add("twice", [](int x) { return x; }); }),
                  "the operation 'twice' is known already");
  expect_contains(message_of([&] { registry.add("none", nullptr); }),
                  "expected a name and a function that makes the operation");
}

}  // namespace
}  // namespace espalier
