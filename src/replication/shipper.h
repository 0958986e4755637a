// Shipper: the dialing side of one slot. It dials the mirror, agrees on a starting point, ships the
// log in order, and turns the mirror's acknowledgements into what writers wait for.
//
// On a primary it ships what is in the log. On a mirror that feeds a further one (a relay, decision
// 0019) it ships what is durable there, so that the further one is never ahead of it, and nobody is
// fenced by what it hears. It ends, and another begins, when the node's role changes.
//
//   connecting ──Welcome──► handshake ─┬─ equal prefix ─────────────► catch-up ◄──► following
//       ▲                              ├─ log gone or mirror empty ─► image ──► catch-up
//       │ back-off                     ├─ mirror ahead, we start ───► fetching ─► catch-up
//       └───────── link lost ──────────┴─ anything else ────────────► refused (tried again)
//
// Thread: the reactor's. Lifetime: start() once; stop() must be awaited before destruction. No
// callback to the owner happens after stop() returned.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "replication/ack_policy.h"
#include "replication/group_settings.h"
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

/// What a shipper needs from its group.
class ShipperOwner {
 public:
  virtual ~ShipperOwner() = default;
  /// Primary, or mirror: then the shippers are relays.
  virtual Role role() const = 0;
  /// Of a mirror: where its records come from now. See message::Hello::sources.
  virtual std::vector<message::Source> sources() const = 0;
  /// Some slot's positions or gate changed: compute RemoteAck and the log hold anew, now.
  virtual void slot_changed() = 0;
  /// The peer shows a newer timeline. The group must not acknowledge another write after this
  /// returns. Called from within the shipper; it ends by itself afterwards.
  virtual void newer_timeline(const TimelineHistory& history, const std::string& node) = 0;
  /// What the history that `node` shows is beside ours: `why` neither can follow the other before
  /// an operator has chosen (is_split()), or "": that is not so, or not any more.
  virtual void note_split(const std::string& node, const TimelineHistory& history,
                          const std::string& why) = 0;
  /// A declared policy makes writers wait until mirrors have more.
  virtual bool holds_writers() const = 0;
  /// True while this primary has not served since it started, so that it may take records.
  virtual bool may_fetch() const = 0;
  /// What every copy of the group holds durably, and this one in a checkpoint; nothing: a mirror
  /// was not told it yet.
  virtual std::optional<Lsn> durable_everywhere() const = 0;
  /// The log pins one image at a time, and takes records from one peer at a time.
  virtual AsyncMutex& image_lock() = 0;
  virtual AsyncMutex& fetch_lock() = 0;
};

class Shipper {
 public:
  Shipper(Runtime runtime, ReplicatedLog& log, LinkDialer& dialer,
          const ReplicationOptions& options, SlotOptions slot, ShipperOwner& owner);
  Shipper(const Shipper&) = delete;
  Shipper& operator=(const Shipper&) = delete;
  ~Shipper();

  void start();
  /// Ends the stream now and dials no more; what runs still has to be awaited with stop().
  void request_stop();
  Task<void> stop();

  /// The log grew or a flush waits: ship, if it is time.
  void wake();
  /// Ends a pause before dialling again: the answer may be another one now.
  void dial_soon() { retry_.notify_all(); }
  void set_mode(ReplicationMode mode);
  /// A relay that said in its Hello that its records come from elsewhere says it anew.
  void sources_changed();
  /// Rates and compression, from the next message on.
  void set_policy(SlotPolicy policy);

  const std::string& address() const { return slot_.address; }
  SlotGate gate() const;
  /// Oldest position behind which this slot may still need records; nothing: it is the primary that
  /// this mirror follows.
  std::optional<Lsn> hold() const;
  bool is_relay() const { return role_ == Role::kMirror; }
  /// The mirror was heard since start() and nothing has to be fetched from it any more.
  bool settled() const { return settled_; }
  bool fetching() const { return state_ == State::kFetching; }
  /// That version from the mirror's copy. kUnavailable when it is not connected.
  Task<Result<IoBuffer>> fetch_block(BlockVersion version);
  /// Completes when the mirror holds durably everything up to `upto`, or with kUnavailable after
  /// `limit` or when the link is lost for longer.
  Task<Status> wait_durable(Lsn upto, Nanoseconds limit);
  SlotStatus status() const;
  /// The last position at which both are known to have been the same; LSN 0: none.
  const LogPoint& agreed() const { return agreed_; }
  /// What to hand to the next shipper of this slot, and to keep over a restart.
  SlotOptions slot() const;

 private:
  enum class State {
    kConnecting,
    kHandshake,
    kFetching,
    kImage,
    kCatchUp,
    kFollowing,
    kRefused,
    kStopped
  };
  struct InFlight {
    Lsn last;
    std::uint64_t payload_end;  // payload bytes of the log up to `last`
    std::size_t bytes;
    Nanoseconds sent_at{};  // monotonic
  };
  struct Plan {
    bool image = false;
    Lsn after;
    std::optional<LogPoint> since{};  // of an image: what both hold
  };

