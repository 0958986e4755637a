// tandem mirror seed against a node that is played: what is sent, in which order, and when not.
#include <stdlib.h>

#include <deque>
#include <mutex>

#include "backup/repository.h"
#include "tests/unit/ctl_fixture.h"

namespace tandem::ctl {
namespace {

/// A mirror that answers as it is told.
struct FakeMirror {
  std::mutex mutex;  // what keeps it alive comes from a thread
  std::deque<Message> answers;
  std::vector<std::string> got;
  message::Hello hello;
  message::ImageBegin begin;
  std::vector<message::ImageEntry> entries;
  Lsn copy_ends;               // what it has already
  std::optional<Error> fails;  // the stream, from the first message on
};

class FakeStream final : public rpc::StreamClient {
 public:
  explicit FakeStream(FakeMirror& mirror) : mirror_(mirror) {}
  const std::string& address() const override { return address_; }
  Status send(Message message) override {
    std::lock_guard lock(mirror_.mutex);
    if (mirror_.fails) return *mirror_.fails;
    const auto* none = std::get_if<message::ImageBlocks>(&message);
    if (none != nullptr && none->entries.empty()) return ok();
    if (const auto* hello = std::get_if<message::Hello>(&message)) {
      mirror_.got.push_back("hello");
      mirror_.hello = *hello;
      message::Welcome welcome;
      welcome.head.lsn = mirror_.copy_ends;
      mirror_.answers.push_back(welcome);
    } else if (const auto* start = std::get_if<message::Start>(&message)) {
      mirror_.got.push_back(start->from_image && start->after == Lsn{0} ? "start" : "?");
    } else if (const auto* begin = std::get_if<message::ImageBegin>(&message)) {
      mirror_.got.push_back("begin");
      mirror_.begin = *begin;
    } else if (const auto* blocks = std::get_if<message::ImageBlocks>(&message)) {
      mirror_.got.push_back("blocks");
      mirror_.entries.insert(mirror_.entries.end(), blocks->entries.begin(), blocks->entries.end());
    } else if (const auto* end = std::get_if<message::ImageEnd>(&message)) {
      mirror_.got.push_back("end");
      mirror_.answers.push_back(message::Ack{end->point.lsn, end->point.lsn, Lsn{}});
      mirror_.answers.push_back(message::Ack{end->point.lsn, end->point.lsn, end->point.lsn});
    }
    return ok();
  }
  Result<std::optional<Message>> receive(std::chrono::milliseconds) override {
    std::lock_guard lock(mirror_.mutex);
    if (mirror_.answers.empty()) {
      if (mirror_.fails) return *mirror_.fails;
      return std::optional<Message>{};
    }
    std::optional<Message> first(std::move(mirror_.answers.front()));
    mirror_.answers.pop_front();
    return first;
  }

 private:
  FakeMirror& mirror_;
  const std::string address_ = "b:1";
};

class SeedCommand : public CommandTest {
 protected:
  SeedCommand() {
    std::string pattern = testing::TempDir() + "/tandem-seed-XXXXXX";
    directory = ::mkdtemp(pattern.data());
    open_stream = [this](const std::string&, std::chrono::milliseconds) -> Result<Stream> {
      return Stream(std::make_unique<FakeStream>(mirror));
    };
    nodes["b:1"].status.groups.clear();
    make_backup();
  }
  ~SeedCommand() override { std::filesystem::remove_all(directory); }

  /// One volume of three blocks, of which the second is zero.
  void make_backup() {
    auto repository = backup::Repository::open(directory, true);
    ASSERT_TRUE(repository);
    backup::Manifest plan;
    plan.group = "vms";
    plan.group_id = kGroup;
    plan.node = "alpha";
    plan.snapshot = {"backup-1", Lsn(300), UtcNs(5)};
    plan.seed = SeedPoint{.point = {Timeline(1), Lsn(300), Digest(9), UtcNs(5), 8192},
                          .history = {{Timeline(1), Lsn(0), UtcNs(1)}},
                          .next_volume_id = 2,
                          .volumes = {{VolumeId(1), "disk", 3 * kBlockBytes, 512}}};
    backup::VolumePart part;
    part.name = "disk";
    part.size_bytes = 3 * kBlockBytes;
    part.file = "volume-1.data";
    plan.volumes = {part};
    ASSERT_TRUE(repository->begin(plan));
    auto writer = backup::ChunkWriter::open(repository->plan_path() / part.file, 0);
    ASSERT_TRUE(writer);
    const std::vector<std::byte> block(kBlockBytes, std::byte{7});
    ASSERT_TRUE((*writer)->data(0, block));
    ASSERT_TRUE((*writer)->zeroes(kBlockBytes, kBlockBytes));
    ASSERT_TRUE((*writer)->data(2 * kBlockBytes, block));
    plan.volumes[0].summary = *(*writer)->finish();
    ASSERT_TRUE(repository->commit(plan));
  }
  int seed() { return at_b("mirror seed " + directory.string()); }

