// What copies ask each other beside the records: the right version or a refusal, from the primary
// and from the mirror, bounded in number and in time, and over when the stream is.
#include <gtest/gtest.h>

#include "replication/inquiries.h"
#include "tests/unit/replication_fixture.h"

namespace tandem::replication::testing {
namespace {

using Answer = std::optional<Result<IoBuffer>>;

Task<void> ask_into(const BlockSource& source, BlockVersion version, Answer& out) {
  auto asking = source(version);
  auto got = co_await std::move(asking);
  out = std::move(got);
}

class AskingPair : public Pair {
 public:
  explicit AskingPair(std::uint64_t seed, ReplicationOptions options = test_options())
      : Pair(seed, options) {
    a.serve_to("b", ReplicationMode::kSync);
    write(60);
    EXPECT_TRUE(converge());
    block = a.log.content().begin()->first;
  }
  Result<IoBuffer> ask(TestNode& node, BlockVersion version) {
    Answer answer;
    spawn(ask_into(node.log.block_source(), version, answer));
    EXPECT_TRUE(world.run_until([&] { return answer.has_value(); }, 30s));
    return answer ? std::move(*answer) : Result<IoBuffer>(ErrorCode::kUnavailable, "hangs");
  }
  VolumeBlock block;
};

bool is_right(const Result<IoBuffer>& got, const MemoryLog& log, VolumeBlock block) {
  const IoBuffer right = sim::stamped_block(block, log.content().at(block));
  return got && got->size() == right.size() &&
         std::equal(right.bytes().begin(), right.bytes().end(), got->bytes().begin());
}

TEST(Inquiry, EachSideGetsABlockFromTheOther) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    AskingPair pair(seed);
    const BlockVersion version = pair.a.log.version_of(pair.block);
    EXPECT_TRUE(is_right(pair.ask(pair.a, version), pair.b.log, pair.block));
    EXPECT_EQ(pair.b.log.blocks_found(), 1u);
    EXPECT_TRUE(is_right(pair.ask(pair.b, version), pair.a.log, pair.block));
    EXPECT_EQ(pair.a.log.blocks_found(), 1u);
    EXPECT_TRUE(pair.converge());  // the stream goes on
  }
}

TEST(Inquiry, AnotherVersionIsRefused) {
  AskingPair pair(2);
  const BlockVersion good = pair.a.log.version_of(pair.block);
  BlockVersion other = good;
  other.lsn = good.lsn.next();
  EXPECT_FALSE(pair.ask(pair.a, other));
  other = good;
  other.crc32c ^= 1;
  EXPECT_FALSE(pair.ask(pair.a, other));
  other = good;
  other.block = VolumeBlock{1'000'000};
  const auto answer = pair.ask(pair.b, other);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(pair.a.log.blocks_found() + pair.b.log.blocks_found(), 0u);
}

TEST(Inquiry, DamagedThereTooIsSaidAndNotAskedBack) {
  AskingPair pair(3);
  pair.a.log.lose_block(pair.block);
  pair.b.log.lose_block(pair.block);
  const auto answer = pair.ask(pair.a, pair.a.log.version_of(pair.block));
  ASSERT_FALSE(answer);
  EXPECT_NE(answer.error().message.find("damaged here too"), std::string::npos);
  EXPECT_NE(answer.error().message.find("b:"), std::string::npos) << answer.error().message;
}

