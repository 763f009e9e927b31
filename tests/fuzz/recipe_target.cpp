// Recipes: read, written, and read again to the same.
#include <stdexcept>

#include "core/error.h"
#include "pipeline/recipe.h"
#include "tests/fuzz/target.h"

namespace espalier::fuzz {

const char* const kName = "recipe";
void (*const kRepair)(std::string&, const std::string&) = nullptr;

std::vector<std::string> seeds() {
  const std::string head = "title = \"a story\"\nmodel = \"lenet5\"\ndata = \"mnist\"\n";
  return {
      head + "[[stage]]\ntype = \"train\"\nepochs = 2\nlr = 0.1\n",
      head +
          "seed = 3\nvalidation = 0.1\n[[stage]]\ntype = \"train\"\n[[stage]]\ntype = \"prune\"\nsparsity = 0.9\n"
          "pattern = \"block 4x1\"\nteacher = \"start\"\nprotect = [\"fc*\"]\n[[stage]]\ntype = \"compact\"\n",
      head +
          "[[stage]]\ntype = \"prune\"\nratio = 10\ncriterion = { name = \"taylor\", squared = false }\nepochs = 0\n",
      head +
          "[[stage]]\ntype = \"distill\"\nmodel = \"mlp:8\"\ntemperature = 4.0\nalpha = 0.5\nschedule = \"cosine\"\n"};
}

void read(const std::string& bytes, const std::string&) {
  const std::string written = to_toml(parse_recipe(bytes, "fuzz"));
  std::string again;
  try {
    again = to_toml(parse_recipe(written, "fuzz again"));
  } catch (const Error& error) {
    throw std::logic_error(std::string("a recipe that was written can't be read back: ") + error.what());
  }
  if (again != written) throw std::logic_error("a recipe changes when it is written and read back");
}

}  // namespace espalier::fuzz
