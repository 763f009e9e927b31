// Run folders: one process at a time, whatever becomes of it, and nothing of one run under the identity of another.
#include <array>
#include <csignal>
#include <functional>
#include <set>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/safetensors.h"
#include "tests/training/support.h"
#include "training/run_folder.h"

namespace espalier {
namespace {

using namespace testing_support;
namespace fs = std::filesystem;

/// Another process, which says something and then, if told to, waits until it is killed.
class Process {
 public:
  explicit Process(const std::function<std::string()>& work, bool wait = false) {
    int ends[2] = {};
    EXPECT_EQ(pipe(ends), 0);
    child_ = fork();
    if (child_ == 0) {
      std::string said;
      try {
        said = work();
      } catch (const Error& error) {
        said = error.what();
      }
      said += '\n';
      if (write(ends[1], said.data(), said.size()) < 0) _exit(1);
      if (wait) pause();
      _exit(0);
    }
    close(ends[1]);
    for (char c = 0; read(ends[0], &c, 1) == 1 && c != '\n';) said_ += c;
    close(ends[0]);
    if (!wait) end();
  }
  ~Process() { kill_it(); }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  const std::string& said() const { return said_; }
  pid_t id() const { return child_; }
  void kill_it() {
    if (child_ == 0) return;
    kill(child_, SIGKILL);
    end();
  }

 private:
  void end() { waitpid(std::exchange(child_, 0), nullptr, 0); }
  pid_t child_ = 0;
  std::string said_;
};

std::string take(const std::string& path) { return RunFolder(path).path(); }

TEST(RunFolder, OneProcessAtATimeAndTheKernelFreesTheLockOfADeadOne) {
  const TemporaryFolder folder;
  const std::string path = folder.file("run");
  Process holder(
      [&, kept = std::make_shared<RunFolder>()] {
        *kept = RunFolder(path);
        return kept->path();
      },
      true);
  ASSERT_EQ(holder.said(), path);
  const std::string message = message_of<FileError>([&] { take(path); });
  expect_contains(message, path + " is held by process " + std::to_string(holder.id()) + " on ");
  expect_contains(message, "test_training");
  holder.kill_it();
  EXPECT_EQ(take(path), path) << "nobody has to guess whether a lock is stale";
}

TEST(RunFolder, OneProcessSharesItByWhateverPath) {
  const TemporaryFolder folder;
  const std::string path = folder.file("run");
  RunFolder first(path);
  fs::create_directory_symlink(path, folder.file("link"));
  {
    const RunFolder second(folder.file("link/."));
    first = RunFolder();
    expect_contains(Process([&] { return take(path); }).said(), "is held by process " + std::to_string(getpid()));
  }
  EXPECT_EQ(Process([&] { return take(path); }).said(), path);
}

TEST(RunFolder, ALockThatIsALinkToAnotherFileIsRefused) {
  const TemporaryFolder folder;
  const std::string path = folder.file("run"), other = folder.file("other.txt");
  fs::create_directory(path);
  std::ofstream(other) << "kept";
  fs::create_symlink(other, path + "/.lock");
  expect_contains(message_of<FileError>([&] { take(path); }), "cannot write to " + path);
  std::string text;
  std::ifstream(other) >> text;
  EXPECT_EQ(text, "kept");
}

TEST(RunFolder, ThreadsThatTakeAndLeaveItNeverRefuseEachOther) {
  const TemporaryFolder folder;
  const std::string path = folder.file("run");
  std::array<std::string, 4> refused;
  {
    std::vector<std::jthread> threads;
    for (std::string& said : refused)
      threads.emplace_back([&] {
        try {
          for (int i = 0; i < 2000; ++i) take(path);
        } catch (const Error& error) {
          said = error.what();
        }
      });
  }
  for (const std::string& said : refused) EXPECT_EQ(said, "");
}

TEST(RunFolder, NewOnesAreMadeByOneProcessEach) {
  const TemporaryFolder folder;
  const std::string base = folder.file("runs/net");
  const RunFolder held = RunFolder::make_new(base);
  EXPECT_EQ(held.path(), base);
  std::set<std::string> names;
  for (int i = 0; i < 3; ++i) names.insert(Process([&] { return RunFolder::make_new(base).path(); }).said());
  EXPECT_EQ(names, (std::set<std::string>{base + "-2", base + "-3", base + "-4"}));
}

TEST(RunFolder, TemporaryFilesOfTheDeadGoAndThoseOfTheLivingStay) {
  const TemporaryFolder folder;
  const auto left = [&](const std::string& name) { return fs::exists(folder.file(name)); };
  for (const char* name : {"model.safetensors.tmp-4711-0", "run.json.tmp-1-12", "my.tmp-notes", "mine.tmp"})
    std::ofstream(folder.file(name)) << "x";
  const int writer = open(folder.file("run.json.tmp-1-12").c_str(), O_RDWR);
  ASSERT_EQ(flock(writer, LOCK_EX), 0);  // as a process that is writing
  RunFolder run(folder.path());
  EXPECT_FALSE(left("model.safetensors.tmp-4711-0"));
  EXPECT_TRUE(left("run.json.tmp-1-12") && left("my.tmp-notes") && left("mine.tmp"));
  close(writer);
  run = RunFolder();
  run = RunFolder(folder.path());
  EXPECT_FALSE(left("run.json.tmp-1-12"));
}

TEST(RunFolder, JsonIsWholeOrNotThere) {
  const TemporaryFolder folder;
  const RunFolder run(folder.path());
  EXPECT_TRUE(run.read_json("a.json").is_null());
  run.write_json("a.json", {{"x", 1}});
  EXPECT_EQ(run.read_json("a.json"), (nlohmann::json{{"x", 1}}));
  std::ofstream(folder.file("a.json")) << "{";
  expect_contains(message_of<FileError>([&] { run.read_json("a.json"); }), folder.file("a.json"));
  run.mark_done("train");
  EXPECT_TRUE(run.is_done());
  run.forget_training();
  EXPECT_FALSE(run.is_done());
  EXPECT_FALSE(RunFolder("").is_used());
}

TEST(RunFolder, DifferencesAreNamed) {
  const nlohmann::json was = {{"lr", 0.1}, {"optimizer", {{"type", "sgd"}, {"momentum", 0.9}}}, {"same", 1}};
  const nlohmann::json is = {{"lr", 0.2}, {"optimizer", {{"type", "sgd"}}}, {"same", 1}};
  EXPECT_EQ(differences(was, is), "\n  lr: was 0.1, is 0.2\n  optimizer.momentum: was 0.9, is null");
  EXPECT_EQ(differences(was, was), "");
}

/// A run of two epochs, and the same again with one thing changed.
class Identity : public testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(folder_.file("note")) << "mine";
    train(SgdOptions{.lr = 0.1, .momentum = 0.9}, {});
  }
  void train(const SgdOptions& sgd, TrainerOptions options, double dropout = 0.2, int64_t from = 0) {
    set_seed(1);
    const auto net = share(Sequential(Flatten(), Linear(64, 24), Dropout({.p = dropout}), Linear(24, 10)));
    if (options.epochs == TrainerOptions().epochs) options.epochs = 2;
    options.batch_size = 32;
    options.augmentations.push_back(RandomCrop{.padding = 1});
    options.run_folder = folder_.path();
    options.progress = ProgressMode::silent;
    std::vector<int64_t> indices;
    for (int64_t i = from; i < from + 64; ++i) indices.push_back(i);
    Trainer(net, std::make_shared<Sgd>(*net, sgd), options).fit(digits(100).subset(indices));
  }
  const TemporaryFolder folder_;
};

