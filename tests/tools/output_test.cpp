// What the command's output promises: what gets lost is told, no terminal obeys it.
#include <gtest/gtest.h>

#include "run_command.h"

namespace espalier::testing {
namespace {

/// Commands that need no file and no data.
constexpr const char* kCommands[] = {"models list", "models show lenet5", "datasets list",      "info",       "--help",
                                     "eval --help", "--version",          "models list --json", "info --json"};

TEST(Output, AFullDiskIsAFailure) {
  const Folder folder;
  for (const char* command : kCommands) {
    const Said said = run_redirected(folder, command, ">/dev/full");
    EXPECT_EQ(said.status, 1) << command;
    EXPECT_TRUE(said.err.ends_with("espalier: [output] cannot write to stdout: No space left on device\n")) << command;
  }
}

TEST(Output, AClosedStdoutIsAFailureAndNoOtherFileIsTakenForIt) {
  const Folder folder;
  for (const char* command : kCommands) EXPECT_EQ(run_redirected(folder, command, ">&-").status, 1) << command;
  // The checkpoint is the first file that is opened.
  const Said said = run_redirected(folder, "train --model mlp:4 --data digits --epochs 1 --out first", ">&- 2>&-");
  EXPECT_EQ(said.status, 1);
  EXPECT_EQ(run(folder, "eval first").status, 0);
}

TEST(Output, AnErrorThatNobodyCanReadKeepsItsStatus) {
  const Folder folder;
  for (const char* redirection : {"2>&-", "2>/dev/full", ">/dev/full 2>/dev/full", ">&- 2>&-"}) {
    EXPECT_EQ(run_redirected(folder, "eval nowhere.safetensors", redirection).status, 2) << redirection;
    EXPECT_EQ(run_redirected(folder, "no-such-command", redirection).status, 2) << redirection;
    EXPECT_EQ(run_redirected(folder, "", redirection).status, 2) << redirection;
    EXPECT_EQ(run_redirected(folder, "eval nowhere.safetensors --json", redirection).status, 2) << redirection;
  }
}

TEST(Output, AProgressBarThatNobodySeesHarmsNothing) {
  const Folder folder;
  for (const char* redirection : {"2>&-", "2>/dev/full"})
    EXPECT_EQ(
        run_redirected(folder, "train --model mlp:4 --data digits --epochs 1 --overwrite --out x", redirection).status,
        0)
        << redirection;
}

/// A name with a title sequence (C0), a C1 control sequence in UTF-8, one as a raw byte, and DEL, for printf.
constexpr const char* kEvil = "\"$(printf 'a\\033]0;title\\007\\302\\233'2J'\\2332K\\177z')\"";

void expect_harmless(const std::string& text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    EXPECT_TRUE((byte >= 0x20 && byte != 0x7F) || byte == '\n' || byte == '\t') << "byte " << int{byte} << " at " << i;
    EXPECT_FALSE(byte == 0xC2 && static_cast<unsigned char>(text[i + 1]) < 0xA0) << "C1 at " << i;
  }
}

TEST(Output, NoTerminalObeysNamesOfFilesOrCommands) {
  const Folder folder;
  for (const std::string command : {"eval ", "eval --json ", "run ", "models show ", "datasets show ", ""}) {
    const Said said = run(folder, command + kEvil);
    EXPECT_NE(said.status, 0) << command;
    EXPECT_TRUE(contains(said.err, "a?]0;title??2J")) << command << said.err;
    expect_harmless(said.err);
    expect_harmless(said.out);
  }
}

TEST(Output, NamesInJsonComeBackWhole) {
  const Folder folder;
  const Said said = run(folder, "eval --json \"$(printf 'a\\033\\302\\233\\177z')\"");
  expect_harmless(said.out);
  EXPECT_TRUE(contains(said.json().at("error"), "a\x1b\xC2\x9B\x7Fz"));
}

}  // namespace
}  // namespace espalier::testing
