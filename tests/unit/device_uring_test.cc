#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "device/reactor.h"
#include "device/uring_device.h"

namespace tandem::device {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

class DeviceTest : public ::testing::Test {
 protected:
  DeviceTest() {
    std::string pattern = ::testing::TempDir() + "/tandem-device-XXXXXX";
    const char* made = ::mkdtemp(pattern.data());
    EXPECT_NE(made, nullptr);
    directory_ = made;
    auto reactor = Reactor::create();
    EXPECT_TRUE(reactor) << reactor.error().message;
    reactor_ = std::move(*reactor);
  }
  ~DeviceTest() override { std::filesystem::remove_all(directory_); }

  std::string path(const char* name = "pool") const { return directory_ + "/" + name; }
  Result<std::unique_ptr<BlockDevice>> open(DeviceOptions options) {
    if (options.path.empty()) options.path = path();
    return open_device(*reactor_, buffers_, options);
  }
  std::unique_ptr<BlockDevice> create(std::uint64_t size_bytes = 8 * kMiB, bool direct = true) {
    auto device =
        open({.path = path(), .create = true, .size_bytes = size_bytes, .direct = direct});
    EXPECT_TRUE(device) << device.error().message;
    return std::move(*device);
  }
  IoBuffer filled(std::size_t bytes, int seed) {
    IoBuffer buffer = buffers_.allocate(bytes);
    for (std::size_t i = 0; i < bytes; ++i) {
      buffer.data()[i] = static_cast<std::byte>((i / 512 + i + 7 * seed) & 0xff);
    }
    return buffer;
  }
  static bool is_all(std::span<const std::byte> bytes, int value) {
    return std::all_of(bytes.begin(), bytes.end(),
                       [&](std::byte b) { return b == static_cast<std::byte>(value); });
  }
  std::uint64_t allocated_bytes() const {
    struct stat at {};
    EXPECT_EQ(::stat(path().c_str(), &at), 0);
    return static_cast<std::uint64_t>(at.st_blocks) * 512;
  }
  // Named coroutines: a capturing lambda would die before its coroutine.
  static Task<Status> run_batch(IoBatch& batch) { co_return co_await batch.run(); }
  Status run(IoBatch& batch) { return reactor_->wait_for(run_batch(batch)); }
  Status write(BlockDevice& device, std::uint64_t at, const IoBuffer& from) {
    IoBatch batch(device);
    batch.write(at, from.bytes());
    return run(batch);
  }
  IoBuffer read(BlockDevice& device, std::uint64_t at, std::size_t bytes) {
    IoBuffer into = buffers_.allocate(bytes);
    std::memset(into.data(), 0xee, bytes);
    IoBatch batch(device);
    batch.read(at, into.bytes());
    const Status done = run(batch);
    EXPECT_TRUE(done) << done.error().message;
    return into;
  }