TEST(Inquiry, WithoutAPeerItFailsAtOnce) {
  Pair pair(4);
  const auto began = pair.world.now();
  Answer alone, lonely_mirror;
  spawn(ask_into(pair.a.log.block_source(), {}, alone));
  spawn(ask_into(pair.b.log.block_source(), {}, lonely_mirror));
  ASSERT_TRUE(pair.world.run_until([&] { return alone && lonely_mirror; }, 1s));
  EXPECT_EQ(alone->error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(lonely_mirror->error().code, ErrorCode::kUnavailable);
  EXPECT_LT(pair.world.now() - began, 1ms);
}

TEST(Inquiry, ManyAtOnceInBothDirectionsUnderLoad) {
  for (std::uint64_t seed = 11; seed <= 15; ++seed) {
    AskingPair pair(seed);
    const BlockVersion version = pair.a.log.version_of(pair.block);
    Guest guest(pair.world, pair.a);
    guest.write(300);
    std::vector<Answer> answers(4 * Inquiries::kAsksMax);
    for (std::size_t i = 0; i < answers.size(); ++i) {
      spawn(ask_into((i % 2 == 0 ? pair.a : pair.b).log.block_source(), version, answers[i]));
    }
    const auto all_in = [&] {
      return std::all_of(answers.begin(), answers.end(), [](const Answer& a) { return a; });
    };
    ASSERT_TRUE(pair.run_checked([&] { return all_in() && guest.done(); })) << "seed " << seed;
    // The block may have been overwritten since; what came is never wrong.
    for (const Answer& answer : answers) {
      EXPECT_TRUE(*answer || answer->error().message.find("another version") != std::string::npos)
          << answer->error().message;
    }
    EXPECT_TRUE(pair.converge());
  }
}

TEST(Inquiry, EndsWithTheStream) {
  for (std::uint64_t seed = 21; seed <= 40; ++seed) {
    AskingPair pair(seed);
    const BlockVersion version = pair.a.log.version_of(pair.block);
    std::vector<Answer> answers(3 * Inquiries::kAsksMax);
    for (auto& answer : answers) {
      spawn(ask_into((&answer - answers.data()) % 2 == 0 ? pair.a.log.block_source()
                                                         : pair.b.log.block_source(),
                     version, answer));
    }
    pair.world.run_for(Nanoseconds(pair.world.random().below(400'000)));
    pair.network.cut("b");
    ASSERT_TRUE(pair.world.run_until(
        [&] {
          return std::all_of(answers.begin(), answers.end(), [](const Answer& a) { return a; });
        },
        1s))
        << "seed " << seed;
    EXPECT_TRUE(pair.converge());
  }
}

TEST(Inquiry, ASilentPeerCostsTheTimeLimitAndNoMore) {
  auto options = test_options();
  options.timeout = 60s;  // so that the stream itself lasts
  options.inquiry_timeout = 700ms;
  AskingPair pair(5, options);
  pair.network.swallow("b");
  std::vector<Answer> answers(2 * Inquiries::kAsksMax);  // some wait for room only
  const auto began = pair.world.now();
  for (auto& answer : answers) {
    spawn(ask_into(pair.a.log.block_source(), pair.a.log.version_of(pair.block), answer));
  }
  ASSERT_TRUE(pair.world.run_until(
      [&] {
        return std::all_of(answers.begin(), answers.end(), [](const Answer& a) { return a; });
      },
      5s));
  EXPECT_GE(pair.world.now() - began, 700ms);
  EXPECT_LT(pair.world.now() - began, 1s);
  for (const Answer& answer : answers) EXPECT_EQ(answer->error().code, ErrorCode::kUnavailable);
}

TEST(Inquiry, StoppingANodeFailsWhatItsStoreWaitsFor) {
  AskingPair pair(6);
  pair.network.swallow("b");
  Answer answer;
  spawn(ask_into(pair.a.log.block_source(), pair.a.log.version_of(pair.block), answer));
  pair.world.run_for(10ms);
  EXPECT_FALSE(answer);
  pair.a.stop();
  EXPECT_TRUE(answer);
  EXPECT_FALSE(pair.a.log.block_source());
}

TEST(Inquiry, TheSecondMirrorIsAskedWhenTheFirstCannotHelp) {
  Pair pair(7);
  TestNode c(pair.world, pair.network, "c", Role::kMirror);
  pair.a.serve_to("b", ReplicationMode::kSync);
  ASSERT_TRUE(pair.a.replication->add_slot({.address = "c", .mode = ReplicationMode::kSync}));
  pair.write(40);
  ASSERT_TRUE(
      pair.world.run_until([&] { return pair.equal() && c.log.head() == pair.a.log.head(); }, 60s));
  const VolumeBlock block = pair.a.log.content().begin()->first;
  pair.b.log.lose_block(block);
  Answer answer;
  spawn(ask_into(pair.a.log.block_source(), pair.a.log.version_of(block), answer));
  ASSERT_TRUE(pair.world.run_until([&] { return answer.has_value(); }, 5s));
  EXPECT_TRUE(is_right(*answer, pair.a.log, block));
  EXPECT_EQ(c.log.blocks_found(), 1u);
}

}  // namespace
}  // namespace tandem::replication::testing
