#include "datasets/download.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <thread>

#include <curl/curl.h>

#include "core/error.h"
#include "core/file_errors.h"
#include "datasets/archive.h"
#include "datasets/dataset.h"
#include "datasets/load.h"
#include "datasets/sha256.h"

namespace espalier {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;

int64_t size_or_zero(const std::string& path) {
  std::error_code error;
  const uintmax_t size = fs::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(size);
}

void remove_file(const std::string& path) {
  std::error_code error;
  fs::remove(path, error);
  if (error) fail<WriteError>("download", "{}: can't delete: {}", path, error.message());
}

// One connection's state, for libcurl's callbacks.
struct Transfer {
  Transfer(const DownloadOptions& o, const std::string& part, std::FILE* f)
      : options(o), start(size_or_zero(part)), file(f) {
    progress.file = fs::path(part).stem().string();
  }

  const DownloadOptions& options;
  DownloadProgress progress;
  int64_t start;  // bytes that were there before
  std::FILE* file;
  int64_t received = 0;
  int write_error = 0;
  bool too_large = false;
  bool cancelled = false;
  Clock::time_point began = Clock::now(), reported = {};
};

size_t write_body(char* data, size_t, size_t bytes, void* user) {
  Transfer& transfer = *static_cast<Transfer*>(user);
  transfer.received += static_cast<int64_t>(bytes);
  transfer.too_large = transfer.start + transfer.received > transfer.options.most_bytes;
  if (transfer.too_large) return 0;
  const size_t written = std::fwrite(data, 1, bytes, transfer.file);
  if (written != bytes) transfer.write_error = errno;
  return written;
}

int report(void* user, curl_off_t total, curl_off_t now, curl_off_t, curl_off_t) {
  Transfer& transfer = *static_cast<Transfer*>(user);
  if (!transfer.options.progress) return 0;
  const Clock::time_point time = Clock::now();
  const bool last = total > 0 && now == total;
  if (time - transfer.reported < std::chrono::milliseconds(100) && !last) return 0;
  transfer.reported = time;
  const double seconds = std::chrono::duration<double>(time - transfer.began).count();
  transfer.progress.bytes = transfer.start + now;
  transfer.progress.total = total > 0 ? transfer.start + total : 0;
  transfer.progress.bytes_per_second = seconds > 0 ? static_cast<double>(now) / seconds : 0;
  transfer.cancelled = !transfer.options.progress(transfer.progress);
  return transfer.cancelled ? 1 : 0;
}

struct Outcome {
  CURLcode code;
  long status;  // of HTTP
  std::string message;
};

// One attempt; appends to `part`, from its end on.
Outcome fetch_once(const std::string& url, const std::string& part, const DownloadOptions& options) {
  static std::once_flag initialised;
  std::call_once(initialised, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), curl_easy_cleanup);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(part.c_str(), "ab"), std::fclose);
  if (!curl) fail<DownloadError>("download", "{}: can't start libcurl", url);
  if (!file) fail<WriteError>("download", "{}: can't write: {}", part, std::strerror(errno));

  Transfer transfer(options, part, file.get());
  char details[CURL_ERROR_SIZE] = "";
  CURL* handle = curl.get();
  curl_easy_setopt(handle, CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(handle, CURLOPT_MAXREDIRS, 10L);
  curl_easy_setopt(handle, CURLOPT_FAILONERROR, 1L);  // an error page is not data
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_USERAGENT, "espalier");
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT, 20L);
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, static_cast<long>(options.slowest));
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_TIME, static_cast<long>(options.stall_seconds));
  curl_easy_setopt(handle, CURLOPT_RESUME_FROM_LARGE, static_cast<curl_off_t>(transfer.start));
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, details);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, write_body);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, report);
  curl_easy_setopt(handle, CURLOPT_XFERINFODATA, &transfer);

  Outcome outcome{curl_easy_perform(handle), 0, details};
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &outcome.status);
  if (outcome.message.empty()) outcome.message = curl_easy_strerror(outcome.code);
  if (std::fflush(file.get()) != 0 && transfer.write_error == 0) transfer.write_error = errno;
  if (transfer.write_error != 0) {
    fail<WriteError>("download", "{}: can't write: {}; free some space and run it again, it goes on from here", part,
                     std::strerror(transfer.write_error));
  }
  if (transfer.too_large) {
    remove_file(part);
    fail<DownloadError>("download", "{}: expected at most {} bytes, the server sends more; try another mirror", url,
                        options.most_bytes);
  }
  if (transfer.cancelled) {
    fail<DownloadCancelled>("download", "{}: cancelled after {} bytes; run it again to go on", url, size_or_zero(part));
  }
  return outcome;
}

// What was there may belong to another version, or the server may not be able to go on: then from the start.
bool cannot_resume(const Outcome& outcome) {
  return outcome.code == CURLE_RANGE_ERROR || outcome.code == CURLE_BAD_DOWNLOAD_RESUME ||
         (outcome.code == CURLE_HTTP_RETURNED_ERROR && outcome.status == 416);
}