  std::string directory_;
  BufferPool buffers_{16 * kMiB};
  std::unique_ptr<Reactor> reactor_;
};

bool same(const IoBuffer& a, const IoBuffer& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

TEST_F(DeviceTest, ReadsWhatWasWrittenAlsoAfterReopening) {
  const IoBuffer small = filled(4096, 1);
  const IoBuffer large = filled(3 * kMiB, 2);  // larger than a slab: heap memory, not registered
  {
    auto device = create();
    EXPECT_EQ(device->size_bytes(), 8 * kMiB);
    EXPECT_EQ(device->name(), path());
    IoBatch batch(*device);
    batch.write(4096, small.bytes());
    batch.write(kMiB, large.bytes());
    ASSERT_TRUE(run(batch));
    IoBatch flush(*device);
    flush.flush();
    ASSERT_TRUE(run(flush));
  }
  auto device = open({});
  ASSERT_TRUE(device) << device.error().message;
  EXPECT_TRUE(same(read(**device, 4096, 4096), small));
  EXPECT_TRUE(same(read(**device, kMiB, 3 * kMiB), large));
  EXPECT_TRUE(is_all(read(**device, 0, 4096).bytes(), 0));
}

TEST_F(DeviceTest, WorksWithoutDirectIo) {
  auto device = create(kMiB, false);
  const IoBuffer data = filled(64 << 10, 3);
  ASSERT_TRUE(write(*device, 8192, data));
  EXPECT_TRUE(same(read(*device, 8192, data.size()), data));
}

TEST_F(DeviceTest, NewFilesAreSparse) {
  auto device = create(std::uint64_t{1} << 34);
  EXPECT_EQ(device->size_bytes(), std::uint64_t{1} << 34);
  EXPECT_LT(allocated_bytes(), kMiB);
}

TEST_F(DeviceTest, ZeroAllocatesAndDiscardGivesBack) {
  auto device = create();
  ASSERT_TRUE(write(*device, 0, filled(kMiB, 4)));
  IoBatch zero(*device);
  zero.zero(0, 4 * kMiB + 8192);  // more than one piece, and a rest
  ASSERT_TRUE(run(zero));
  EXPECT_GE(allocated_bytes(), 4 * kMiB);
  EXPECT_TRUE(is_all(read(*device, 0, kMiB).bytes(), 0));
  EXPECT_TRUE(is_all(read(*device, 4 * kMiB, 8192).bytes(), 0));
  IoBatch discard(*device);
  discard.discard(0, 4 * kMiB);
  ASSERT_TRUE(run(discard));
  EXPECT_LT(allocated_bytes(), kMiB);
}

TEST_F(DeviceTest, ManyMoreRequestsThanTheRingHolds) {
  auto reactor = Reactor::create({.ring_entries = 8});
  ASSERT_TRUE(reactor);
  auto device =
      open_device(**reactor, buffers_, {.path = path(), .create = true, .size_bytes = 8 * kMiB});
  ASSERT_TRUE(device);
  constexpr int kBlocks = 2048;
  const IoBuffer data = filled(kMiB, 5);
  {
    IoBatch batch(**device);
    for (int i = 0; i < kBlocks; ++i) {
      batch.write(4096ull * i, data.bytes().subspan(4096ull * (i % 256), 4096));
    }
    const Status done = (*reactor)->wait_for(run_batch(batch));
    ASSERT_TRUE(done) << done.error().message;
  }
  IoBuffer back = buffers_.allocate(kMiB);
  IoBatch batch(**device);
  for (int i = 0; i < 256; ++i) {
    batch.read(7 * kMiB + 4096ull * i, back.bytes().subspan(4096ull * i, 4096));
  }
  ASSERT_TRUE((*reactor)->wait_for(run_batch(batch)));
  EXPECT_TRUE(same(back, data));
  device->reset();
}

struct Watched : IoRequest {
  bool completed = false;
  static void on_complete(IoRequest& request) { static_cast<Watched&>(request).completed = true; }
};

TEST_F(DeviceTest, NeverCompletesWithinSubmit) {
  auto device = create(kMiB, false);
  IoBuffer into = buffers_.allocate(4096);
  Watched request;
  request.kind = IoRequest::Kind::kRead;
  request.buffer = into.bytes();
  request.complete = &Watched::on_complete;
  device->submit(request);
  EXPECT_FALSE(request.completed);
  reactor_->run_until(request.completed);
  EXPECT_EQ(request.error, 0);
}

// A completion that submits the next request at once, a long chain of them.
struct Chain : IoRequest {
  BlockDevice* device = nullptr;
  int left = 0;
  bool done = false;
  static void step(IoRequest& request) {
    auto& chain = static_cast<Chain&>(request);
    EXPECT_EQ(chain.error, 0);
    if (--chain.left == 0) {
      chain.done = true;
      return;
    }
    chain.device->submit(chain);
  }
};

TEST_F(DeviceTest, RequestsMayBeSubmittedFromCompletions) {
  auto device = create();
  IoBuffer data = filled(4096, 6);
  Chain chain;
  chain.kind = IoRequest::Kind::kWrite;
  chain.buffer = data.bytes();
  chain.complete = &Chain::step;
  chain.device = device.get();
  chain.left = 200;
  device->submit(chain);
  reactor_->run_until(chain.done);
  EXPECT_EQ(chain.left, 0);
}

TEST_F(DeviceTest, AFileCutBehindOurBackIsAnIoError) {
  auto device = create();
  ASSERT_EQ(::truncate(path().c_str(), static_cast<off_t>(kMiB + 4096)), 0);
  IoBuffer into = buffers_.allocate(8192);
  IoBatch across(*device);
  across.read(kMiB, into.bytes());  // the first block is there, the second is not
  const Status done = run(across);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kIo);
  EXPECT_EQ(across.error_of(0), EIO);
}

TEST_F(DeviceTest, AFileSizeLimitIsAnErrorNotASignal) {
  auto device = create();
  // SIGXFSZ ends a process that ignores nothing; the daemon ignores it, and so does this test.
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = kMiB;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status refused = write(*device, 2 * kMiB, filled(4096, 7));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kIo);
  EXPECT_TRUE(write(*device, 2 * kMiB, filled(4096, 7)));
}

