// Clients write while the group is handed over, back and forth: they are held, and then go on where
// they were, or lose their connection unanswered and ask the other node again. None of them ever
// sees an error, and what was acknowledged to them is there, whatever comes in between: the mirror
// is cut off, it refuses, or nobody knows what it did.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed>, with the log if TANDEM_LOG is set.
#include <gtest/gtest.h>

#include "tests/sim/pair_life.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

struct Seen {
  std::size_t handed_over = 0, drain_failed = 0, refused = 0, unknown = 0, held = 0, moved = 0;
};

class Switching : public PairLife {
 public:
  Switching(std::uint64_t seed, Seen& seen) : PairLife(seed), seen_(seen) {}
  ~Switching() {
    stop_ = true;
    world_.until([&] { return clients_ == 0; }, 120s);
  }

  void run(std::size_t rounds) {
    complain(world_.primary().start());
    complain(world_.mirror().start());
    complain(of(world_.primary().create_volume("v", kBlocks * kBlockBytes)));
    complain(of(world_.primary().control().add_mirror({"g", world_.mirror().address(), mode_})));
    level();
    const auto clients = random_.between(1, 6);
    for (std::uint64_t i = 0; i < clients; ++i) spawn(client(i, clients));
    for (round_ = 1; round_ <= rounds && problem_.empty(); ++round_) one_round();
    stop_ = true;
    if (!world_.until([&] { return clients_ == 0; }, 120s)) complain("a client waits for ever");
    level();
    if (problem_.empty()) expect(world_.primary(), "v", acknowledged_);
  }

 private:
  /// As QEMU with a reconnect delay: what is unanswered when the connection ends is asked again,
  /// wherever the volume is served then. Each has blocks of its own.
  Task<void> client(std::uint64_t index, std::uint64_t clients) {
    ++clients_;
    SimRandom random(seed_ * 31 + index);
    std::shared_ptr<Volume> volume;
    while (!stop_ && problem_.empty()) {
      const std::uint64_t block = index + clients * random.below(kBlocks / clients);
      const std::uint32_t stamp = ++stamp_;
      bool answered = false;
      while (!answered && problem_.empty()) {
        if (!volume) volume = serving();
        if (!volume) {
          co_await sleep_for(world_.runtime(), 5ms);
          continue;
        }
        auto asking = ask(*volume, block, stamp, random.below(8));
        answered = co_await std::move(asking);
        if (!answered) volume.reset();
      }
      if (answered) acknowledged_[block] = stamp;
      co_await sleep_for(world_.runtime(), Nanoseconds(random.below(4'000'000)));
    }
    --clients_;
  }
  /// Writes, and sometimes reads back or flushes. False: its connection ended.
  Task<bool> ask(Volume& volume, std::uint64_t block, std::uint32_t stamp, std::uint64_t chance) {
    IoBuffer data = IoBuffer::on_heap(kBlockBytes);
    stamp_block(data, stamp);
    const Nanoseconds before = world_.runtime().now();
    auto writing = volume.write(block * kBlockBytes, data, {.fua = chance == 0});
    const Status written = co_await std::move(writing);
    if (world_.runtime().now() - before > 20s) complain("a write was held for too long");
    if (!written) co_return ended(written.error());
    if (chance == 1) {
      const Status flushed = co_await volume.flush();
      if (!flushed) co_return ended(flushed.error());
    }
    if (chance > 4) co_return true;
    auto read = co_await volume.read(block * kBlockBytes, kBlockBytes);
    if (!read) co_return ended(read.error());
    if (std::memcmp(read->data(), data.data(), kBlockBytes) != 0) complain("it reads what is old");
    co_return true;
  }
  bool ended(const Error& error) {
    ++seen_.moved;
    if (error.code != ErrorCode::kReadOnly)
      complain(std::string("a client was told ") + to_string(error.code) + ": " + error.message);
    return false;
  }
  std::shared_ptr<Volume> serving() {
    for (PairNode* node : {&world_.primary(), &world_.mirror()}) {
      auto volume = node->open_volume("v");
      if (volume) return *volume;
    }
    return nullptr;
  }

  void level() {
    if (!problem_.empty()) return;
    const auto follows = [&] {
      const auto slots = world_.primary().status().slots;
      return !slots.empty() && slots[0].state == "following" && slots[0].missing_records < 50;
    };
    if (!world_.until(follows, 120s)) complain("the mirror does not follow");
  }
  void one_round() {
    PairNode& old = world_.primary();
    PairNode& next = world_.mirror();
    world_.runtime().run_for(Nanoseconds(random_.below(300'000'000)));
    const auto what = random_.below(5);
    old.set_take_over({});
    if (what == 0) old.set_take_over({Error{ErrorCode::kNoSpace, "full"}});
    if (what == 1)
      old.set_take_over({Error{ErrorCode::kUnavailable, "lost"}, random_.chance(1, 2)});
    if (what == 2) spawn(cut_soon(next, Nanoseconds(random_.below(4'000'000))));
    const auto switched = of(old.control().switchover("g", ""));
    old.set_take_over({});
    if (switched) {
      ++seen_.handed_over;
      if (switched->held_ms > 0) ++seen_.held;
      if (old.status().state != "mirroring")
        complain("it hands over, and stays " + old.status().state);
      world_.swap_roles();
    } else {
      failed(old, next, switched.error());
    }
    world_.network().set_reachable(next.address(), true);
    if (problem_.empty()) expect_service(world_.primary());
    follow_again();
    level();
  }
  Task<void> cut_soon(PairNode& node, Nanoseconds pause) {
    co_await sleep_for(world_.runtime(), pause);
    world_.network().set_reachable(node.address(), false);
    world_.network().cut(node.address());
  }
  void failed(PairNode& old, PairNode& next, const Error& error) {
    if (error.code == ErrorCode::kNoSpace) {
      ++seen_.refused;
      if (old.status().state != "serving") complain("refused, and the old one does not serve");
    } else if (old.status().state == "serving") {
      seen_.drain_failed += error.message.find("writes were held") != std::string::npos;
    } else if (next.status().state == "serving") {
      ++seen_.unknown;
      world_.swap_roles();
    } else {
      ++seen_.unknown;  // nobody serves: an operator promotes the one that has everything
      promote(old);
    }
  }
  /// Whoever serves has the other one as its mirror.
  void follow_again() {
    if (!problem_.empty() || !world_.primary().status().slots.empty()) return;
    complain(of(world_.primary().control().add_mirror({"g", world_.mirror().address(), mode_})));
  }

  Seen& seen_;
  Stamps acknowledged_ = Stamps(kBlocks);
  bool stop_ = false;
  std::size_t clients_ = 0;
};

TEST(SwitchoverSim, ClientsSeeAPauseAndNeverAnError) {
  Seen seen;
  for (const std::uint64_t seed : seeds_to_run(1, 30)) {
    SimLog log;
    Switching switching(seed, seen);
    switching.run(6);
    ASSERT_EQ(switching.problem(), "") << "\nreplay with TANDEM_SEED=" << seed << "\n"
                                       << log.text();
  }
  EXPECT_GT(seen.handed_over, 20u);
  EXPECT_GT(seen.held, 10u);
  EXPECT_GT(seen.moved, 20u);
  EXPECT_GT(seen.refused, 5u);
  EXPECT_GT(seen.unknown, 5u);
  EXPECT_GT(seen.drain_failed, 0u);
}

}  // namespace
}  // namespace tandem::sim
