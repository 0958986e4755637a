#include <gtest/gtest.h>

#include <cerrno>
#include <deque>
#include <optional>

#include "tandem/base/buffer.h"
#include "tandem/port/block_device.h"

namespace tandem {
namespace {

/// Completes requests when the test says so.
class ManualDevice final : public BlockDevice {
 public:
  void submit(IoRequest& request) override { waiting.push_back(&request); }
  std::uint64_t size_bytes() const override { return 1 << 20; }
  std::string name() const override { return "manual"; }
  void complete(std::size_t index, int error) {
    IoRequest& request = *waiting.at(index);
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(index));
    request.error = error;
    request.complete(request);
  }
  std::deque<IoRequest*> waiting;
};

Task<void> run_batch(IoBatch& batch, std::optional<Status>& outcome) {
  Status status = co_await batch.run();
  outcome = std::move(status);
}

TEST(IoBatch, WaitsForAllInAnyOrder) {
  ManualDevice device;
  const IoBuffer buffer = IoBuffer::on_heap(8192);
  IoBatch batch(device);
  batch.write(4096, buffer.bytes());
  batch.read(0, buffer.bytes().first(4096));
  batch.zero(8192, 4096);
  batch.discard(12288, 4096);
  batch.flush();
  std::optional<Status> outcome;
  spawn(run_batch(batch, outcome));
  ASSERT_EQ(device.waiting.size(), 5u);
  EXPECT_EQ(device.waiting[0]->offset, 4096u);
  EXPECT_EQ(device.waiting[0]->buffer.size(), 8192u);
  EXPECT_EQ(device.waiting[2]->length, 4096u);
  for (int i = 4; i >= 0; --i) {
    EXPECT_FALSE(outcome.has_value());
    device.complete(static_cast<std::size_t>(i), 0);
  }
  ASSERT_TRUE(outcome.has_value());
  EXPECT_TRUE(outcome->has_value());
}

TEST(IoBatch, TheFirstErrorWinsAndNamesTheRequest) {
  ManualDevice device;
  const IoBuffer buffer = IoBuffer::on_heap(4096);
  IoBatch batch(device);
  batch.read(0, buffer.bytes());
  batch.write(4096, buffer.bytes());
  batch.write(8192, buffer.bytes());
  std::optional<Status> outcome;
  spawn(run_batch(batch, outcome));
  device.complete(2, EIO);
  device.complete(0, 0);
  EXPECT_FALSE(outcome.has_value());
  device.complete(0, ENOSPC);
  ASSERT_TRUE(outcome.has_value() && !outcome->has_value());
  EXPECT_EQ(outcome->error().code, ErrorCode::kNoSpace);
  EXPECT_NE(outcome->error().message.find("manual: write of 4096 bytes at 4096"),
            std::string::npos);
  EXPECT_EQ(batch.error_of(0), 0);
  EXPECT_EQ(batch.error_of(1), ENOSPC);
  EXPECT_EQ(batch.error_of(2), EIO);
}

TEST(IoBatch, AnEmptyOneIsDoneAtOnce) {
  ManualDevice device;
  IoBatch batch(device);
  EXPECT_TRUE(batch.empty());
  std::optional<Status> outcome;
  spawn(run_batch(batch, outcome));
  ASSERT_TRUE(outcome.has_value());
  EXPECT_TRUE(outcome->has_value());
}

}  // namespace
}  // namespace tandem