TEST_F(DeviceTest, ASecondOpenIsRefusedAndNamesTheHolder) {
  auto device = create();
  auto second = open({});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kBusy);
  EXPECT_NE(second.error().message.find("in use by another daemon"), std::string::npos);
  EXPECT_NE(second.error().message.find(std::to_string(::getpid())), std::string::npos)
      << second.error().message;
  auto reader = open({.read_only = true});
  EXPECT_FALSE(reader);
  device.reset();
  EXPECT_TRUE(open({}));
}

TEST_F(DeviceTest, ReadersShareAndMayNotWrite) {
  create();
  auto one = open({.read_only = true});
  auto two = open({.read_only = true});
  ASSERT_TRUE(one);
  ASSERT_TRUE(two);
  IoBatch batch(**one);
  const IoBuffer data = filled(4096, 8);
  batch.write(0, data.bytes());
  EXPECT_FALSE(run(batch));
  EXPECT_EQ(batch.error_of(0), EROFS);
  EXPECT_TRUE(is_all(read(**two, 0, 4096).bytes(), 0));
}

TEST_F(DeviceTest, CreateOverwritesNothing) {
  { std::ofstream(path()) << "precious"; }
  auto device = open({.create = true, .size_bytes = kMiB});
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().code, ErrorCode::kExists);
  std::string content;
  std::ifstream(path()) >> content;
  EXPECT_EQ(content, "precious");
  ASSERT_EQ(::truncate(path().c_str(), 0), 0);
  EXPECT_TRUE(open({.create = true, .size_bytes = kMiB}));
}

TEST_F(DeviceTest, RefusesWhatCannotBeAPool) {
  EXPECT_EQ(open({}).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(open({.path = path("none/pool"), .create = true, .size_bytes = kMiB}).error().code,
            ErrorCode::kNotFound);
  EXPECT_EQ(open({.path = directory_}).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(open({.path = "/dev/null"}).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(open({.create = true, .size_bytes = 4097}).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(open({.create = true}).error().code, ErrorCode::kInvalid);
  EXPECT_FALSE(std::filesystem::exists(path())) << "a refused creation leaves nothing behind";
  // Larger than any ext4, XFS or tmpfs file may be.
  auto huge = open({.create = true, .size_bytes = (std::uint64_t{1} << 63) - 4096});
  ASSERT_FALSE(huge);
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(DeviceTest, GoesOnWithoutPinnedBuffers) {
  // Root may pin whatever it likes, so take the other way out: a second arena on the same ring.
  auto device = create();
  BufferPool others(2 * kMiB);
  {
    auto second =
        open_device(*reactor_, others, {.path = path("other"), .create = true, .size_bytes = kMiB});
    ASSERT_TRUE(second) << second.error().message;
    const IoBuffer data = others.allocate(4096);
    std::memset(data.data(), 0x5a, data.size());
    ASSERT_TRUE(write(**second, 0, data));
    EXPECT_TRUE(is_all(read(**second, 0, 4096).bytes(), 0x5a));
  }
}

TEST_F(DeviceTest, AReadBeyondTheEndIsAnError) {
  auto device = create(kMiB);
  const IoBuffer data = filled(8192, 9);
  for (const std::uint64_t at : {kMiB - 4096, kMiB, std::uint64_t{1} << 52}) {
    IoBatch batch(*device);
    batch.read(at, data.bytes());
    const Status done = run(batch);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::kIo);
  }
}

using DeviceDeathTest = DeviceTest;

TEST_F(DeviceDeathTest, MisuseStopsTheProcess) {
  auto device = create(kMiB);
  const IoBuffer data = filled(8192, 9);
  Watched request;
  request.kind = IoRequest::Kind::kWrite;
  request.complete = &Watched::on_complete;
  request.buffer = data.bytes().subspan(512, 4096);
  EXPECT_DEATH(device->submit(request), "CHECK");
  request.buffer = data.bytes().first(512);
  EXPECT_DEATH(device->submit(request), "CHECK");
  request.buffer = data.bytes();
  request.offset = 512;
  EXPECT_DEATH(device->submit(request), "CHECK");
  request.offset = kMiB - 4096;
  EXPECT_DEATH(device->submit(request), "CHECK");
}

}  // namespace
}  // namespace tandem::device
