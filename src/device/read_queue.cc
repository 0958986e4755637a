#include "device/read_queue.h"

#include <algorithm>

#include "tandem/base/check.h"

namespace tandem::device {
namespace {

/// Fewer reads at once are worth no trial.
constexpr std::size_t kTogetherMin = 8;
/// So many rounds are no accident.
constexpr std::size_t kRounds = 16;
/// Reads are counted for so long without the limit, and with it.
constexpr Nanoseconds kMeasuredFor = std::chrono::milliseconds(100);
/// Rates differ by as much without a reason.
constexpr double kSameRate = 0.95;
constexpr Nanoseconds kVerdictMin = std::chrono::seconds(2);
constexpr Nanoseconds kVerdictMax = std::chrono::seconds(60);
constexpr std::size_t kReadsPerLook = 32;

}  // namespace

void ReadQueue::ask(IoRequest& read) {
  waiting_.push_back(&read);
  most_ = std::max(most_, in_flight_ + waiting_.size());
}

bool ReadQueue::has_room() const {
  return !is_limited() || in_flight_ < std::max(kTogetherMin, most_) * 3 / 4;
}

IoRequest* ReadQueue::next() {
  if (waiting_.empty() || !has_room()) return nullptr;
  const bool came_back_one_by_one = together_ != 0 && in_flight_ != 0;
  if (came_back_one_by_one) rounds_ = 0;
  together_ = 0;
  IoRequest* read = waiting_.front();
  waiting_.pop_front();
  ++in_flight_;
  return read;
}

void ReadQueue::finished() {
  CHECK(in_flight_ != 0);
  --in_flight_;
  ++together_;
  if (state_ == State::kWatching) {
    if (in_flight_ == 0) round_ended();
  } else if (++finished_ % kReadsPerLook == 0) {
    look_at_clock();
  }
}

void ReadQueue::round_ended() {
  rounds_ = together_ < kTogetherMin ? 0 : rounds_ + 1;
  if (rounds_ < kRounds) return;
  rounds_ = 0;
  const Nanoseconds now = clock_.monotonic();
  if (now >= verdict_until_) enter(State::kMeasuring, now);
}

void ReadQueue::look_at_clock() {
  const Nanoseconds now = clock_.monotonic();
  if (state_ == State::kKept) {
    if (now >= verdict_until_) enter(State::kWatching, now);
  } else if (now - since_ >= kMeasuredFor) {
    if (state_ == State::kTrying) return decide(now);
    rate_before_ = rate(now);
    enter(State::kTrying, now);
  }
}

void ReadQueue::decide(Nanoseconds now) {
  const bool helps = rate(now) >= kSameRate * rate_before_;
  verdict_for_ =
      helps == helped_ ? std::clamp(verdict_for_ * 2, kVerdictMin, kVerdictMax) : kVerdictMin;
  verdict_until_ = now + verdict_for_;
  helped_ = helps;
  enter(helps ? State::kKept : State::kWatching, now);
}

void ReadQueue::enter(State state, Nanoseconds now) {
  // The limit follows what was under way at once before it came.
  if (state == State::kWatching || state == State::kMeasuring) most_ = in_flight_ + waiting_.size();
  state_ = state;
  since_ = now;
  finished_ = rounds_ = 0;
}

double ReadQueue::rate(Nanoseconds now) const {
  return static_cast<double>(finished_) / std::chrono::duration<double>(now - since_).count();
}

}  // namespace tandem::device
