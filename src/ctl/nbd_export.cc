#include "ctl/nbd_export.h"

#include <libnbd.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>

namespace tandem::ctl {
namespace {

constexpr int kSilenceMs = 60'000;
constexpr std::size_t kUnderWayMax = 16;
/// BLOCK_STATUS and WRITE_ZEROES count with 32 bits.
constexpr std::uint64_t kRangeMax = std::uint64_t{1} << 31;
constexpr char kAllocation[] = LIBNBD_CONTEXT_BASE_ALLOCATION;

using backup::Run;

/// "host:port" in two; brackets of an IPv6 address are taken off.
std::pair<std::string, std::string> split(const std::string& text) {
  const auto colon = text.rfind(':');
  if (colon == std::string::npos) return {text, ""};
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  return {host, text.substr(colon + 1)};
}

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

/// Whether one of this machine's own addresses has that name: only those can be bound.
bool is_here(const std::string& host) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_DGRAM;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return false;
  bool here = false;
  for (const auto* at = found; at != nullptr && !here; at = at->ai_next) {
    const int descriptor = ::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, 0);
    here = descriptor >= 0 && ::bind(descriptor, at->ai_addr, at->ai_addrlen) == 0;
    if (descriptor >= 0) ::close(descriptor);
  }
  ::freeaddrinfo(found);
  return here;
}

/// A directory with certificates under the names that libnbd looks for; gone with the object.
class CertificateDirectory {
 public:
  static Result<std::string> fill(const Settings& settings, CertificateDirectory& directory) {
    if (settings.ca.empty())
      return Error{ErrorCode::kInvalid,
                   "the node's exports use TLS: give --ca (and --certificate and --key)"};
    std::string path = std::filesystem::temp_directory_path() / "tandem-tls-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr)
      return Error{ErrorCode::kIo, "cannot make " + path + ": " + std::strerror(errno)};
    directory.path_ = path;
    const std::pair<const std::string&, const char*> files[] = {
        {settings.ca, "ca-cert.pem"},
        {settings.certificate, "client-cert.pem"},
        {settings.key, "client-key.pem"}};
    for (const auto& [from, name] : files) {
      std::error_code failed;
      if (from.empty()) continue;
      std::filesystem::create_symlink(std::filesystem::absolute(from), path + "/" + name, failed);
      if (failed) return Error{ErrorCode::kIo, "cannot use " + from + ": " + failed.message()};
    }
    return path;
  }
  ~CertificateDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }

 private:
  std::string path_;
};

class NbdExport final : public Export {
 public:
  NbdExport() : nbd_(nbd_create()) {}
  ~NbdExport() override {
    if (nbd_ != nullptr) nbd_close(nbd_);  // and with it the use of all buffers
  }

  Status connect(const NbdAddress& address, const std::string& name, const Settings& settings,
                 const std::string& since) {
    what_ = "export " + name + " at " + address.text();
    if (!since.empty()) changed_ = "tandem:changed:" + since;
    if (nbd_ == nullptr) return failed();
    bool good = nbd_set_export_name(nbd_, name.c_str()) == 0 &&
                nbd_add_meta_context(nbd_, kAllocation) == 0 &&
                (since.empty() || nbd_add_meta_context(nbd_, changed_.c_str()) == 0);
    CertificateDirectory certificates;
    if (address.tls && address.unix_path.empty()) {
      const auto path = CertificateDirectory::fill(settings, certificates);
      if (!path) return path.error();
      good = good && nbd_set_tls(nbd_, LIBNBD_TLS_REQUIRE) == 0 &&
             nbd_set_tls_certificates(nbd_, path->c_str()) == 0;
    }
    if (!good) return failed();
    const int begun = address.unix_path.empty()
                          ? nbd_aio_connect_tcp(nbd_, address.host.c_str(), address.port.c_str())
                          : nbd_aio_connect_unix(nbd_, address.unix_path.c_str());
    TANDEM_TRY(connected(begun));
    if (since.empty() || nbd_can_meta_context(nbd_, changed_.c_str()) == 1) return ok();
    return Error{ErrorCode::kNotFound, what_ + " cannot tell what changed since " + since +
                                           ": the snapshot is not on that node"};
  }

  std::uint64_t size_bytes() const override {
    return static_cast<std::uint64_t>(std::max<std::int64_t>(nbd_get_size(nbd_), 0));
  }
  std::size_t piece_bytes_max() const override {
    const auto bytes = nbd_get_block_size(nbd_, LIBNBD_SIZE_MAXIMUM);
    return bytes > 0
               ? std::min<std::size_t>(static_cast<std::size_t>(bytes), backup::kPieceBytesMax)
               : backup::kPieceBytesMax;
  }
  std::uint32_t logical_block_bytes() const override {
    const auto bytes = nbd_get_block_size(nbd_, LIBNBD_SIZE_MINIMUM);
    return bytes > 0 ? static_cast<std::uint32_t>(bytes) : 512;
  }

