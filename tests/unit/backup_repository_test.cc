// A backup's directory: plans, points, and what is said of damaged ones.
#include <fstream>

#include "tests/unit/backup_fixture.h"

namespace tandem::backup {
namespace {

class BackupDirectory : public BackupTest {
 protected:
  void three_points() {
    Repository repository = open();
    Bytes before(kBlock * 8);
    for (int i = 0; i < 3; ++i) {
      Bytes now = before;
      std::fill_n(now.begin() + i * 4096, kBlock, static_cast<std::byte>(i + 1));
      add_point(repository, now, i == 0 ? nullptr : &before);
      before = now;
    }
    state = before;
  }
  void flip(const std::string& name, std::size_t at) {
    std::fstream file(directory / name, std::ios::binary | std::ios::in | std::ios::out);
    file.seekg(static_cast<std::streamoff>(at));
    const auto byte = static_cast<char>(file.get() ^ 1);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(byte);
  }
  Verdict verify(std::uint32_t number = 0) {
    const Repository repository = open(false);
    const auto scope = repository.scope(number);
    EXPECT_TRUE(scope);
    return repository.verify(*scope, {});
  }
  using Numbers = std::vector<std::uint32_t>;
  Bytes state;
};

TEST_F(BackupDirectory, OneWritesAtATime) {
  const Repository first = open();
  const auto second = Repository::open(directory, true);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kBusy);
  EXPECT_TRUE(Repository::open(directory, false));
  EXPECT_EQ(Repository::open(directory / "no", false).error().code, ErrorCode::kNotFound);
}

TEST_F(BackupDirectory, APlanIsThereUntilItIsWhole) {
  three_points();
  Repository repository = open();
  EXPECT_FALSE(repository.plan());
  Bytes now(kBlock * 8);
  Manifest plan = plan_of(repository, now, &state);
  plan.snapshot.lsn = Lsn(0);
  ASSERT_TRUE(repository.begin(plan));
  EXPECT_EQ(plan.number, 4u);
  ASSERT_TRUE(repository.plan());
  EXPECT_EQ(repository.plan()->snapshot.lsn, Lsn(0));
  plan.snapshot.lsn = Lsn(77);
  ASSERT_TRUE(repository.update(plan));
  EXPECT_EQ(repository.plan()->snapshot.lsn, Lsn(77));
  EXPECT_EQ(repository.points().size(), 3u);
  ASSERT_TRUE(repository.drop_plan());
  EXPECT_FALSE(repository.plan());
  EXPECT_FALSE(std::filesystem::exists(repository.plan_path()));
  // One of a number that is another point's turn now is nobody's.
  ASSERT_TRUE(repository.begin(plan));
  std::filesystem::remove_all(directory / "000003");
  EXPECT_FALSE(repository.points().size() == 2);  // read when it was opened
  repository = open(false);
  EXPECT_FALSE(repository.plan());
  ASSERT_TRUE(repository.drop_plan());
  EXPECT_FALSE(std::filesystem::exists(directory / "000004.partial"));
}

TEST_F(BackupDirectory, DamageIsToldByFileAndPlace) {
  three_points();
  EXPECT_EQ(verify().whole, (Numbers{1, 2, 3}));
  flip("000002/volume-1.data", 45);
  const auto verdict = verify();
  EXPECT_EQ(verdict.whole, Numbers{1});
  ASSERT_EQ(verdict.damages.size(), 1u);
  const auto& damage = verdict.damages[0];
  EXPECT_EQ(damage.number, 2u);
  EXPECT_EQ(damage.volume, "v");
  EXPECT_EQ(damage.offset, 4096u);
  EXPECT_EQ(damage.length, 4096u);
  EXPECT_NE(damage.what.find("000002/volume-1.data"), std::string::npos);
  EXPECT_EQ(verify(1).whole, Numbers{1});
  EXPECT_TRUE(verify(1).damages.empty());
  EXPECT_EQ(verify(3).damages.size(), 1u);  // it builds on 2
  const Repository repository = open(false);
  EXPECT_TRUE(restored(repository, 1, kBlock * 8));
  for (const std::uint32_t number : {2u, 3u}) {
    const auto bytes = restored(repository, number, kBlock * 8);
    ASSERT_FALSE(bytes);
    EXPECT_EQ(bytes.error().code, ErrorCode::kCorrupt);
    EXPECT_NE(bytes.error().message.find("000002/volume-1.data"), std::string::npos);
  }
}

TEST_F(BackupDirectory, AWholeFileThatIsAnotherIsSeenByItsSum) {
  three_points();
  std::filesystem::copy_file(directory / "000001/volume-1.data", directory / "000003/volume-1.data",
                             std::filesystem::copy_options::overwrite_existing);
  const auto verdict = verify();
  EXPECT_EQ(verdict.whole, (Numbers{1, 2}));
  ASSERT_EQ(verdict.damages.size(), 1u);
  EXPECT_NE(verdict.damages[0].what.find("not the file that"), std::string::npos);
  const auto bytes = restored(open(false), 3, kBlock * 8);
  ASSERT_FALSE(bytes);
  EXPECT_NE(bytes.error().message.find("000003/volume-1.data"), std::string::npos);
}

TEST_F(BackupDirectory, ADamagedManifestCostsItsPointAndThoseBehind) {
  three_points();
  for (const char* name : {"000002/manifest.json", "000002/SHA256SUMS"}) {
    flip(name, 100);
    const Repository repository = open(false);
    ASSERT_EQ(repository.points().size(), 3u);
    EXPECT_FALSE(repository.points()[1].manifest);
    EXPECT_FALSE(repository.find(2));
    EXPECT_EQ(verify().whole, Numbers{1});
    const auto third = repository.find(3);
    ASSERT_TRUE(third);
    const auto layers = repository.layers(**third, "v");
    ASSERT_FALSE(layers);
    EXPECT_NE(layers.error().message.find("point 3 needs point 2"), std::string::npos)
        << layers.error().message;
    flip(name, 100);
  }
  EXPECT_EQ(verify().whole, (Numbers{1, 2, 3}));
}

TEST_F(BackupDirectory, AMissingPointIsNamed) {
  three_points();
  std::filesystem::remove_all(directory / "000001");
  const auto verdict = verify();
  EXPECT_TRUE(verdict.whole.empty());
  ASSERT_EQ(verdict.damages.size(), 2u);
  EXPECT_NE(verdict.damages[0].what.find("point 2 needs point 1"), std::string::npos);
  EXPECT_FALSE(open(false).scope(1));
  EXPECT_EQ(open(false).find(9).error().code, ErrorCode::kNotFound);
  // Another point under the number of the one that is needed.
  Repository other = open();
  std::filesystem::remove_all(directory / "000003");
  std::filesystem::rename(directory / "000002", directory / "000001");
  EXPECT_EQ(verify().damages.size(), 1u);
  EXPECT_NE(verify().damages[0].what.find("another point's"), std::string::npos);
}

}  // namespace
}  // namespace tandem::backup