bool worth_a_retry(const Outcome& outcome) {
  switch (outcome.code) {
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_HTTP2_STREAM: return true;
    case CURLE_HTTP_RETURNED_ERROR: return outcome.status >= 500;
    default: return false;
  }
}

// Brings the whole of `url` into `part`.
void fetch(const std::string& url, const std::string& part, const DownloadOptions& options) {
  for (int attempt = 0;; ++attempt) {
    const bool resumed = size_or_zero(part) > 0;
    const Outcome outcome = fetch_once(url, part, options);
    if (outcome.code == CURLE_OK) return;
    if (resumed && cannot_resume(outcome)) {
      remove_file(part);
      continue;
    }
    if (worth_a_retry(outcome) && attempt < options.retries) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100 << std::min(attempt, 5)));
      continue;
    }
    if (outcome.code == CURLE_HTTP_RETURNED_ERROR) {
      fail<DownloadError>("download", "{}: expected HTTP status 200, found {}; try another mirror", url,
                          outcome.status);
    }
    fail<DownloadError>("download",
                        "{}: {} (after {} attempts, {} bytes are kept in {}); check the network and run it "
                        "again to go on",
                        url, outcome.message, attempt + 1, size_or_zero(part), part);
  }
}

bool has_all_files(const DatasetInfo& info, const std::string& folder) {
  const auto there = [&](const std::string& file) {
    std::error_code error;
    return fs::exists(idx_path(folder, file), error);
  };
  return std::all_of(info.train_files.begin(), info.train_files.end(), there) &&
         std::all_of(info.test_files.begin(), info.test_files.end(), there);
}

// The file itself, or one compressed anew with the same contents, as Debian does.
bool is_there(const DatasetInfo& info, const RemoteFile& remote, const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return false;
  if (sha256_of_file(path) == remote.sha256) return true;
  const size_t number = static_cast<size_t>(&remote - info.downloads.data());
  try {
    return number < info.content_sha256.size() && sha256_of_contents(path) == info.content_sha256[number];
  } catch (const FileError&) {  // damaged: to be fetched again
    return false;
  }
}

}  // namespace

void download_file(const std::string& url, const std::string& path, const std::string& sha256,
                   const DownloadOptions& options) {
  const std::string part = path + ".part";
  const fs::path folder = fs::path(path).parent_path();
  std::error_code error;
  if (!folder.empty()) fs::create_directories(folder, error);
  if (error) fail<WriteError>("download", "{}: can't make this folder: {}", folder.string(), error.message());

  // An earlier attempt may have ended between the last byte and the renaming.
  const bool complete = !sha256.empty() && size_or_zero(part) > 0 && sha256_of_file(part) == sha256;
  if (!complete) {
    const bool resumed = size_or_zero(part) > 0;
    fetch(url, part, options);
    std::string found = sha256.empty() ? "" : sha256_of_file(part);
    if (found != sha256 && resumed) {
      remove_file(part);
      fetch(url, part, options);
      found = sha256_of_file(part);
    }
    if (found != sha256) {
      const int64_t bytes = size_or_zero(part);
      remove_file(part);
      fail<DownloadError>("download",
                          "{}: expected SHA-256 {}, found {} ({} bytes, deleted); the server sent other data, "
                          "try another mirror",
                          url, sha256, found, bytes);
    }
  }
  fs::rename(part, path, error);
  if (error) fail<WriteError>("download", "{}: can't rename {}: {}", path, part, error.message());
}

std::string download_dataset(const std::string& name, const std::string& dir, const DownloadOptions& options) {
  const DatasetInfo& info = dataset_info(name);
  check(!info.downloads.empty(), "download", "'{}' is part of the library; there is nothing to download", info.name);
  const std::string root = dir.empty() ? user_data_dir() : dir;
  check(!root.empty(), "download", "expected a folder to download to, got none and HOME is not set; name one");
  const std::string folder = root + "/" + info.folders[0];
  const bool packed = info.downloads[0].name.ends_with(".zip");
  if (packed && has_all_files(info, folder)) return folder;

  for (const RemoteFile& remote : info.downloads) {
    const std::string path = folder + "/" + remote.name;
    if (is_there(info, remote, path)) continue;
    std::vector<std::string> urls = remote.urls;
    if (!options.mirror.empty()) urls = {options.mirror + "/" + remote.name};
    for (size_t i = 0;; ++i) {
      try {
        DownloadOptions bounded = options;
        bounded.most_bytes = std::min(options.most_bytes, remote.bytes);
        download_file(urls[i], path, remote.sha256, bounded);
        break;
      } catch (const DownloadCancelled&) {
        throw;
      } catch (const FileError&) {
        if (i + 1 == urls.size()) throw;
      }
    }
    if (packed) {
      // Its members are compressed already: what they unpack to is hardly more than the archive.
      unpack_archive(path, folder, ".gz", 2 * remote.bytes);
      remove_file(path);
    }
  }
  return folder;
}

}  // namespace espalier
