// Session: one client, from accept to close.
//
//   receive ──> parse everything that arrived ──> start a task per request ──> replies of this turn
//      ^                                                                        in one send
//      └── stops while too much is under way, so that only this client waits ◄──────┘
//
// A request is under way from its header until its reply has left for the socket; requests_max and
// bytes_max of Options bound that, and with it all memory a client can hold; all_bytes_max what all
// can hold together, but for one request each. Every task on the
// volume is awaited to its end, also when the client is gone.
// When the volume has moved to another node nothing more is answered but what is: the connection
// ends, and the client asks there for the rest.
// Thread: the reactor's. Lifetime: shared, because handlers that were posted may come late.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "frontend/nbd/codec.h"
#include "frontend/nbd/input_buffer.h"
#include "frontend/nbd/negotiation.h"
#include "frontend/nbd/options.h"
#include "frontend/nbd/reply_queue.h"
#include "frontend/nbd/transport.h"
#include "tandem/base/buffer.h"
#include "tandem/base/sync.h"
#include "tandem/base/task.h"
#include "tandem/port/executor.h"
#include "tandem/port/readiness.h"
#include "tandem/volume.h"

namespace tandem::nbd {

/// What all sessions of a server share; outlives them.
struct SessionContext {
  Executor& executor;
  Readiness& readiness;
  BufferPool& pool;
  VolumeDirectory& directory;
  Options options;
  std::shared_ptr<TlsContext> tls;
  Stats stats;
  std::size_t bytes = 0;  // that requests under way are charged with
};

/// Why a request is answered with an error before the volume sees it.
struct Refusal {
  WireError error = WireError::kInvalid;
  const char* message = "";
};
/// Checks a request (not DISC) against the specification and what was agreed. Pure.
std::optional<Refusal> judge(const Request& request, const Agreement& agreement,
                             std::uint32_t payload_bytes_max);

class Session : public std::enable_shared_from_this<Session> {
 public:
  /// Owns `fd`, connected and non-blocking.
  Session(SessionContext& context, int fd, std::string peer, bool local);
  ~Session();

  /// The whole life of the connection; returns when it is closed and nothing refers to the volume
  /// any more. The caller keeps the session alive meanwhile.
  Task<void> run();
  /// Ends the intake; what is under way is still answered, then the connection is closed. A
  /// connection in its handshake is closed at once. Idempotent.
  void stop();
  /// Before the choice of an export, and not told to stop.
  bool negotiating() const { return negotiating_ && !intake_closed_; }
  /// The export in use, or "" before one was chosen.
  std::string_view export_name() const { return agreement_.info.name; }
  /// An export that can be written was chosen.
  bool writable() const { return !negotiating_ && !agreement_.info.read_only; }

 private:
  // What the parser is in the middle of.
  struct Payload {
    Request request;
    IoBuffer data;
    std::size_t filled = 0;
  };
  struct Drain {
    Request request;
    Refusal refusal;
    std::size_t left = 0;
  };

  Task<void> negotiate();
  Task<void> serve();
  Task<void> finish();

  // Intake (session.cc).
  Task<void> receive_more();
  void parse_burst();
  bool parse_header();
  bool parse_payload();
  bool parse_drain();
  void begin(const Request& request);
  bool admits(const Request& request) const;
  bool is_full() const;
  void violation(const char* what);

  // Commands (session_commands.cc): each answers `request` exactly once.
  void execute(const Request& request, IoBuffer data);
  Task<void> do_read(Request request);
  Task<Status> sparse_read(Request request, bool& answered);
  Task<void> do_write(Request request, IoBuffer data);
  Task<void> do_flush(Request request);
  Task<void> do_trim(Request request);
  Task<void> do_write_zeroes(Request request);
  Task<void> do_block_status(Request request);
  void finish_request(const Request& request, const Status& outcome);
  void leave_unanswered(const Request& request);
  void reply_ok(const Request& request);
  void reply_error(const Request& request, WireError error, std::string_view message);
  void reply_data(const Request& request, IoBuffer data);
  std::size_t charge_of(const Request& request) const;
  void end_reply(const Request& request);

  // Output (session.cc).
  void replied();
  void flush_replies();
  Task<void> write_when_possible(std::shared_ptr<Session> self);
  void release(ReplyQueue::Released released);
  void give_up();
  void post_flush();
  void post_wake();

  SessionContext& context_;
  const Options& options_;
  Transport transport_;
  InputBuffer input_;
  Agreement agreement_;
  bool negotiating_ = true;
  bool intake_closed_ = false;

  std::optional<Payload> payload_;
  std::optional<Drain> drain_;
  bool large_writes_ = false;    // the last write was large: receive less behind its payload
  bool socket_drained_ = false;  // the last receive got less than it asked for
  int receives_in_a_row_ = 0;

  Gate volume_tasks_;
  std::size_t requests_ = 0;   // under way
  std::size_t bytes_ = 0;      // that they are charged with
  std::size_t at_volume_ = 0;  // requests not answered yet

  ReplyQueue replies_;
  bool in_burst_ = false;      // the receive loop sends at the end of its burst
  bool writer_waits_ = false;  // write_when_possible() runs
  bool flush_posted_ = false;
  bool wake_posted_ = false;
  bool broken_ = false;  // nothing can be sent any more
  bool error_logged_ = false;
  std::uint64_t requests_total_ = 0;
  Condition progress_;  // room for requests, or the writer has finished
};

}  // namespace tandem::nbd
