// Mutates seeds for a while: flips, overwrites, cuts, repeats, splices, and numbers at the edges of their types.
//   fuzz_NAME [SECONDS] [SEED]
//   fuzz_NAME --replay FILE
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string>

#include <sys/resource.h>

#include <fmt/format.h>

#include "core/random.h"
#include "tests/fuzz/target.h"

namespace {

using espalier::Generator;
using Clock = std::chrono::steady_clock;

size_t below(Generator& random, size_t n) { return static_cast<size_t>(random.next_below(n)); }

/// Sizes and offsets that readers trip over.
constexpr uint64_t kEdges[] = {0,          1,          127,        128,        255,        256,
                               32767,      65535,      65536,      0x7fffffff, 0x80000000, 0xffffffff,
                               1ULL << 32, 1ULL << 40, 1ULL << 62, ~0ULL >> 1, 1ULL << 63, ~0ULL};
/// Text that JSON, TOML and shapes give a meaning.
constexpr const char* kWords[] = {"-1",   "1e999",   "NaN", "null", "[]",   "{}",         "\"", "9223372036854775807",
                                  "true", "\\u0000", "[[",  "''''", "\xff", "4294967296", "..", "\n"};

void mutate(std::string& input, const std::string& other, Generator& random) {
  const size_t at = input.empty() ? 0 : below(random, input.size());
  switch (random.next_below(9)) {
    case 0:
      if (!input.empty()) input[at] = static_cast<char>(input[at] ^ (1 << random.next_below(8)));
      break;
    case 1:
      if (!input.empty()) input[at] = static_cast<char>(random.next_below(256));
      break;
    case 2: input.resize(at); break;
    case 3:
      if (!input.empty()) input.erase(at, 1 + below(random, 16));
      break;
    case 4: input.insert(at, input.substr(at, 1 + below(random, 64))); break;
    case 5: input.insert(at, kWords[below(random, std::size(kWords))]); break;
    case 6: {  // a number of 2, 4 or 8 bytes, little or big endian
      const size_t bytes = size_t{2} << random.next_below(3);
      const uint64_t value = kEdges[below(random, std::size(kEdges))];
      const bool big = random.next_below(2) == 0;
      for (size_t i = 0; i < bytes && at + i < input.size(); ++i)
        input[at + i] = static_cast<char>(value >> 8 * (big ? bytes - 1 - i : i));
      break;
    }
    case 7:  // digits become other digits: sizes and offsets in text
      for (size_t i = at; i < input.size(); ++i)
        if (input[i] >= '0' && input[i] <= '9') {
          input[i] = static_cast<char>('0' + random.next_below(10));
          break;
        }
      break;
    default:
      if (!other.empty()) input = input.substr(0, at) + other.substr(below(random, other.size()));
  }
}

/// A small file that takes more memory than this is a finding. Sanitizers map more from the start.
void limit_memory() {
#ifndef __SANITIZE_ADDRESS__
  constexpr rlim_t kMost = rlim_t{2} << 30;
  const rlimit limit = {kMost, kMost};
  setrlimit(RLIMIT_AS, &limit);
#endif
}

}  // namespace

int main(int argc, char** argv) {
  namespace fuzz = espalier::fuzz;
  const std::string finding = fmt::format("fuzz-{}.input", fuzz::kName);
  limit_memory();
  if (argc == 3 && std::string(argv[1]) == "--replay") {
    fuzz::read_one(fuzz::contents_of(argv[2]));
    return 0;
  }
  const double seconds = argc > 1 ? std::atof(argv[1]) : 2;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
  const std::vector<std::string> seeds = fuzz::seeds();
  Generator random(seed);
  const Clock::time_point end =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  int64_t inputs = 0, accepted = 0;
  int status = 0;
  try {
    for (const std::string& good : seeds) {  // without an error
      fuzz::write_file(fuzz::scratch_file(), good);
      fuzz::read(good, fuzz::scratch_file());
    }
    for (; Clock::now() < end; ++inputs) {
      const std::string& good = seeds[below(random, seeds.size())];
      std::string input = good;
      for (uint64_t left = 1 + random.next_below(6); left > 0; --left)
        mutate(input, seeds[below(random, seeds.size())], random);
      if (fuzz::kRepair != nullptr && random.next_below(4) > 0) fuzz::kRepair(input, good);
      fuzz::write_file(finding, input);  // stays there if the process dies
      accepted += fuzz::read_one(input) ? 1 : 0;
    }
    std::filesystem::remove(finding);
  } catch (const std::exception& error) {
    fmt::print(stderr, "[fuzz] {}: {} is not an error of the library; the input is in {}\n", fuzz::kName, error.what(),
               finding);
    status = 1;
  }
  std::filesystem::remove(fuzz::scratch_file());
  fmt::print("{}: {} inputs from {} seeds in {:g} s, {} of them read without an error, random seed {}\n", fuzz::kName,
             inputs, seeds.size(), seconds, accepted, seed);
  constexpr int64_t kEnough = 1000;  // to judge by
  if (fuzz::kRepair != nullptr && inputs >= kEnough && accepted * 10 < inputs) {
    fmt::print(
        stderr,
        "[fuzz] {}: expected a tenth of the inputs or more to be read: hardly anything behind the header is tried\n",
        fuzz::kName);
    status = 1;
  }
  return status;
}