  static constexpr const char* kGroup = "0c5aa1f4-0000-4000-8000-000000000001";
  std::filesystem::path directory;
  FakeMirror mirror;
};

TEST_F(SeedCommand, PlaysThePrimaryAsOfThePoint) {
  ASSERT_EQ(seed(), 0) << err.str();
  EXPECT_EQ(mirror.got, (Calls{"hello", "start", "begin", "blocks", "end"}));
  EXPECT_EQ(mirror.hello.identity.group.text(), kGroup);
  EXPECT_EQ(mirror.hello.identity.name, "vms");
  EXPECT_EQ(mirror.hello.role, Role::kPrimary);
  EXPECT_EQ(mirror.hello.head, mirror.begin.point);
  EXPECT_EQ(mirror.begin.point.digest, Digest(9));
  ASSERT_EQ(mirror.entries.size(), 2u);
  EXPECT_EQ(mirror.entries[1].block, VolumeBlock{2});
  EXPECT_EQ(mirror.entries[1].lsn, Lsn(300));
  EXPECT_TRUE(says("tandem mirror add vms b:1"));
  ASSERT_EQ(at_b("--json mirror seed " + directory.string()), 0);
  EXPECT_EQ(json()["data_bytes"], 8192);
  EXPECT_EQ(json()["lsn"], 300);
}

TEST_F(SeedCommand, WhatIsThereAlreadyIsLeftAlone) {
  auto& groups = nodes["b:1"].status.groups;
  GroupStatus copy;
  copy.name = "vms";
  copy.id = *Uuid::parse(kGroup);
  copy.role = Role::kMirror;
  groups = {copy};  // empty: a run was interrupted
  EXPECT_EQ(seed(), 0) << err.str();
  mirror.got.clear();
  groups[0].head.lsn = Lsn(7);
  EXPECT_EQ(seed(), 1);
  EXPECT_TRUE(complains("has a copy of group vms already"));
  groups[0].id = Uuid::from_random(1, 2);
  EXPECT_EQ(seed(), 1);
  EXPECT_TRUE(complains("another group of the name vms"));
  EXPECT_TRUE(mirror.got.empty());
  groups.clear();
  mirror.copy_ends = Lsn(7);
  EXPECT_EQ(seed(), 1);
  EXPECT_EQ(mirror.got, (Calls{"hello"}));
}

TEST_F(SeedCommand, AFailureSaysWhyAndThatNothingIsInstalled) {
  mirror.fails = Error{ErrorCode::kRefused, "the certificate of op is an operator's"};
  EXPECT_EQ(seed(), 4);
  EXPECT_TRUE(complains("give --certificate and --key of the node"));
  EXPECT_TRUE(complains("nothing was installed at node beta"));
  mirror.fails.reset();
  mirror.answers.push_back(message::Refuse{ErrorCode::kBusy, "another streams", {}});
  EXPECT_EQ(seed(), 1);
  EXPECT_TRUE(complains("another streams"));
  EXPECT_EQ(mirror.got, (Calls{"hello"}));
}

TEST_F(SeedCommand, OneNodeIsNamed) {
  EXPECT_EQ(both("mirror seed " + directory.string()), 2);
  EXPECT_EQ(at_b("mirror seed " + (directory / "none").string()), 5);
  EXPECT_EQ(at_b("mirror seed --point 4 " + directory.string()), 5);
  EXPECT_TRUE(mirror.got.empty());
}

}  // namespace
}  // namespace tandem::ctl