  Result<std::vector<Run>> runs(std::uint64_t offset) override {
    allocation_.clear();
    changes_.clear();
    const std::uint64_t length = std::min(kRangeMax, size_bytes() - offset);
    const nbd_extent_callback note{.callback = note_extents, .user_data = this, .free = nullptr};
    TANDEM_TRY(done(nbd_aio_block_status(nbd_, length, offset, note, NBD_NULL_COMPLETION, 0)));
    if (changed_.empty()) changes_.push_back({static_cast<std::uint32_t>(length), 1});
    // A server without allocation has data everywhere.
    if (nbd_can_meta_context(nbd_, kAllocation) != 1)
      allocation_.push_back({static_cast<std::uint32_t>(length), 0});
    return both(offset, length);
  }

  Status read(std::span<const Run> runs, const Sink& sink) override {
    reading_.clear();
    std::size_t next = 0;
    while (next < runs.size() || !reading_.empty()) {
      if (next < runs.size() && reading_.size() < kUnderWayMax) {
        TANDEM_TRY(begin_read(runs[next++]));
        continue;
      }
      UnderWay& first = reading_.front();
      if (!first.run.zero) TANDEM_TRY(done(first.cookie));
      TANDEM_TRY(sink(first.run, first.data));
      reading_.pop_front();
    }
    return ok();
  }

  Status write(std::uint64_t offset, std::span<const std::byte> data) override {
    while (!data.empty()) {
      TANDEM_TRY(make_room());
      const auto piece = data.first(std::min(data.size(), piece_bytes_max()));
      auto& now = writing_.emplace_back(
          UnderWay{{offset, piece.size(), true, false}, {piece.begin(), piece.end()}, -1});
      now.cookie =
          nbd_aio_pwrite(nbd_, now.data.data(), piece.size(), offset, NBD_NULL_COMPLETION, 0);
      if (now.cookie < 0) return failed();
      offset += piece.size();
      data = data.subspan(piece.size());
    }
    return ok();
  }

  Status zero(std::uint64_t offset, std::uint64_t length) override {
    while (length != 0) {
      TANDEM_TRY(make_room());
      const auto piece = std::min(length, kRangeMax);
      const auto cookie = nbd_aio_zero(nbd_, piece, offset, NBD_NULL_COMPLETION, 0);
      if (cookie < 0) return failed();
      writing_.push_back({{offset, piece, true, true}, {}, cookie});
      offset += piece;
      length -= piece;
    }
    return ok();
  }

  Status finish() override {
    while (!writing_.empty()) {
      TANDEM_TRY(done(writing_.front().cookie));
      writing_.pop_front();
    }
    if (nbd_can_flush(nbd_) != 1) return ok();
    return done(nbd_aio_flush(nbd_, NBD_NULL_COMPLETION, 0));
  }

 private:
  struct UnderWay {
    Run run;
    std::vector<std::byte> data;
    std::int64_t cookie = -1;
  };
  struct Extent {
    std::uint32_t length, flags;
  };

  Status begin_read(const Run& run) {
    auto& now = reading_.emplace_back(UnderWay{run, {}, -1});
    if (run.zero) return ok();
    now.data.resize(run.length);
    now.cookie =
        nbd_aio_pread(nbd_, now.data.data(), run.length, run.offset, NBD_NULL_COMPLETION, 0);
    return now.cookie < 0 ? Status(failed()) : ok();
  }

  static int note_extents(void* self, const char* context, std::uint64_t, std::uint32_t* entries,
                          std::size_t count, int*) {
    auto* that = static_cast<NbdExport*>(self);
    auto& into = that->changed_ == context ? that->changes_ : that->allocation_;
    for (std::size_t i = 0; i + 1 < count; i += 2) into.push_back({entries[i], entries[i + 1]});
    return 0;
  }

