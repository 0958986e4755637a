// Inquiries: what the two ends of a stream ask each other beside the records. A copy asks for a
// block that is damaged in it; the other one looks for that very version in its own.
//
//   asks     at most kAsksMax at once, further ones wait for room; each has a time limit, and all
//            fail when the stream ends
//   answers  from this copy alone, each in a coroutine of its own, so that records go on meanwhile
//            and neither end ever waits for the other to answer; at most kAnswersMax at once,
//            further ones are answered with kBusy
//
// Thread: the reactor's. One per stream; close() must be awaited before the link is destroyed.
#pragma once

#include <map>
#include <string>

#include "replication/options.h"
#include "tandem/base/sync.h"
#include "tandem/port/executor.h"
#include "tandem/port/link.h"
#include "tandem/replicated_log.h"

namespace tandem::replication {

class Inquiries {
 public:
  static constexpr std::size_t kAsksMax = 16;
  static constexpr std::size_t kAnswersMax = 32;

  Inquiries(Executor& executor, Clock& clock, ReplicatedLog& log, const ReplicationOptions& options,
            Link& link);
  Inquiries(const Inquiries&) = delete;
  Inquiries& operator=(const Inquiries&) = delete;
  ~Inquiries();

  /// Errors: the peer's refusal; kUnavailable when it does not answer in time or the stream ends.
  /// What it gives is still to be checked.
  Task<Result<IoBuffer>> ask_block(BlockVersion version);
  /// True when `message` belongs here; it is taken then.
  bool take(Message& message);
  /// Every question fails from now on; nothing is sent any more.
  void end(std::string reason);
  /// end(), and waits until nothing of this is under way.
  Task<void> close(std::string reason);

 private:
  Task<Result<Message>> ask(std::uint64_t id, Message question);
  Task<void> answer_block(message::BlockRequest request);
  Task<void> wake_all();
  void arrived(std::uint64_t id, Message answer);

  Executor& executor_;
  Clock& clock_;
  ReplicatedLog& log_;
  const ReplicationOptions& options_;
  Link& link_;
  std::uint64_t last_id_ = 0;
  std::map<std::uint64_t, std::optional<Message>> asked_;  // with the answer, once it is there
  std::size_t answering_ = 0;
  std::optional<std::string> ended_;
  Condition changed_;  // an answer came, there is room, or the stream ended
  Gate work_;
};

}  // namespace tandem::replication