TEST_F(Identity, EverythingThatChangesTheResultIsRefusedByName) {
  const SgdOptions same{.lr = 0.1, .momentum = 0.9};
  const auto refusal = [&](const SgdOptions& sgd, TrainerOptions options, double dropout = 0.2, int64_t from = 0) {
    options.resume = true;
    return message_of<FileError>([&] { train(sgd, options, dropout, from); });
  };
  const std::string before = read_file(folder_.file("checkpoint.safetensors"));
  expect_contains(refusal({.lr = 0.1, .momentum = 0.8}, {}), "optimizer.momentum: was 0.9, is 0.8");
  expect_contains(refusal({.lr = 0.1, .momentum = 0.9, .weight_decay = 0.5}, {}),
                  "optimizer.groups.0.weight_decay: was 0.0, is 0.5");
  expect_contains(refusal({.lr = 0.1, .momentum = 0.9, .nesterov = true}, {}),
                  "optimizer.nesterov: was false, is true");
  expect_contains(refusal(same, {.augmentations = {HorizontalFlip{}}}), "\"flip probability=0.5\"");
  expect_contains(refusal(same, {}, 0.3), "model.");
  expect_contains(refusal(same, {}, 0.2, 1), "training_data.checksum: was ");
  expect_contains(refusal(same, {.schedule = cosine_schedule()}), "schedule: was \"constant\"");
  EXPECT_EQ(read_file(folder_.file("checkpoint.safetensors")), before);
}

TEST_F(Identity, OnlyATrainingThatDoesNotReckonWithItsEndCanBeMadeLonger) {
  const SgdOptions same{.lr = 0.1, .momentum = 0.9};
  train(same, {.epochs = 4, .resume = true});
  EXPECT_EQ(lines_of(folder_.file("metrics.jsonl")).size(), 4U);
  expect_contains(message_of<ArgumentError>([&] { train(same, {.epochs = 3, .resume = true}); }),
                  "8 updates already (4 epochs)");
  train(same, {.epochs = 2, .schedule = one_cycle_schedule(), .overwrite = true});
  expect_contains(
      message_of<FileError>([&] { train(same, {.epochs = 4, .schedule = one_cycle_schedule(), .resume = true}); }),
      "epochs: was 2, is 4");
}

TEST(RunFolder, ATrainerRefusesAFolderThatAnotherProcessTrainsIn) {
  const TemporaryFolder folder;
  Process holder(
      [&, kept = std::make_shared<RunFolder>()] {
        *kept = RunFolder(folder.path());
        return kept->path();
      },
      true);
  const ModulePtr net = small_network(1);
  for (const bool resume : {false, true})
    expect_contains(message_of<FileError>([&] {
                      Trainer(net, std::make_shared<Sgd>(*net),
                              {.epochs = 1,
                               .batch_size = 32,
                               .run_folder = folder.path(),
                               .resume = resume,
                               .overwrite = !resume,
                               .progress = ProgressMode::silent})
                          .fit(digits(64));
                    }),
                    "is held by process " + std::to_string(holder.id()));
}

}  // namespace
}  // namespace espalier
