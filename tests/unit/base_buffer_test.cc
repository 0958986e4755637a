#include "tandem/base/buffer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>
#include <thread>
#include <vector>

namespace tandem {
namespace {

bool inside(const BufferPool& pool, const IoBuffer& buffer) {
  const auto arena = pool.arena();
  return buffer.data() >= arena.data() && buffer.data() < arena.data() + arena.size();
}

TEST(IoBuffer, EmptyAndHeap) {
  const IoBuffer empty;
  EXPECT_TRUE(empty.empty());
  EXPECT_EQ(empty.size(), 0u);
  const IoBuffer buffer = IoBuffer::on_heap(5000);
  EXPECT_EQ(buffer.size(), 5000u);
  EXPECT_FALSE(buffer.is_block_aligned());  // the size is not
  EXPECT_TRUE(IoBuffer::on_heap(8192).is_block_aligned());
}

TEST(IoBuffer, CopiesAndSlicesShareMemory) {
  IoBuffer whole = IoBuffer::on_heap(8192);
  std::memset(whole.data(), 'a', whole.size());
  IoBuffer tail = whole.slice(4096, 4096);
  const IoBuffer copy = whole;
  copy.data()[4096] = std::byte{'b'};
  whole = IoBuffer();
  EXPECT_EQ(tail.data()[0], std::byte{'b'});  // alive though the first reference is gone
  EXPECT_EQ(tail.data()[1], std::byte{'a'});
  EXPECT_TRUE(tail.is_block_aligned());
  EXPECT_FALSE(tail.slice(1, 100).is_block_aligned());
  EXPECT_EQ(tail.slice(4096, 0).size(), 0u);
}

TEST(IoBufferDeathTest, ASliceBeyondTheEndIsABug) {
  const IoBuffer buffer = IoBuffer::on_heap(4096);
  EXPECT_DEATH(buffer.slice(1, 4096), "CHECK");
  EXPECT_DEATH(buffer.slice(4097, 0), "CHECK");
}

TEST(BufferPool, EverySizeIsAlignedAndApart) {
  BufferPool pool(32 << 20);
  std::vector<IoBuffer> held;
  for (std::size_t bytes : {std::size_t{1}, std::size_t{4096}, std::size_t{4097},
                            std::size_t{65536}, std::size_t{1 << 20}}) {
    for (int i = 0; i < 3; ++i) {
      IoBuffer buffer = pool.allocate(bytes);
      ASSERT_EQ(buffer.size(), bytes);
      ASSERT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % kBlockBytes, 0u);
      ASSERT_TRUE(inside(pool, buffer));
      std::memset(buffer.data(), static_cast<int>(held.size()), bytes);
      held.push_back(std::move(buffer));
    }
  }
  for (std::size_t i = 0; i < held.size(); ++i) {
    ASSERT_EQ(held[i].data()[0], static_cast<std::byte>(i));
    ASSERT_EQ(held[i].data()[held[i].size() - 1], static_cast<std::byte>(i));
  }
  EXPECT_EQ(pool.heap_fallbacks(), 0u);
}

TEST(BufferPool, ReusesWhatCameBack) {
  BufferPool pool(1 << 20);
  std::set<std::byte*> places;
  for (int i = 0; i < 1000; ++i) {
    const IoBuffer buffer = pool.allocate(4096);
    places.insert(buffer.data());
  }
  EXPECT_LE(places.size(), 256u);
  EXPECT_EQ(pool.heap_fallbacks(), 0u);
}

TEST(BufferPool, FallsBackToTheHeapWhenUsedUpOrTooLarge) {
  BufferPool pool(1 << 20);
  std::vector<IoBuffer> held;
  for (int i = 0; i < 256; ++i) held.push_back(pool.allocate(4096));
  EXPECT_EQ(pool.heap_fallbacks(), 0u);
  const IoBuffer extra = pool.allocate(4096);
  EXPECT_FALSE(inside(pool, extra));
  EXPECT_TRUE(extra.is_block_aligned());
  const IoBuffer large = pool.allocate((1 << 20) + 1);
  EXPECT_FALSE(inside(pool, large));
  EXPECT_EQ(pool.heap_fallbacks(), 2u);
}

TEST(BufferPool, TheLastReferenceMayBeDroppedOnAnotherThread) {
  BufferPool pool(4 << 20);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      std::vector<IoBuffer> held;
      for (int i = 0; i < 2000; ++i) {
        IoBuffer buffer = pool.allocate(4096u << (random() % 3));
        buffer.data()[0] = static_cast<std::byte>(t);
        held.push_back(buffer.slice(0, 1));
        if (held.size() > 20) held.erase(held.begin());
        ASSERT_EQ(held.back().data()[0], static_cast<std::byte>(t));
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST(BufferPoolDeathTest, MustOutliveItsBuffers) {
  EXPECT_DEATH(
      {
        IoBuffer buffer;
        BufferPool pool(1 << 20);
        buffer = pool.allocate(4096);
        pool.~BufferPool();
      },
      "CHECK");
}

}  // namespace
}  // namespace tandem
