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

TEST(Fields, AreReadFromTexts) {
  const auto read = [](const std::string& text) {
    Options o;
    read_text_fields("op", split_options(text), [&](FieldVisitor& f) { fields(f, o); });
    return o;
  };
  EXPECT_EQ(read("0.25,7").share, 0.25) << "in the order of the list";
  EXPECT_EQ(read("0.25,7").count, 7);
  const Options o = read("colour=red,on=true,names=x,of=fc1=0.5");
  EXPECT_TRUE(o.colour == Colour::red && o.on);
  EXPECT_EQ(o.names, std::vector<std::string>{"x"});
  EXPECT_EQ(o.of.at("fc1"), 0.5);
  expect_contains(message_of([&] { read("cuont=3"); }), "[op] no option is named 'cuont', did you mean 'count'?");
  expect_contains(message_of([&] { read("count=2.5"); }), "count: expected a whole number, got '2.5'");
  expect_contains(message_of([&] { read("share=1.5"); }), "share: expected a number in [0,1], got 1.5");
  expect_contains(message_of([&] { read("colour=rod"); }),
                  "colour: expected a colour: red, green, did you mean 'red'?, got 'rod'");
  expect_contains(message_of([&] { read("count=100"); }), "many need on");

  // What a command line says of a list of structs: one text for each.
  Options given;
  read_text_fields("op", {{.name = "part", .value = "name=a,weight=2"}, {.name = "part", .value = "b"}},
                   [&](FieldVisitor& f) { fields(f, given); });
  ASSERT_EQ(given.parts.size(), 2U);
  EXPECT_EQ(given.parts[0].weight, 2);
  EXPECT_EQ(given.parts[1].name, "b");
  expect_contains(message_of([&] {
                    read_text_fields(
                        "op", {{.name = "count", .value = "0"}}, [&](FieldVisitor& f) { fields(f, given); },
                        [](const std::string& name) { return "--" + name; });
                  }),
                  "[op] --count: expected a number of at least 1, got 0");
}

TEST(Fields, APartIsATextToo) {
  const PartFields fields_of = [](const std::string& name) -> std::function<void(FieldVisitor&)> {
    check(name == "p", "op", "unknown part '{}'", name);
    return [part = std::make_shared<Part>()](FieldVisitor& f) { fields(f, *part); };
  };
  EXPECT_EQ(choice_of_text("p", fields_of).options, "");
  const PartChoice chosen = choice_of_text("p:weight=1", fields_of);
  EXPECT_EQ(chosen.name, "p");
  EXPECT_EQ(chosen.options, R"({"weight":1.0})") << "what was given stands there, though it is the default";
  EXPECT_EQ(to_text(choice_of_text("p:weight=0.5", fields_of)), "p:weight=0.5");
  EXPECT_ANY_THROW(choice_of_text("q", fields_of));
  Part part{.name = "n", .weight = 0.1};
  EXPECT_EQ(text_of_fields([&](FieldVisitor& f) { fields(f, part); }), "name=n,weight=0.1");
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
  registry.replace("twice", [](int x) { return x + x + 1; });
  EXPECT_EQ(registry.find("op", "twice")(3), 7);
  expect_contains(message_of([&] { registry.add("none", nullptr); }),
                  "expected a name and a function that makes the operation");
}

}  // namespace
}  // namespace espalier
