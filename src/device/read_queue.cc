#include "device/read_queue.h"

#include <algorithm>

#include "tandem/base/check.h"

namespace tandem::device {
namespace {

/// Fewer reads at once are worth no trial.
constexpr std::size_t kTogetherMin = 8;
/// So many rounds are no accident.
constexpr std::size_t kRounds = 16;
/// Reads are counted without the limit and with it, so often each, for so long.
constexpr int kTurns = 3;
constexpr Nanoseconds kTurn = std::chrono::milliseconds(50);
/// Rates differ by as much without a reason.
constexpr double kSameRate = 0.95;
constexpr Nanoseconds kVerdictMin = std::chrono::seconds(2);
constexpr Nanoseconds kVerdictMax = std::chrono::seconds(10);
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
  if (now < verdict_until_) return;
  without_ = with_ = {};
  turns_ = 0;
  most_ = 0;
  enter(State::kWithout, now);
}

void ReadQueue::look_at_clock() {
  const Nanoseconds now = clock_.monotonic();
  if (state_ == State::kKept) {
    if (now >= verdict_until_) enter(State::kWatching, now);
  } else if (now - since_ >= kTurn) {
    end_turn(now);
  }
}

void ReadQueue::end_turn(Nanoseconds now) {
  Tally& tally = state_ == State::kWith ? with_ : without_;
  tally.reads += finished_;
  tally.time += now - since_;
  if (state_ == State::kWithout) return enter(State::kWith, now);
  if (++turns_ < kTurns) return enter(State::kWithout, now);
  decide(now);
}

void ReadQueue::decide(Nanoseconds now) {
  const bool helps = with_.rate() >= kSameRate * without_.rate();
  verdict_for_ =
      helps == helped_ ? std::clamp(verdict_for_ * 2, kVerdictMin, kVerdictMax) : kVerdictMin;
  verdict_until_ = now + verdict_for_;
  helped_ = helps;
  enter(helps ? State::kKept : State::kWatching, now);
}

void ReadQueue::enter(State state, Nanoseconds now) {
  state_ = state;
  since_ = now;
  finished_ = rounds_ = 0;
}

double ReadQueue::Tally::rate() const {
  return static_cast<double>(reads) / std::chrono::duration<double>(time).count();
}

}  // namespace tandem::device
