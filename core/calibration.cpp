#include "core/calibration.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/calibration_probes.h"
#include "core/json.h"
#include "core/safetensors.h"
#include "core/storage.h"
#include "core/threads.h"

namespace espalier {
namespace {

double seconds_of(const Probe& probe, const void* data, int64_t rounds) {
  const auto start = std::chrono::steady_clock::now();
  probe.run(data, rounds);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The highest rate of several runs, each of at least `seconds`.
double best_rate(const Probe& probe, const void* data, double seconds, int runs) {
  int64_t rounds = 1;
  while (seconds_of(probe, data, rounds) < seconds && rounds < (int64_t{1} << 40)) rounds *= 2;
  double best = 0;
  for (int i = 0; i < runs; ++i)
    best = std::max(best, probe.per_round * static_cast<double>(rounds) / seconds_of(probe, data, rounds));
  return best;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (line.starts_with("model name") && colon != std::string::npos && colon + 2 <= line.size())
      return line.substr(colon + 2);
  }
  return "unknown";
}

int64_t cache_size(int name, int64_t otherwise) {
  const long size = sysconf(name);
  return size > 0 ? size : otherwise;
}

}  // namespace

const MachineRates& Calibration::of(VectorIsa isa) const {
  const MachineRates* best = nullptr;
  for (const MachineRates& one : rates)
    if (one.isa <= isa && (best == nullptr || one.isa > best->isa)) best = &one;
  check(best != nullptr, "Calibration", "no rates were measured for {} or below", name_of(isa));
  return *best;
}

double Calibration::bytes_rate(const MachineRates& of_isa, int64_t working_set) const {
  if (working_set <= l1_size) return of_isa.l1_bytes;
  if (working_set <= l2_size) return of_isa.l2_bytes;
  return working_set <= l3_size ? of_isa.l3_bytes : of_isa.memory_bytes;
}

double probe_flops(VectorIsa isa) {
  const auto probe = make_fma_probe(isa);
  return best_rate(*probe, nullptr, 50e-6, 3);
}

Calibration calibrate() {
  Calibration result;
  result.processor = processor_name();
  result.l1_size = cache_size(_SC_LEVEL1_DCACHE_SIZE, 32 << 10);
  result.l2_size = cache_size(_SC_LEVEL2_CACHE_SIZE, 512 << 10);
  result.l3_size = cache_size(_SC_LEVEL3_CACHE_SIZE, 0);
  // Half of a cache leaves room for what else is in it; four times the last one's size fit none.
  const auto whole = [](int64_t bytes) { return std::max<int64_t>(4096, bytes / 4096 * 4096); };
  const int64_t last = std::max(result.l2_size, result.l3_size);
  const int64_t memory = std::min<int64_t>(whole(4 * last), int64_t{256} << 20);
  const Storage data(static_cast<size_t>(memory), Device::cpu());
  std::fill_n(static_cast<char*>(data.data()), memory, char{0});
  for (const VectorIsa isa : {VectorIsa::portable, VectorIsa::avx2, VectorIsa::avx512}) {
    if (isa > vector_isa()) continue;
    MachineRates rates{.isa = isa};
    rates.fma_flops = best_rate(*make_fma_probe(isa), nullptr, 2e-3, 20);
    rates.l1_bytes = best_rate(*make_load_probe(isa, whole(result.l1_size / 2)), data.data(), 2e-3, 20);
    rates.l2_bytes = best_rate(*make_load_probe(isa, whole(result.l2_size / 2)), data.data(), 2e-3, 20);
    rates.l3_bytes = best_rate(*make_load_probe(isa, whole(last / 2)), data.data(), 2e-3, 10);
    rates.memory_bytes = best_rate(*make_load_probe(isa, memory), data.data(), 2e-3, 3);
    rates.loads = rates.l1_bytes / static_cast<double>(vector_bytes(isa));
    result.rates.push_back(rates);
  }
  // All threads at once.
  result.threads = num_threads();
  const auto probe = make_fma_probe(vector_isa());
  std::vector<double> rates(static_cast<size_t>(result.threads));
  parallel_for(result.threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) rates[static_cast<size_t>(i)] = best_rate(*probe, nullptr, 10e-3, 5);
  });
  double sum = 0;
  for (const double rate : rates) sum += rate;
  result.scaling = sum / result.of(vector_isa()).fma_flops;
  return result;
}

