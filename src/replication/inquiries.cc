#include "replication/inquiries.h"

#include <spdlog/fmt/fmt.h>

#include <utility>

#include "replication/timing.h"
#include "tandem/base/check.h"

namespace tandem::replication {

Inquiries::Inquiries(Executor& executor, Clock& clock, ReplicatedLog& log,
                     const ReplicationOptions& options, Link& link)
    : executor_(executor), clock_(clock), log_(log), options_(options), link_(link) {}

Inquiries::~Inquiries() { CHECK(work_.held() == 0); }

// --- asking --------------------------------------------------------------------------------------

Task<Result<IoBuffer>> Inquiries::ask_block(BlockVersion version) {
  const std::uint64_t id = ++last_id_;
  auto asking = ask(id, Message(message::BlockRequest{id, version}));
  auto answered = co_await std::move(asking);
  if (!answered) co_return Error(std::move(answered.error()));
  auto* answer = std::get_if<message::BlockAnswer>(&*answered);
  if (answer == nullptr) co_return Error{ErrorCode::kUnavailable, "the answer is none"};
  if (answer->refusal) co_return Error(std::move(*answer->refusal));
  co_return std::move(answer->data);
}

Task<Result<Message>> Inquiries::ask(std::uint64_t id, Message question) {
  auto holder = work_.hold();
  const Nanoseconds end = clock_.monotonic() + options_.inquiry_timeout;
  bool sent = false;
  while (!ended_) {
    if (!sent && asked_.size() < kAsksMax) {
      asked_.emplace(id, std::nullopt);
      link_.send(std::move(question));
      sent = true;
    }
    if (sent && asked_.at(id)) break;
    const Nanoseconds now = clock_.monotonic();
    if (now >= end) break;
    co_await wait_at_most(executor_, changed_, end - now);
  }
  std::optional<Message> answer;
  if (sent) {
    answer = std::move(asked_.at(id));
    asked_.erase(id);
    if (changed_.has_waiters()) changed_.notify_all();
  }
  if (answer) co_return std::move(*answer);
  if (ended_) co_return Error{ErrorCode::kUnavailable, *ended_};
  co_return Error{ErrorCode::kUnavailable,
                  fmt::format("it did not answer within {:.0f} s",
                              std::chrono::duration<double>(options_.inquiry_timeout).count())};
}

void Inquiries::arrived(std::uint64_t id, Message answer) {
  const auto asked = asked_.find(id);
  if (asked == asked_.end() || asked->second) return;  // too late
  asked->second = std::move(answer);
  changed_.notify_all();
}

// --- answering -----------------------------------------------------------------------------------

bool Inquiries::take(Message& message) {
  if (auto* request = std::get_if<message::BlockRequest>(&message)) {
    if (ended_) return true;
    if (answering_ >= kAnswersMax) {
      const Error busy{ErrorCode::kBusy, "too many questions at once"};
      link_.send(Message(message::BlockAnswer{request->id, busy, {}}));
      return true;
    }
    spawn(answer_block(*request));
    return true;
  }
  if (auto* answer = std::get_if<message::BlockAnswer>(&message)) {
    const std::uint64_t id = answer->id;
    arrived(id, std::move(message));
    return true;
  }
  return false;
}

Task<void> Inquiries::answer_block(message::BlockRequest request) {
  auto holder = work_.hold();
  ++answering_;
  auto finding = log_.find_block(request.version);
  auto found = co_await std::move(finding);
  --answering_;
  if (ended_) co_return;
  message::BlockAnswer answer{request.id, std::nullopt, {}};
  if (found) {
    answer.data = std::move(*found);
  } else {
    answer.refusal = std::move(found.error());
  }
  link_.send(Message(std::move(answer)));
}

// --- the end -------------------------------------------------------------------------------------

void Inquiries::end(std::string reason) {
  if (ended_) return;
  ended_ = std::move(reason);
  spawn(wake_all());
}

// In a later turn: whoever ends the stream is not resumed into by those who waited.
Task<void> Inquiries::wake_all() {
  auto holder = work_.hold();
  co_await next_turn(executor_);
  changed_.notify_all();
}

Task<void> Inquiries::close(std::string reason) {
  end(std::move(reason));
  co_await work_.close();
}

}  // namespace tandem::replication
