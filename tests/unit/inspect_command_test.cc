// tandem-inspect's command line on a real file.
#include "inspect/command.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/unit/inspect_fixture.h"

namespace tandem::inspect {
namespace {

using Json = nlohmann::json;

class Command : public testing::Test {
 protected:
  Command() : image_(PoolLife::kDiskBytes) {
    PoolLife life(11);
    EXPECT_TRUE(life.open().has_value());
    EXPECT_TRUE(life.make_group("shop").has_value());
    const Status made = life.world.run(life.group()->create_volume("disk", 4 << 20, 512));
    EXPECT_TRUE(made.has_value()) << made.error().message;
    life.group()->set_log_hold(Lsn{0});
    write(life, 3);
    EXPECT_TRUE(life.world.run(life.group()->checkpoint()).has_value());
    write(life, 4);
    EXPECT_TRUE(life.world.run(life.group()->flush_local()).has_value());
    image_ = life.now();
    const char* folder = std::getenv("TMPDIR");
    std::string name = std::string(folder != nullptr ? folder : "/tmp") + "/inspect-XXXXXX";
    fd_ = ::mkstemp(name.data());
    EXPECT_GE(fd_, 0);
    path_ = name;
    store(image_);
  }
  ~Command() override {
    ::close(fd_);
    ::unlink(path_.c_str());
  }
  static void write(PoolLife& life, std::uint64_t block) {
    auto volume = life.group()->open_volume("disk");
    ASSERT_TRUE(volume.has_value());
    IoBuffer data = IoBuffer::on_heap(2 * kBlockBytes);
    std::memset(data.data(), static_cast<int>(block), data.size());
    const Status done = life.world.run((*volume)->write(block * kBlockBytes, data, {}));
    EXPECT_TRUE(done.has_value());
  }
  void store(const sim::SimImage& image) const {
    std::vector<std::byte> bytes(image.size_bytes());
    image.read(0, bytes);
    ASSERT_EQ(::pwrite(fd_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }

  Exit run(std::vector<std::string> arguments) {
    out_.str("");
    err_.str("");
    arguments.insert(arguments.begin(), path_);
    return run_command(arguments, out_, err_, false);
  }
  /// What a command prints with --json; it must succeed.
  Json json(std::vector<std::string> arguments) {
    arguments.push_back("--json");
    EXPECT_EQ(run(std::move(arguments)), Exit::kSound) << err_.str();
    return Json::parse(out_.str());
  }

  sim::SimImage image_;
  int fd_ = -1;
  std::string path_;
  std::ostringstream out_, err_;
};

TEST_F(Command, ShowsThePoolsPlaces) {
  const Json superblock = json({"superblock"});
  EXPECT_EQ(superblock["bytes"], PoolLife::kDiskBytes);
  EXPECT_EQ(superblock["zone_bytes"], 256 << 10);
  EXPECT_EQ(superblock["copies"], Json({"whole, counts", "whole"}));
  const Json zones = json({"zones"});
  std::uint64_t counted = 0;
  for (const auto& run : zones["runs"]) counted += run["count"].get<std::uint64_t>();
  EXPECT_EQ(counted, zones["end"].get<std::uint64_t>() - zones["first"].get<std::uint64_t>());
  const Json groups = json({"groups"});
  ASSERT_EQ(groups["groups"].size(), 1u);
  EXPECT_EQ(groups["groups"][0]["name"], "shop");
  EXPECT_EQ(groups["groups"][0]["volumes"][0]["name"], "disk");
  EXPECT_EQ(groups["groups"][0]["volumes"][0]["allocated_blocks"], 2);
}

TEST_F(Command, ShowsTheLogInFrontOfAndBehindTheCheckpoint) {
  const Json log = json({"log"});
  ASSERT_EQ(log["records"].size(), 3u);
  EXPECT_EQ(log["records"][0]["type"], "volume-create");
  EXPECT_EQ(log["records"][1]["type"], "write");
  EXPECT_EQ(log["records"][1]["behind_checkpoint"], false);
  EXPECT_EQ(log["records"][2]["behind_checkpoint"], true);
  EXPECT_EQ(log["head"]["lsn"], 3);
  EXPECT_EQ(json({"log", "--from", "2", "--limit", "1"})["records"][0]["lsn"], 2);
  EXPECT_EQ(json({"log", "--from", "2", "--limit", "1"})["records"].size(), 1u);
  EXPECT_TRUE(json({"log", "--from", "99"})["records"].empty());
}

TEST_F(Command, ShowsTheMapAndOneBlock) {
  const Json map = json({"map", "--volume", "disk"});
  ASSERT_EQ(map["runs"].size(), 1u);
  EXPECT_EQ(map["runs"][0]["block"], 3);
  EXPECT_EQ(map["runs"][0]["count"], 2);
  // Block 4 was written at the checkpoint and once more behind it.
  const Json block = json({"block", "--group", "shop", "--volume", "disk", "--block", "4"});
  EXPECT_EQ(block["path"].size(), 2u);
  EXPECT_EQ(block["at_checkpoint"]["lsn"], 2);
  EXPECT_EQ(block["at_checkpoint"]["content"], "whole");
  ASSERT_EQ(block["changes_behind"].size(), 1u);
  EXPECT_EQ(block["changes_behind"][0]["lsn"], 3);
  EXPECT_EQ(block["changes_behind"][0]["content"], "whole");
  EXPECT_EQ(json({"block", "--block", "9"})["at_checkpoint"]["kind"], "hole");
}

TEST_F(Command, EveryCommandHasATextForm) {
  for (const char* command : {"superblock", "zones", "groups", "log", "map", "verify"}) {
    EXPECT_EQ(run({command}), Exit::kSound) << command << err_.str();
    EXPECT_GT(out_.str().size(), 20u) << command;
  }
  EXPECT_EQ(run({"block", "--block", "3"}), Exit::kSound);
  EXPECT_NE(out_.str().find("at checkpoint"), std::string::npos);
}

TEST_F(Command, VerifySpeaksThroughItsExitStatus) {
  EXPECT_EQ(json({"verify"})["sound"], true);
  sim::SimImage damaged = image_;
  sim::SimRandom random(1);
  damaged.corrupt(kBlockBytes, 512, random);
  store(damaged);
  EXPECT_EQ(run({"verify", "--no-data", "--json"}), Exit::kProblems);
  EXPECT_EQ(Json::parse(out_.str())["findings"][0]["part"], "superblock");
  EXPECT_EQ(run({"verify", "--group", "shop"}), Exit::kProblems);
  EXPECT_NE(out_.str().find("PROBLEM superblock"), std::string::npos);
}

TEST_F(Command, BadUsageAndUnreadablePoolsAreStatusTwo) {
  EXPECT_EQ(run({}), Exit::kUnusable);
  EXPECT_EQ(run({"repair"}), Exit::kUnusable);
  EXPECT_EQ(run({"block"}), Exit::kUnusable);
  EXPECT_EQ(run({"block", "--block", "99999"}), Exit::kUnusable);
  EXPECT_NE(err_.str().find("1024 blocks"), std::string::npos) << err_.str();
  EXPECT_EQ(run({"log", "--group", "other"}), Exit::kUnusable);
  EXPECT_NE(err_.str().find("shop"), std::string::npos) << err_.str();
  EXPECT_EQ(run({"map", "--volume", "other"}), Exit::kUnusable);
  ASSERT_EQ(::ftruncate(fd_, 0), 0);
  EXPECT_EQ(run({"verify"}), Exit::kUnusable);
  EXPECT_EQ(run_command({path_ + ".not-there", "zones"}, out_, err_, false), Exit::kUnusable);
}

TEST_F(Command, APoolInUseIsReadOnlyByForce) {
  ASSERT_EQ(::flock(fd_, LOCK_EX | LOCK_NB), 0);
  EXPECT_EQ(run({"superblock"}), Exit::kUnusable);
  EXPECT_NE(err_.str().find("daemon holds"), std::string::npos) << err_.str();
  EXPECT_EQ(run({"--force", "superblock"}), Exit::kSound);
  EXPECT_NE(err_.str().find("daemon holds"), std::string::npos) << err_.str();
  EXPECT_NE(out_.str().find("whole, counts"), std::string::npos);
}

}  // namespace
}  // namespace tandem::inspect
