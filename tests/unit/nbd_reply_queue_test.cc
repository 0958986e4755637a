#include "frontend/nbd/reply_queue.h"

#include <gtest/gtest.h>

#include <random>

#include "frontend/nbd/input_buffer.h"

namespace tandem::nbd {
namespace {

Bytes gathered(const ReplyQueue& queue, std::size_t pieces_max, std::size_t bytes_max) {
  std::vector<iovec> pieces(pieces_max);
  const std::size_t count = queue.gather(pieces);
  Bytes out;
  for (std::size_t i = 0; i < count; ++i) {
    const auto* base = static_cast<const std::byte*>(pieces[i].iov_base);
    out.insert(out.end(), base, base + pieces[i].iov_len);
  }
  if (out.size() > bytes_max) out.resize(bytes_max);
  return out;
}

TEST(NbdReplyQueue, HeadsOfNeighboursAreOnePiece) {
  ReplyQueue queue;
  for (int i = 0; i < 32; ++i) {
    append_simple_reply(queue.head(), i, WireError::kNone);
    queue.end_reply(100);
  }
  iovec pieces[8];
  ASSERT_EQ(queue.gather(pieces), 1u);
  EXPECT_EQ(pieces[0].iov_len, 32 * kSimpleReplyBytes);
  const auto part = queue.advance(10);
  EXPECT_EQ(part.requests, 0u);
  const auto rest = queue.advance(32 * kSimpleReplyBytes - 10);
  EXPECT_EQ(rest.requests, 32u);
  EXPECT_EQ(rest.bytes, 3200u);
  EXPECT_TRUE(queue.empty());
}

// Whatever is queued leaves in order and exactly once, however the socket cuts it.
TEST(NbdReplyQueue, RandomRepliesAndRandomSends) {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    std::mt19937 random(seed);
    ReplyQueue queue;
    Bytes wanted;
    Bytes sent;
    std::size_t queued = 0;
    std::size_t charged = 0;
    ReplyQueue::Released released;
    for (int step = 0; step < 2500 || !queue.empty(); ++step) {
      if (step < 2500 && random() % 2 == 0) {
        const std::size_t chunks = random() % 3;
        for (std::size_t i = 0; i <= chunks; ++i) {
          const Bytes head(1 + random() % 40, static_cast<std::byte>(random()));
          queue.head().insert(queue.head().end(), head.begin(), head.end());
          wanted.insert(wanted.end(), head.begin(), head.end());
          if (random() % 2 == 0) {
            IoBuffer payload = IoBuffer::on_heap(1 + random() % 200);
            for (auto& b : payload.bytes()) b = static_cast<std::byte>(random());
            wanted.insert(wanted.end(), payload.bytes().begin(), payload.bytes().end());
            queue.attach(std::move(payload));
          }
        }
        queue.end_reply(7);
        ++queued;
        charged += 7;
      } else if (!queue.empty()) {
        const Bytes part = gathered(queue, 2 + random() % 8, 1 + random() % 500);
        ASSERT_FALSE(part.empty());
        sent.insert(sent.end(), part.begin(), part.end());
        const auto left = queue.advance(part.size());
        released.requests += left.requests;
        released.bytes += left.bytes;
      }
    }
    EXPECT_EQ(sent, wanted) << "seed " << seed;
    EXPECT_EQ(released.requests, queued);
    EXPECT_EQ(released.bytes, charged);
  }
}

TEST(NbdReplyQueue, ClearReleasesWhatHadNotLeft) {
  ReplyQueue queue;
  for (int i = 0; i < 3; ++i) {
    append_simple_reply(queue.head(), i, WireError::kNone);
    queue.attach(IoBuffer::on_heap(100));
    queue.end_reply(100);
  }
  const auto left = queue.advance(kSimpleReplyBytes + 100 + 5);
  EXPECT_EQ(left.requests, 1u);
  const auto dropped = queue.clear();
  EXPECT_EQ(dropped.requests, 2u);
  EXPECT_EQ(dropped.bytes, 200u);
  EXPECT_TRUE(queue.empty());
  append_simple_reply(queue.head(), 9, WireError::kNone);
  queue.end_reply(0);
  EXPECT_EQ(gathered(queue, 4, 100).size(), kSimpleReplyBytes);
}

TEST(NbdInputBuffer, KeepsWhatIsLeftInOnePiece) {
  InputBuffer input(100);
  std::byte next{0};
  std::byte expected{0};
  std::mt19937 random(7);
  for (int step = 0; step < 1000; ++step) {
    auto space = input.space();
    EXPECT_EQ(space.size(), 100 - input.size());
    const std::size_t take = random() % (space.size() + 1);
    for (std::size_t i = 0; i < take; ++i) {
      space[i] = next;
      next = static_cast<std::byte>(static_cast<unsigned>(next) + 1);
    }
    input.commit(take);
    const std::size_t used = random() % (input.size() + 1);
    for (std::size_t i = 0; i < used; ++i) {
      ASSERT_EQ(input.available()[i], expected);
      expected = static_cast<std::byte>(static_cast<unsigned>(expected) + 1);
    }
    input.consume(used);
  }
}

}  // namespace
}  // namespace tandem::nbd