std::string calibration_path() {
  if (const char* path = std::getenv("ESPALIER_CALIBRATION"); path != nullptr && *path != '\0') return path;
  std::filesystem::path cache;
  if (const char* folder = std::getenv("XDG_CACHE_HOME"); folder != nullptr && *folder == '/')
    cache = folder;
  else if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0')
    cache = std::filesystem::path(home) / ".cache";
  else
    fail<FileError>("calibration",
                    "expected a home folder to keep the calibration in; set ESPALIER_CALIBRATION to a file");
  return (cache / "espalier" / "calibration.json").string();
}

nlohmann::json to_json(const Calibration& calibration) {
  nlohmann::json rates = nlohmann::json::array();
  for (const MachineRates& one : calibration.rates) {
    rates.push_back({{"isa", name_of(one.isa)},
                     {"fma_flops", one.fma_flops},
                     {"loads", one.loads},
                     {"l1_bytes", one.l1_bytes},
                     {"l2_bytes", one.l2_bytes},
                     {"l3_bytes", one.l3_bytes},
                     {"memory_bytes", one.memory_bytes}});
  }
  return {{"version", 1},
          {"processor", calibration.processor},
          {"l1_size", calibration.l1_size},
          {"l2_size", calibration.l2_size},
          {"l3_size", calibration.l3_size},
          {"threads", calibration.threads},
          {"scaling", calibration.scaling},
          {"rates", rates}};
}

void save_calibration(const std::string& path, const Calibration& calibration) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  write_file_atomically(path, to_json(calibration).dump(2) + "\n");
}

Calibration load_calibration(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail<FileError>("calibration", "expected to read {}; make it with espalier info --calibrate", path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  Calibration result;
  try {
    const nlohmann::json json = parse_json(text);
    result.processor = json.at("processor").get<std::string>();
    result.l1_size = json.at("l1_size").get<int64_t>();
    result.l2_size = json.at("l2_size").get<int64_t>();
    result.l3_size = json.at("l3_size").get<int64_t>();
    result.threads = json.at("threads").get<int>();
    result.scaling = json.at("scaling").get<double>();
    for (const nlohmann::json& one : json.at("rates")) {
      MachineRates rates;
      const auto name = one.at("isa").get<std::string>();
      const auto isas = {VectorIsa::portable, VectorIsa::avx2, VectorIsa::avx512};
      const auto* isa = std::find_if(isas.begin(), isas.end(), [&](VectorIsa i) { return name == name_of(i); });
      if (isa == isas.end()) fail<FileError>("calibration", "unknown instruction set");
      rates.isa = *isa;
      for (const auto& [key, member] : {std::pair{"fma_flops", &MachineRates::fma_flops},
                                        {"loads", &MachineRates::loads},
                                        {"l1_bytes", &MachineRates::l1_bytes},
                                        {"l2_bytes", &MachineRates::l2_bytes},
                                        {"l3_bytes", &MachineRates::l3_bytes},
                                        {"memory_bytes", &MachineRates::memory_bytes}}) {
        rates.*member = one.at(key).get<double>();
        if (!(rates.*member > 0) || !std::isfinite(rates.*member)) fail<FileError>("calibration", "rate");
      }
      result.rates.push_back(rates);
    }
    if (result.rates.empty() || result.rates.front().isa != VectorIsa::portable || result.threads < 1 ||
        result.l1_size < 1 || result.l2_size < 1 || result.l3_size < 0 || !(result.scaling > 0))
      fail<FileError>("calibration", "values");
  } catch (const std::exception&) {
    fail<FileError>("calibration", "{} is damaged; make it anew with espalier info --calibrate", path);
  }
  if (result.processor != processor_name())
    fail<FileError>("calibration", "{} was measured on '{}', this is '{}'; make it anew with espalier info --calibrate",
                    path, result.processor, processor_name());
  return result;
}

Calibration this_machine() {
  const std::string path = calibration_path();
  std::error_code error;
  return std::filesystem::exists(path, error) ? load_calibration(path) : calibrate();
}

}  // namespace espalier
