// espalier info: this build and this machine; or what is in a checkpoint.
#include <fstream>

#include <cblas.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/calibration.h"
#include "core/json.h"
#include "core/kernels.h"
#include "core/safetensors.h"
#include "core/threads.h"
#include "datasets/dataset.h"
#include "layers/summary.h"
#include "pipeline/model_file.h"
#include "tools/commands.h"

namespace espalier::tools {

namespace {

/// The value of the first line "key : value" of /proc/cpuinfo, or "".
std::string cpu_info(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':');
    return colon == std::string::npos || colon + 2 > line.size() ? "" : line.substr(colon + 2);
  }
  return "";
}

/// The vector extensions among the CPU's flags.
std::string vector_extensions() {
  const std::string flags = " " + cpu_info("flags") + " ";
  std::vector<std::string> found;
  for (const char* name :
       {"sse4_2", "avx", "fma", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "amx_tile"})
    if (flags.find(fmt::format(" {} ", name)) != std::string::npos) found.emplace_back(name);
  return fmt::format("{}", fmt::join(found, " "));
}

int about_this_machine(Output& output) {
  const auto memory = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  const MemoryStats stats = memory_stats();
  const std::string arch = *ESPALIER_ARCH != 0 ? ESPALIER_ARCH : "the compiler's default";
  const std::string sanitizers = ESPALIER_SANITIZE;
  output.result("espalier {} ({}{}), built with {} for -march={}", ESPALIER_VERSION, ESPALIER_BUILD_TYPE,
                sanitizers.empty() ? "" : ", sanitizers " + sanitizers, ESPALIER_COMPILER, arch);
  output.result("  CPU       {}, {} cores, {} memory", cpu_info("model name"), sysconf(_SC_NPROCESSORS_ONLN),
                bytes_text(memory));
  output.result("  vectors   {}", vector_extensions());
  output.result("  kernels   {} (ESPALIER_ISA=v2, v3 or v4 allows less)", name_of(vector_isa()));
  output.result("  threads   {} (OMP_NUM_THREADS or --threads change it)", num_threads());
  output.result("  BLAS      {}", openblas_get_config());
  std::vector<std::string> gpus = {cuda::why_unavailable()};
  if (cuda::is_available()) gpus = cuda::describe_devices();
  output.result("  cuda      {}", fmt::join(gpus, "\n            "));
  output.result("  tensors   {} in use, {} at most, {} cached", bytes_text(static_cast<int64_t>(stats.current)),
                bytes_text(static_cast<int64_t>(stats.peak)), bytes_text(static_cast<int64_t>(stats.cached)));
  const std::vector<std::string> places = data_places();
  output.result("  data      {}", fmt::join(places, "\n            "));
  output.finish({{"command", "info"},
                 {"version", ESPALIER_VERSION},
                 {"build_type", ESPALIER_BUILD_TYPE},
                 {"arch", ESPALIER_ARCH},
                 {"compiler", ESPALIER_COMPILER},
                 {"cpu", cpu_info("model name")},
                 {"cores", sysconf(_SC_NPROCESSORS_ONLN)},
                 {"kernels", name_of(vector_isa())},
                 {"threads", num_threads()},
                 {"memory_bytes", memory},
                 {"blas", openblas_get_config()},
                 {"cuda", cuda::is_available()},
                 {"cuda_devices", gpus},
                 {"data_places", places}});
  return kSuccess;
}

int about_file(const std::string& path, Output& output) {
  const ModelFile file = open_model(find_model(path));
  output.result("{}", file.path);
  nlohmann::json json = {{"command", "info"}, {"model", file.path}, {"parameters", file.module->num_parameters()}};
  if (file.data) {
    const Shape& input = file.data->input;
    output.result("  trained on  {}, {} {}{}", printable(file.data->name), file.data->is_image() ? "images" : "inputs",
                  fmt::join(input.begin(), input.end(), "x"),
                  file.data->classes.empty() ? "" : fmt::format(", {} classes", file.data->classes.size()));
    json["data"] = parse_json(file.metadata.at("data"));
  }
  for (const auto& [key, value] : file.metadata) {
    if (key == "data" || key == "model" || key == "optimizer" || key == "training") continue;
    output.result("  {:<10}  {}", printable(key), printable(value));
    json["metadata"][key] = value;
  }
  if (file.data) {
    const ModelSummary summary = summarize(*file.module, file.data->example());
    output.result("\n{}", summary.to_table());
    json["summary"] = summary.to_json();
  } else {
    output.result("  parameters  {}", grouped(file.module->num_parameters()));
  }
  output.finish(json);
  return kSuccess;
}

int calibrate_machine(Output& output) {
  output.say("measuring for about two seconds; other programs should rest");
  const Calibration machine = calibrate();
  const std::string path = calibration_path();
  save_calibration(path, machine);
  std::vector<std::vector<std::string>> rows = {
      {"one thread", "GFLOP/s", "loads/ns", "L1 GB/s", "L2 GB/s", "L3 GB/s", "memory GB/s"}};
  for (const MachineRates& one : machine.rates) {
    const auto giga = [](double rate) { return fmt::format("{:.1f}", rate / 1e9); };
    rows.push_back({name_of(one.isa), giga(one.fma_flops), fmt::format("{:.2f}", one.loads / 1e9), giga(one.l1_bytes),
                    giga(one.l2_bytes), giga(one.l3_bytes), giga(one.memory_bytes)});
  }
  output.result("{}\n{} threads do {:.2f} times the work of one\n{}", table(rows, {1, 2, 3, 4, 5, 6}), machine.threads,
                machine.scaling, path);
  nlohmann::json json = to_json(machine);
  json["command"] = "info";
  json["calibration"] = path;
  output.finish(json);
  return kSuccess;
}

}  // namespace

void add_info(CLI::App& parent, Commands& commands) {
  CLI::App* app = add_command(parent, "info", "Describe this build and machine, or a checkpoint",
                              {"espalier info", "espalier info runs/lenet5-mnist", "espalier info --calibrate"});
  auto path = std::make_shared<std::string>();
  app->add_option("model", *path, "Checkpoint, or folder of a run")->type_name("MODEL");
  auto calibrates = std::make_shared<bool>(false);
  app->add_flag("--calibrate", *calibrates, "Measure what this machine can do at most, and keep it for benchmarks");
  add_json_flag(*app);
  commands.push_back({app, [path, calibrates](Output& output) {
                        if (*calibrates) return calibrate_machine(output);
                        return path->empty() ? about_this_machine(output) : about_file(*path, output);
                      }});
}

}  // namespace espalier::tools
