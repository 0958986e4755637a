#include "backup/files.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tandem/base/check.h"

namespace tandem::backup {
namespace {

/// Text files here are manifests: far smaller.
constexpr std::size_t kTextBytesMax = 64 << 20;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

Error system_error(const Path& path, const std::string& what, int number) {
  const ErrorCode code = number == ENOSPC || number == EDQUOT ? ErrorCode::kNoSpace
                         : number == ENOENT                   ? ErrorCode::kNotFound
                         : number == EEXIST                   ? ErrorCode::kExists
                                                              : ErrorCode::kIo;
  return {code, "cannot " + what + " " + path.string() + ": " + std::strerror(number)};
}

}  // namespace

Sha256::Sha256() : state_(EVP_MD_CTX_new()) {
  CHECK(state_ != nullptr && EVP_DigestInit_ex(state_, EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() { EVP_MD_CTX_free(state_); }

void Sha256::add(std::span<const std::byte> bytes) {
  CHECK(EVP_DigestUpdate(state_, bytes.data(), bytes.size()) == 1);
}

std::string Sha256::hex() const {
  unsigned char sum[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_MD_CTX* copy = EVP_MD_CTX_new();
  CHECK(copy != nullptr && EVP_MD_CTX_copy_ex(copy, state_) == 1 &&
        EVP_DigestFinal_ex(copy, sum, &size) == 1);
  EVP_MD_CTX_free(copy);
  std::string out;
  for (unsigned i = 0; i < size; ++i) {
    constexpr char kDigits[] = "0123456789abcdef";
    out += kDigits[sum[i] >> 4];
    out += kDigits[sum[i] & 15];
  }
  return out;
}

std::string sha256_of(std::string_view text) {
  Sha256 sum;
  sum.add(bytes_of(text));
  return sum.hex();
}

Result<File> File::open(const Path& path, int flags) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0640);
  if (descriptor < 0) return system_error(path, "open", errno);
  return File(descriptor, path);
}

File::File(File&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(path_, other.path_);
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Error File::error(const std::string& what) const { return system_error(path_, what, errno); }

Status File::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::write(descriptor_, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return error("write");
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  return ok();
}

Status File::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done =
        ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return error("write");
    offset += static_cast<std::uint64_t>(done);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  return ok();
}

Result<std::size_t> File::read(std::span<std::byte> into) {
  std::size_t filled = 0;
  while (filled < into.size()) {
    const ssize_t done = ::read(descriptor_, into.data() + filled, into.size() - filled);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return error("read");
    if (done == 0) break;
    filled += static_cast<std::size_t>(done);
  }
  return filled;
}

Status File::sync() {
  if (::fsync(descriptor_) != 0) return error("sync");
  return ok();
}

Status File::sync_data() {
  if (::fdatasync(descriptor_) != 0) return error("sync");
  return ok();
}

Status File::truncate(std::uint64_t bytes) {
  if (::ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0) return error("set the size of");
  return ok();
}

Result<std::string> read_text(const Path& path) {
  auto file = File::open(path, O_RDONLY);
  if (!file) return Error(std::move(file.error()));
  std::string text;
  char piece[65536];
  for (;;) {
    const auto got = file->read(std::as_writable_bytes(std::span(piece)));
    if (!got) return got.error();
    text.append(piece, *got);
    if (*got < sizeof piece) return text;
    if (text.size() > kTextBytesMax)
      return Error{ErrorCode::kCorrupt, path.string() + " is far too large for what it should be"};
  }
}

Status write_text(const Path& path, std::string_view text) {
  auto file = File::open(path, O_WRONLY | O_CREAT | O_TRUNC);
  if (!file) return Error(std::move(file.error()));
  TANDEM_TRY(file->append(bytes_of(text)));
  return file->sync();
}

Status sync_directory(const Path& path) {
  auto directory = File::open(path, O_RDONLY | O_DIRECTORY);
  if (!directory) return Error(std::move(directory.error()));
  return directory->sync();
}

Status rename_durably(const Path& from, const Path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    return system_error(from, "rename to " + to.filename().string() + " the file", errno);
  return sync_directory(to.parent_path().empty() ? Path(".") : to.parent_path());
}

}  // namespace tandem::backup
