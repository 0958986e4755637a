// A hostile NBD client against a real session, over a socket pair and in virtual time. The session
// must not crash, must end soon after its client did, and must not ask the volume for anything
// outside of it, nor for a change of one that is read-only.
//
// The first two bytes say what is around: see Mode. The rest is what the client sends, either as it
// is or as a list of short forms that become whole options and requests (see Client).
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <deque>
#include <utility>
#include <vector>

#include "frontend/nbd/protocol.h"
#include "frontend/nbd/session.h"
#include "tandem/base/log.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/socket_readiness.h"
#include "tests/interop/memory_volume.h"
#include "tests/support/sim_runtime.h"

namespace tandem::fuzz {
namespace {

using test::MemoryVolume;
using test::VolumeCall;

constexpr std::uint64_t kVolumeBytes = 300 << 10;
constexpr std::uint32_t kPayloadMax = 64 << 10;
constexpr std::size_t kPiecesMax = 1000;

struct Mode {
  bool negotiated, structured, short_forms, read_only, small_blocks, faults;
  bool reads_replies;       // else the client never takes a reply
  bool stops;               // the server is stopped in the middle
  bool in_order;            // the order in which the volume's calls end
  std::size_t piece_bytes;  // of what is sent at a time

  explicit Mode(Input& input) {
    const auto bits = input.u8();
    negotiated = bits & 1;
    structured = bits & 2;
    short_forms = bits & 4;
    read_only = bits & 8;
    small_blocks = !(bits & 16);
    faults = bits & 32;
    reads_replies = !(bits & 64);
    stops = bits & 128;
    const auto more = input.u8();
    in_order = !(more & 1);
    piece_bytes = std::size_t{1} << (more >> 1) % 18;
  }
};

/// What the client sends.
class Client {
 public:
  Client(const Mode& mode, Input& input) {
    if (mode.negotiated) {
      number(nbd::kFixedNewstyle | nbd::kNoZeroes, 4);
      if (mode.structured) {
        option(nbd::option::kStructuredReply, {});
        meta_contexts();
      }
      const std::string name = mode.read_only ? "readonly" : "disk";
      export_option(nbd::option::kGo, name);
    }
    if (!mode.short_forms) {
      raw(input.rest());
    } else if (mode.negotiated) {
      while (!input.empty() && bytes_.size() < kBytesMax) request(input);
    } else {
      number(input.u8(), 4);
      while (!input.empty() && bytes_.size() < kBytesMax) any_option(input);
    }
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kBytesMax = 1 << 20;
  static constexpr std::uint8_t kRaw = 0xff;

  void number(std::uint64_t value, int bytes) {
    while (bytes-- > 0) bytes_.push_back(static_cast<std::byte>(value >> 8 * bytes));
  }
  void raw(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void text(std::string_view text) { raw(std::as_bytes(std::span(text.data(), text.size()))); }
  void option(std::uint32_t which, std::span<const std::byte> data) {
    number(nbd::kOptionMagic, 8);
    number(which, 4);
    number(data.size(), 4);
    raw(data);
  }
  void export_option(std::uint32_t which, std::string_view name) {
    number(nbd::kOptionMagic, 8);
    number(which, 4);
    number(4 + name.size() + 2, 4);
    number(name.size(), 4);
    text(name);
    number(0, 2);
  }
  void meta_contexts() {
    const std::string_view queries[] = {nbd::kBaseAllocation, "tandem:changed:monday",
                                        "qemu:dirty-bitmap:monday"};
    std::size_t length = 4 + 4 + 4;
    for (const auto query : queries) length += 4 + query.size();
    number(nbd::kOptionMagic, 8);
    number(nbd::option::kSetMetaContext, 4);
    number(length, 4);
    number(4, 4);
    text("disk");
    number(std::size(queries), 4);
    for (const auto query : queries) {
      number(query.size(), 4);
      text(query);
    }
  }
  /// Which option, length of its data, data; kRaw: length, bytes as they are.
  void any_option(Input& input) {
    const auto which = input.u8();
    const auto length = input.u8();
    const auto data = input.bytes(length);
    if (which == kRaw) return raw(data);
    if (which >= 0x80) return export_option(which & 15, which & 0x40 ? "disk" : "readonly");
    option(which, data);
  }
  /// Type, flags, where, how much (of a write, and a byte to fill it); kRaw: length, bytes as they
  /// are. The top bits of the type choose 64-bit offsets, and lengths that are no multiples of 512.
  void request(Input& input) {
    const auto type = input.u8();
    if (type == kRaw) return raw(input.bytes(input.u8()));
    const auto flags = input.u8();
    const std::uint64_t offset = type & 0x80 ? input.u64() : std::uint64_t{input.u16()} * 512;
    const std::uint32_t length = type & 0x40 ? input.u32() : std::uint32_t{input.u8()} * 512;
    number(nbd::kRequestMagic, 4);
    number(flags, 2);
    number(type & 15, 2);
    number(++cookie_, 8);
    number(offset, 8);
    number(length, 4);
    if ((type & 15) != nbd::command::kWrite) return;
    bytes_.resize(bytes_.size() + std::min<std::size_t>(length, 2 * kPayloadMax),
                  static_cast<std::byte>(input.u8()));
  }

  std::vector<std::byte> bytes_;
  std::uint64_t cookie_ = 0;
};

/// One connection, from accept to close.
class Connection {
 public:
  Connection(const Mode& mode, std::span<const std::byte> sends)
      : mode_(mode),
        left_(sends),
        piece_bytes_(std::max(mode.piece_bytes, sends.size() / kPiecesMax)) {
    int ends[2];
    CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    client_ = ends[0];
    // Replies soon wait for the client.
    const int small = 8 << 10;
    CHECK(::setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
    add("disk", false);
    add("readonly", true);
    nbd::Options options;
    options.requests_max = 8;
    options.payload_bytes_max = kPayloadMax;
    options.bytes_max = options.all_bytes_max = 4 * kPayloadMax;
    options.input_bytes = 128 << 10;
    options.sparse_read_bytes_min = 8 << 10;
    context_ = std::make_unique<nbd::SessionContext>(
        nbd::SessionContext{world_, readiness_, buffers_.pool(), directory_, options, nullptr, {}});
    session_ = std::make_shared<nbd::Session>(*context_, ends[1], "fuzz", true);
  }
  ~Connection() { leave(); }

  void run() {
    spawn(run_session());
    while (!ended_) {
      CHECK(world_.now() < std::chrono::minutes(2));
      world_.run_for(std::chrono::microseconds(1));
      bool busy = readiness_.turn();
      busy |= send_some();
      busy |= take_replies();
      busy |= end_a_call();
      if (busy || ended_) continue;
      // Nothing happens by itself any more: what is left are time-outs, and that the client goes.
      if (client_ >= 0 && left_.empty()) ::shutdown(client_, SHUT_WR);
      if (world_.step()) continue;
      CHECK(client_ >= 0);
      leave();
    }
    world_.run_for(std::chrono::seconds(1));
    CHECK(context_->bytes == 0 && held_.empty());
    session_.reset();
  }

 private:
  void add(std::string name, bool read_only) {
    auto volume = std::make_shared<MemoryVolume>(
        buffers_.pool(), std::move(name),
        MemoryVolume::Options{.size_bytes = kVolumeBytes,
                              .logical_block_bytes = mode_.small_blocks ? 512u : 4096u,
                              .read_only = read_only,
                              .capacity_bytes = kVolumeBytes / 2});
    volume->snapshot("monday");
    volume->set_fault([this, read_only](VolumeCall call, std::uint64_t offset,
                                        std::uint64_t length) -> std::optional<Error> {
      CHECK(offset <= kVolumeBytes && length <= kVolumeBytes - offset);
      const bool changes = call == VolumeCall::kWrite || call == VolumeCall::kDiscard ||
                           call == VolumeCall::kWriteZeroes;
      CHECK(!changes || !read_only);
      CHECK(length > 0 || call == VolumeCall::kFlush);
      if (mode_.faults && ++calls_ % 3 == 0) return Error{ErrorCode::kIo, "as ordered"};
      return std::nullopt;
    });
    volume->set_later([this](std::coroutine_handle<> call) { held_.push_back(call); });
    directory_.add(std::move(volume));
  }
  Task<void> run_session() {
    co_await session_->run();
    ended_ = true;
  }
  void leave() {
    if (client_ >= 0) ::close(std::exchange(client_, -1));
    left_ = {};
  }
  bool send_some() {
    if (left_.empty()) return false;
    const auto piece = left_.first(std::min(piece_bytes_, left_.size()));
    const auto sent = ::send(client_, piece.data(), piece.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return false;
    left_ = sent < 0 ? left_.last(0) : left_.subspan(static_cast<std::size_t>(sent));
    if (mode_.stops && left_.size() < 64 && !std::exchange(stopped_, true)) session_->stop();
    return true;
  }
  bool take_replies() {
    if (!mode_.reads_replies || client_ < 0) return false;
    std::byte replies[16 << 10];
    return ::recv(client_, replies, sizeof replies, 0) > 0;
  }
  bool end_a_call() {
    if (held_.empty()) return false;
    const auto call = mode_.in_order ? held_.front() : held_.back();
    mode_.in_order ? held_.pop_front() : held_.pop_back();
    call.resume();
    return true;
  }

  const Mode& mode_;
  std::span<const std::byte> left_;
  std::size_t piece_bytes_;
  sim::SimRuntime world_{1};
  SocketReadiness readiness_;
  HeapBuffers buffers_;
  test::MemoryDirectory directory_;
  std::unique_ptr<nbd::SessionContext> context_;
  std::shared_ptr<nbd::Session> session_;
  std::deque<std::coroutine_handle<>> held_;
  std::size_t calls_ = 0;
  int client_ = -1;
  bool ended_ = false;
  bool stopped_ = false;
};

}  // namespace
}  // namespace tandem::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tandem::fuzz;
  tandem::set_log_sink([](tandem::Level, std::string_view) {});
  Input input(data, size);
  const Mode mode(input);
  const Client client(mode, input);
  Connection(mode, client.bytes()).run();
  return 0;
}
