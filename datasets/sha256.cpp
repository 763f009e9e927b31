#include "datasets/sha256.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include <openssl/evp.h>

namespace espalier {

Sha256::Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
  if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) {
    fail<UnavailableError>("sha256", "OpenSSL offers no SHA-256");
  }
}

void Sha256::update(const void* data, size_t bytes) { EVP_DigestUpdate(context_.get(), data, bytes); }

std::string Sha256::hex() {
  std::array<uint8_t, 32> sum = {};
  EVP_DigestFinal_ex(context_.get(), sum.data(), nullptr);
  return fmt::format("{:02x}", fmt::join(sum, ""));
}

std::string sha256_of_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail<FileError>("sha256", "{}: can't open: {}", path, std::strerror(errno));
  Sha256 sum;
  std::vector<char> buffer(1 << 18);
  while (in.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || in.gcount() > 0) {
    sum.update(buffer.data(), static_cast<size_t>(in.gcount()));
  }
  if (in.bad()) fail<FileError>("sha256", "{}: can't read: {}", path, std::strerror(errno));
  return sum.hex();
}

std::string sha256_of_contents(const std::string& path, uint64_t most_bytes) {
  ByteReader in(path, most_bytes);
  Sha256 sum;
  std::vector<char> buffer(1 << 18);
  while (const size_t got = in.read_some(buffer.data(), buffer.size())) sum.update(buffer.data(), got);
  return sum.hex();
}

}  // namespace espalier
