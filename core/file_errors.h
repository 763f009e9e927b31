// Errors of files that are nobody's bad input: the command ends with another status for them.
#pragma once

#include "core/error.h"

namespace espalier {

/// A file or folder can't be written: the disk is full, the place is read-only.
class WriteError : public FileError {
 public:
  using FileError::FileError;
};

/// A server or a connection failed.
class DownloadError : public FileError {
 public:
  using FileError::FileError;
};

}  // namespace espalier
