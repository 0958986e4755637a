// Files and directories that survive a power cut, and their sums.
//
// Thread: any. Every error names the path and why.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "tandem/base/result.h"

struct evp_md_ctx_st;

namespace tandem::backup {

using Path = std::filesystem::path;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void add(std::span<const std::byte> bytes);
  std::string hex() const;  // of what was added so far

 private:
  evp_md_ctx_st* state_;
};
std::string sha256_of(std::string_view text);

/// An open descriptor; closed with the object.
class File {
 public:
  /// `flags`: as of open(2); what is made has mode 0640.
  static Result<File> open(const Path& path, int flags);
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();
  int descriptor() const { return descriptor_; }
  const Path& path() const { return path_; }

  Status append(std::span<const std::byte> bytes);
  Status write_at(std::uint64_t offset, std::span<const std::byte> bytes);
  /// Fewer bytes only at the end of the file.
  Result<std::size_t> read(std::span<std::byte> into);
  Status sync();
  /// The bytes, and what it takes to read them back; not times and the like.
  Status sync_data();
  Status truncate(std::uint64_t bytes);
  Error error(const std::string& what) const;  // from errno

 private:
  File(int descriptor, Path path) : descriptor_(descriptor), path_(std::move(path)) {}
  int descriptor_ = -1;
  Path path_;
};

Result<std::string> read_text(const Path& path);
/// Durable when it returns, but for its name in the directory.
Status write_text(const Path& path, std::string_view text);
Status sync_directory(const Path& path);
/// Atomic, and durable when it returns.
Status rename_durably(const Path& from, const Path& to);

}  // namespace tandem::backup
