// Applier: the mirror's side of a group. It answers the Hello of a primary, or of a mirror that
// feeds this one, applies its records in order, acknowledges positions, and notices when it falls
// silent.
//
//   Hello ──refused──► Refuse, closed
//     └─Welcome─► waiting for Start ─┬─ after our end ──────► following
//                                    ├─ from_image ─► image ─► following
//                                    └─ before our end ─► giving (the primary lost records) ─► …
//
// At most one stream has been answered with Welcome at any time: a newer stream waits until the
// older one is closed and everything it brought was applied, so two streams never both apply.
//
// Thread: the reactor's. stop() must be awaited before destruction.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "replication/handshake.h"
#include "replication/inquiries.h"
#include "replication/options.h"
#include "replication/timing.h"
#include "tandem/base/sync.h"
#include "tandem/control.h"
#include "tandem/port/executor.h"
#include "tandem/port/link.h"
#include "tandem/replicated_log.h"

namespace tandem::replication {

/// What an applier needs from its group.
class ApplierOwner {
 public:
  virtual ~ApplierOwner() = default;
  virtual Role role() const = 0;
  /// We are primary and a peer shows a newer timeline: see ShipperOwner::newer_timeline.
  virtual void newer_timeline(const TimelineHistory& history, const std::string& node) = 0;
  /// See ShipperOwner::note_split.
  virtual void note_split(const std::string& node, const TimelineHistory& history,
                          const std::string& why) = 0;
  /// A fenced copy holds nothing of its own and may follow: make it a mirror, durably.
  virtual Task<Status> become_mirror() = 0;
  /// The log is about to go back, or to be replaced: when this returns nothing of it is shipped any
  /// more, until after_replacing().
  virtual Task<void> before_replacing() = 0;
  virtual void after_replacing() = 0;
  /// A stream began: sources() are others, perhaps.
  virtual void upstream_began() = 0;
  /// See ReplicatedLog::set_primary_durable.
  virtual void upstream_holds(Lsn durable, Lsn everywhere) = 0;
};

class Applier {
 public:
  Applier(Runtime runtime, ReplicatedLog& log, const ReplicationOptions& options,
          ApplierOwner& owner);
  Applier(const Applier&) = delete;
  Applier& operator=(const Applier&) = delete;
  ~Applier();

  /// Takes a stream whose Hello was read. Answers, applies and ends by itself.
  void accept(std::unique_ptr<Link> link, message::Hello hello);

  /// For a promotion: nothing is applied or acknowledged any more; completes when nothing is in
  /// flight. The stream stays open but silent, so that a primary in mode sync acknowledges nothing
  /// meanwhile. New streams are refused.
  Task<void> hold();
  /// Ends hold(). With `farewell` the primary is told why (our newer timeline) before the stream
  /// closes; without, it simply dials again.
  void release(std::optional<message::Refuse> farewell);
  /// Drops the present stream, if any; the primary will dial again.
  void drop(std::string reason);

  Task<void> stop();

  /// That version from the primary's copy. kUnavailable when none is connected.
  Task<Result<IoBuffer>> fetch_block(BlockVersion version);

  UpstreamStatus status() const;
  /// Where the records of the present stream come from; nothing without one.
  std::vector<message::Source> sources() const;
  /// A stream from a primary, or from a mirror that had one when it dialled, is open and was heard
  /// within the time-out.
  bool connected() const;

 private:
  enum class Phase { kHandshake, kGiving, kImage, kFollowing, kLeaving };
  struct Session {
    std::unique_ptr<Link> link;
    std::optional<Inquiries> inquiries;  // once the stream has its place
    message::Hello hello;
    Phase phase = Phase::kHandshake;
    bool ended = false;
    std::string end_reason;
    Nanoseconds last_contact{};
    Nanoseconds deadline{};   // of kHandshake and kLeaving
    bool busy = false;        // inside a message: silence does not count
    bool installing = false;  // an image is half built in the log
    Lsn received, written, durable;
    Digest chain;  // digest behind `received`
    Lsn flush_wanted;
    bool flushing = false;
    std::deque<LogPoint> to_compare;  // of heartbeats, until they are written here
    bool comparing = false;
    Lsn agreed;
    Lsn common;               // the primary is known to know that both are the same there
    std::size_t batches = 0;  // being applied
    std::size_t bytes = 0;
    bool ack_due = false;
    Condition ack_wake;
    Condition room;  // a batch was applied
    Gate work;       // apply_batch, flush_once, ack_pump, give
  };

  // applier.cc: admission, handshake, time
  Task<void> run(std::unique_ptr<Link> link, message::Hello hello);
  std::optional<message::Refuse> admission(const message::Hello& hello) const;
  Task<void> turn_away(std::unique_ptr<Link> link, message::Refuse refusal);
  void supersede(Session& old, const message::Hello& hello);
  Task<void> serve(Session& session);
  Task<std::optional<message::Refuse>> examine(Session& session);
  Task<Status> begin(Session& session, message::Start start);
  void end_session(Session& session, std::string reason);
  void tick();
  bool is_silent(const Session& session) const;
  bool outranks(const message::Hello& hello) const;
  Task<Status> go_back(Lsn to);
  CopyState our_state() const;
  void set_upstream(std::string state, std::string reason);

  // applier_stream.cc: records, image, acknowledgements
  Task<void> receive_loop(Session& session);
  Task<Status> handle(Session& session, Message message);
  Task<Status> take_records(Session& session, message::Records records);
  Task<void> apply_batch(Session& session, RecordBatch batch, bool flush);
  void want_flush(Session& session, Lsn upto);
  Task<void> flush_once(Session& session);
  Task<void> ack_pump(Session& session);
  void ack(Session& session);
  void compare_when_written(Session& session);
  Task<void> compare(Session& session, LogPoint point);
  void on_heartbeat(Session& session, const message::Heartbeat& heartbeat);
  Task<Status> take_image(Session& session, Message message);
  Task<void> give(Session& session, Lsn after);
  void fail(Session& session, Error error);

  Executor& executor_;
  Clock& clock_;
  ReplicatedLog& log_;
  const ReplicationOptions& options_;
  ApplierOwner& owner_;
  Ticker ticker_;
  Gate running_;
  bool stopping_ = false;
  bool held_ = false;
  Condition idle_;  // for hold()
  AsyncMutex one_session_;
  Session* current_ = nullptr;
  std::uint64_t arrivals_ = 0;
  std::size_t waiting_ = 0;
  struct Parting {
    Link* link;
    Nanoseconds deadline;
  };
  std::vector<Parting> parting_;  // refused; waiting for the dialer to close

  // What is known of the primary; survives its streams.
  std::string upstream_node_, primary_node_;
  std::string upstream_state_ = "never";
  std::string upstream_reason_ = "no primary has connected since this node started";
  UtcNs upstream_since_;
  UtcNs last_contact_utc_;
  AgreementStatus agreement_;
  bool head_known_ = false;
  LogPoint primary_head_;
};

}  // namespace tandem::replication
