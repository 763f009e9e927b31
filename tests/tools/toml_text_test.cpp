// What is written as TOML is what a parser reads back.
#include "pipeline/toml_text.h"

#include <random>

#include <gtest/gtest.h>
#include <toml++/toml.h>

#include "core/error.h"
#include "tests/expect_error.h"

namespace espalier::tools {
namespace {

using testing_support::expect_contains;
using testing_support::message_of;

std::string read_back(const std::string& text) {
  return *toml::parse("before = 1\nkey = " + quote(text) + "\nafter = 2\n")["key"].value<std::string>();
}

TEST(TomlText, AwkwardTextsComeBack) {
  using namespace std::string_literals;
  for (const std::string& text :
       {""s, "plain"s, "a \"word\""s, "'''"s, "\"\"\""s, "three \"\"\" quotes ''' of both kinds"s, "\nleading"s,
        "\r\n"s, "a\\b\\"s, "\\u0041"s, "tab\tbell\a"s, "nul\0inside"s, "\x7f"s, "\xc2\x80 control of Latin-1"s,
        "ä 日本 🌳"s, "# no comment"s, "[table]"s, "key = 1"s})
    EXPECT_EQ(read_back(text), text);
}

TEST(TomlText, RandomTextsComeBack) {
  std::mt19937 random(12);
  const std::vector<std::string> parts = {"\"", "\"\"\"", "'", "'''", "\\", "\n", "\r", "\t", " ",   "#",
                                          "a",  "=",      "[", "{",   ".",  "ß",  "漢", "🌳",  "\x7f"};
  for (int trial = 0; trial < 2000; ++trial) {
    std::string text;
    for (size_t length = random() % 12; length > 0; --length) {
      if (random() % 2 == 0)
        text += static_cast<char>(random() % 128);
      else
        text += parts[random() % parts.size()];
    }
    ASSERT_EQ(read_back(text), text) << "trial " << trial << ": " << quote(text);
    const toml::table keys = toml::parse(quote(text) + " = " + quote(std::vector{text, std::string("b"), text}));
    ASSERT_EQ(keys.begin()->first.str(), text);
    ASSERT_EQ(keys.begin()->second.as_array()->get(2)->value<std::string>(), text);
  }
}

TEST(TomlText, WhatIsNotUtf8IsRefused) {
  expect_contains(message_of<ArgumentError>([] { quote("runs/\xff"); }), "UTF-8");
}

TEST(TomlText, NumbersStayNumbers) {
  for (const double value : {0.0, 1.0, -1.0, 0.1, 1e22, 1e-300, 123456789.0, 1.0 / 3})
    EXPECT_EQ(toml::parse("key = " + toml_number(value))["key"].as_floating_point()->get(), value);
}

TEST(TomlText, NestingIsBoundedBeforeItIsParsed) {
  const auto refused = [](const std::string& text) {
    return message_of<FileError>([&] { check_toml_nesting(text, "x.toml"); });
  };
  std::string key = "a";
  for (int i = 0; i < 31'000; ++i) key += ".a";
  expect_contains(refused("title = \"x\"\n" + key + " = 1"), "x.toml:2: expected keys of at most 32 parts");
  expect_contains(refused("[" + key + "]"), "x.toml:1");
  std::string quoted = "'a'";
  for (int i = 0; i < 100; ++i) quoted += " . \"a\"";
  expect_contains(refused(quoted + " = 1"), "32 parts");
  expect_contains(refused("x = " + std::string(100, '[') + std::string(100, ']')), "brackets");
  std::string tables = "x = 1";
  for (int i = 0; i < 40; ++i) tables = "x = {" + tables + "}";
  expect_contains(refused(tables), "brackets");
  // Dots and brackets in texts and comments are none, nor are those of many numbers.
  const std::string many(1000, '.'), open(1000, '[');
  std::string numbers = "x = [";
  for (int i = 0; i < 1000; ++i) numbers += "1.5, ";
  check_toml_nesting("a = \"" + many + "\\\"" + open + "\"\nb = '" + many + "'\nc = \"\"\"\n" + many + "\"\n" + open +
                         "\"\"\"\nd = ''''" + open + "'''\n# " + many + open + "\n" + numbers + "]\n[[a.b.c]]\n",
                     "x.toml");
  check_toml_nesting("a = \"not closed", "x.toml");
}

}  // namespace
}  // namespace espalier::tools
