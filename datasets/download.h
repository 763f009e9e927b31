// Fetching data sets from the web. Only these functions open a connection.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/error.h"
#include "core/file_errors.h"

namespace espalier {

/// The progress callback asked to stop.
class DownloadCancelled : public DownloadError {
 public:
  using DownloadError::DownloadError;
};

struct DownloadProgress {
  std::string file;   ///< name on disk
  int64_t bytes = 0;  ///< so far, with those of an earlier attempt
  int64_t total = 0;  ///< 0: the server doesn't say
  double bytes_per_second = 0;
};

struct DownloadOptions {
  /// Called several times a second; returning false cancels.
  std::function<bool(const DownloadProgress&)> progress = {};
  /// Takes the files from this base URL instead of their public homes; checksums still hold.
  std::string mirror = {};
  int retries = 3;         ///< after a broken connection, each going on where the last one stopped
  int stall_seconds = 60;  ///< gives up on a connection that is slower than `slowest` for so long
  int64_t slowest = 1000;  ///< bytes per second
  /// Gives up on a file that is larger: a server may send without end. download_dataset knows the sizes of its files.
  int64_t most_bytes = int64_t{1} << 33;
};

/// Downloads one file (http or https) to `path`: into `path`.part, which a later call goes on with, checked against
/// `sha256` (unless empty), then renamed. Throws FileError saying what failed: HTTP status, no network, wrong
/// checksum (with both), too large, no space, cancelled.
void download_file(const std::string& url, const std::string& path, const std::string& sha256,
                   const DownloadOptions& options = {});

/// Downloads what is missing of a data set below `dir` ("" means user_data_dir()) and returns the folder it is in.
/// A file that is there already and has the right contents is kept.
std::string download_dataset(const std::string& name, const std::string& dir = "", const DownloadOptions& options = {});

}  // namespace espalier