  // shipper.cc: connection, handshake, time
  Task<void> run();
  Task<void> session();
  Task<Result<message::Hello>> introduce();
  Task<Result<message::Welcome>> exchange_hello(const message::Hello& hello);
  Task<Result<Plan>> judge(const message::Hello& hello, const message::Welcome& welcome);
  bool may_differ_from(Lsn their_end) const;
  Task<Result<Plan>> fetch(const message::Hello& hello, const message::Welcome& welcome);
  Task<Status> take_record_batch(message::Records records);
  Task<void> refuse(message::Refuse refusal);
  void heed_refusal(const message::Refuse& refusal, const std::string& node);
  void tick();
  void check_stall(Nanoseconds now);
  void fail_link(std::string reason);
  void note_difference(const std::string& how);
  void set_state(State state, std::string reason);
  CopyState our_state(const message::Hello& hello) const;
  message::VersionRange versions() const;
  Lsn shippable() const { return is_relay() ? log_.durable() : log_.tail().lsn; }
  static const char* text(State state);

  // shipper_stream.cc: shipping and acknowledgements
  Task<void> stream(Plan plan);
  Task<void> send_loop(Plan plan);
  Task<Status> send_image(std::optional<LogPoint> since);
  Task<Status> ship_next();
  Task<void> receive_loop();
  void send_heartbeat(bool flush);
  bool has_news() const;
  bool heartbeat_is_early() const;
  Nanoseconds heartbeat_interval() const;
  bool flush_due();
  bool window_full() const;
  std::optional<std::uint64_t> rate_limit() const;
  std::size_t paced_bytes(std::size_t most) const;
  bool paced() const;
  Task<void> keep_pace();
  Nanoseconds time_to_gather();
  bool compresses() const;
  void on_ack(const message::Ack& ack);
  void update_gate();
  void open_gate(std::string reason);
  std::uint64_t lag_records() const;
  std::uint64_t lag_bytes() const;

  Executor& executor_;
  Clock& clock_;
  ReplicatedLog& log_;
  LinkDialer& dialer_;
  const ReplicationOptions& options_;
  ShipperOwner& owner_;
  const Role role_;  // the node's, as long as this ships
  SlotOptions slot_;
  SlotPolicy policy_;
  Backoff backoff_;
  Ticker ticker_;
  Gate running_;
  bool stopping_ = false;
  Condition retry_;             // ends the back-off
  Condition settled_or_acked_;  // wait_durable() and tests of progress

  // What the operator sees.
  State state_ = State::kConnecting;
  std::string reason_ = "not dialled yet";
  UtcNs since_;
  UtcNs last_contact_utc_;
  std::string node_;
  std::uint32_t protocol_ = 0;
  std::uint64_t image_done_ = 0, image_total_ = 0;

  // The mirror's place; survives a lost link.
  bool position_known_ = false;  // at least as it was when the slot was last heard
  bool confirmed_ = false;       // by the mirror itself, since start()
  bool caught_up_once_ = false;  // the mirror has had all but a little, now or in an earlier life
  message::Ack acked_;
  std::uint64_t acked_payload_ = 0;
  AgreementStatus agreement_;
  LogPoint agreed_;
  bool settled_ = false;
  bool leads_us_ = false;  // it is primary of the timeline that we, a mirror, follow

  // One session.
  std::unique_ptr<Link> link_;
  bool link_failed_ = false;
  std::string link_reason_;
  std::vector<message::Source> sources_told_;  // in the Hello
  Nanoseconds deadline_{};                     // of the present phase, for the handshake
  Nanoseconds last_contact_{};
  Nanoseconds last_heartbeat_{};
  message::Heartbeat said_;  // the last of them; said_payload_ was sent and said_agreed_ known then
  Nanoseconds last_progress_{};
  bool streaming_ = false;
  std::optional<Inquiries> inquiries_;  // while streaming
  bool sender_running_ = false;
  Condition sender_done_;
  Condition wake_;
  Lsn sent_, said_agreed_;
  std::uint64_t sent_payload_ = 0, said_payload_ = 0;
  std::optional<Nanoseconds> gathering_since_;  // records wait to be sent since then
  std::deque<InFlight> in_flight_;
  std::size_t in_flight_bytes_ = 0;
  std::deque<LogPoint> heads_sent_;  // in heartbeats, not found equal yet
  std::optional<Lsn> image_point_;
  LogPoint image_at_;                // of the last image that was sent whole
  bool image_wanted_ = false;        // the mirror cannot follow the log; until it has an image
  bool difference_refused_ = false;  // it does not keep what both hold; likewise
  Pace pace_;
  std::uint32_t peer_codecs_ = 0;

  // Gate and flushes.
  bool gating_ = false;
  std::optional<Nanoseconds> ask_until_;  // the link broke: writers wait until it is tried again
  Lsn barrier_;                           // in sync once the mirror has written up to here
  std::optional<Lsn> stalled_until_, unreadable_;  // the latter: of the log here
  std::optional<Lsn> flush_wanted_;                // a flush waits for at most this position
  std::optional<Lsn> flush_asked_;                 // the mirror was asked to be durable up to here
  Nanoseconds flush_asked_at_{};
  std::optional<Lsn> durable_wanted_;  // wait_durable()
};

}  // namespace tandem::replication