  /// Both contexts side by side, as far as both reach.
  Result<std::vector<Run>> both(std::uint64_t offset, std::uint64_t length) {
    std::vector<Run> out;
    const std::uint64_t end = offset + length;
    auto a = allocation_.begin(), c = changes_.begin();
    while (a != allocation_.end() && c != changes_.end() && offset < end) {
      const std::uint64_t take = std::min<std::uint64_t>({a->length, c->length, end - offset});
      const Run run{offset, take, (c->flags & 1) != 0, (a->flags & LIBNBD_STATE_ZERO) != 0};
      if (take == 0) break;
      if (!out.empty() && out.back().changed == run.changed && out.back().zero == run.zero) {
        out.back().length += take;
      } else {
        out.push_back(run);
      }
      offset += take;
      if ((a->length -= static_cast<std::uint32_t>(take)) == 0) ++a;
      if ((c->length -= static_cast<std::uint32_t>(take)) == 0) ++c;
    }
    if (out.empty()) return Error{ErrorCode::kIo, what_ + ": the server told no extents"};
    return out;
  }

  Status make_room() {
    while (writing_.size() >= kUnderWayMax) {
      TANDEM_TRY(done(writing_.front().cookie));
      writing_.pop_front();
    }
    return ok();
  }

  Status connected(int begun) {
    if (begun != 0) return failed();
    while (nbd_aio_is_connecting(nbd_) == 1) TANDEM_TRY(poll());
    if (nbd_aio_is_ready(nbd_) == 1) return ok();
    return failed();
  }

  /// Waits for a command; its cookie is used up.
  Status done(std::int64_t cookie) {
    if (cookie < 0) return failed();
    for (;;) {
      const int ended = nbd_aio_command_completed(nbd_, static_cast<std::uint64_t>(cookie));
      if (ended > 0) return ok();
      if (ended < 0) return failed();
      TANDEM_TRY(poll());
    }
  }

  Status poll() {
    const int moved = nbd_poll(nbd_, kSilenceMs);
    if (moved > 0) return ok();
    if (moved < 0) return failed();
    return Error{ErrorCode::kUnavailable, what_ + ": the server has said nothing for a minute"};
  }

  Error failed() const {
    const char* text = nbd_get_error();
    const int number = nbd_get_errno();
    ErrorCode code = ErrorCode::kIo;
    if (number == ENOENT) code = ErrorCode::kNotFound;
    if (number == ECONNREFUSED || number == ETIMEDOUT || number == EHOSTUNREACH ||
        number == ENETUNREACH || number == ENOTCONN || number == ECONNRESET)
      code = ErrorCode::kUnavailable;
    if (number == ENOSPC) code = ErrorCode::kNoSpace;
    if (number == EPERM) code = ErrorCode::kReadOnly;
    if (number == EINVAL) code = ErrorCode::kInvalid;
    return {code, what_ + ": " + (text != nullptr ? text : "cannot use libnbd")};
  }

  nbd_handle* nbd_;
  std::string what_, changed_;
  std::vector<Extent> allocation_, changes_;
  // Buffers live as long as the connection: it may be using them.
  std::deque<UnderWay> reading_, writing_;
};

}  // namespace

std::string NbdAddress::text() const {
  return unix_path.empty() ? host + ":" + port : "unix:" + unix_path;
}

Result<NbdAddress> nbd_address(const NodeStatus& node, const std::string& service,
                               const std::string& given) {
  const auto service_host = split(service).first;
  const bool here = !given.empty() || is_here(service_host);
  const auto endpoints = given.empty() ? node.nbd : std::vector<std::string>{given};
  for (const auto& endpoint : endpoints) {
    if (!endpoint.starts_with("unix:")) continue;
    // A socket of that name on another machine would be another node's.
    const std::string path = endpoint.substr(5);
    struct stat there {};
    if (here && ::stat(path.c_str(), &there) == 0 && S_ISSOCK(there.st_mode))
      return NbdAddress{.unix_path = path, .host = "", .port = "", .tls = false};
  }
  for (const auto& endpoint : endpoints) {
    if (endpoint.starts_with("unix:")) continue;
    auto [host, port] = split(endpoint);
    if (is_loopback(host) && !here) continue;  // and so would one at this machine's loopback be
    if (host == "0.0.0.0" || host == "::" || host == "*") host = service_host;
    return NbdAddress{.unix_path = "", .host = host, .port = port, .tls = node.nbd_tls};
  }
  return Error{ErrorCode::kUnavailable,
               "node " + node.node +
                   " has no exports that can be reached from here: let it listen on TCP "
                   "(nbd.listen), run this on the node, or say with --nbd where they are"};
}

Result<std::unique_ptr<Export>> Export::open(const NbdAddress& address, const std::string& name,
                                             const Settings& settings, const std::string& since) {
  auto opened = std::make_unique<NbdExport>();
  TANDEM_TRY(opened->connect(address, name, settings, since));
  return std::unique_ptr<Export>(std::move(opened));
}

}  // namespace tandem::ctl
