// Backup, restore and diff as commands: what asks no node, what is refused before anything is read,
// where exports are looked for, and how far they say to be.
#include <fstream>

#include "backup/image_file.h"
#include "ctl/nbd_export.h"
#include "ctl/progress.h"
#include "tests/unit/backup_fixture.h"
#include "tests/unit/ctl_fixture.h"

namespace tandem::ctl {
namespace {

using backup::Bytes;

class BackupCommand : public CommandTest {
 protected:
  /// Two points of "v" in a directory; the second builds on the first.
  struct Made : backup::BackupTest {
    void TestBody() override {}
    Made() {
      auto repository = open();
      first.assign(1 << 20, std::byte{1});
      second = first;
      std::fill_n(second.begin() + 8192, 4096, std::byte{2});
      add_point(repository, first, nullptr);
      add_point(repository, second, &first);
    }
    std::string path() const { return directory.string(); }
    Bytes first, second;
  };
  static Bytes content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const auto bytes = std::as_bytes(std::span(text));
    return {bytes.begin(), bytes.end()};
  }
  Made made;
};

TEST_F(BackupCommand, ListAsksNoNode) {
  EXPECT_EQ(tandem("backup list " + made.path()), 0) << err.str();
  EXPECT_TRUE(says("since 1")) << out.str();
  EXPECT_TRUE(says("v 1 MiB"));
  EXPECT_EQ(tandem("backup list " + made.path() + " --json"), 0);
  ASSERT_EQ(json()["points"].size(), 2u);
  EXPECT_EQ(json()["points"][0]["kind"], "full");
  EXPECT_EQ(json()["points"][0]["from"], nullptr);
  EXPECT_EQ(json()["points"][1]["from"], 1);
  EXPECT_EQ(json()["points"][1]["volumes"][0]["data_bytes"], 4096);
  EXPECT_EQ(json()["interrupted"], nullptr);
  EXPECT_EQ(tandem("backup list /nowhere/at/all"), 5);
  EXPECT_EQ(tandem("backup list"), 2);
}

TEST_F(BackupCommand, VerifyNamesWhatIsDamaged) {
  EXPECT_EQ(tandem("backup verify " + made.path()), 0) << err.str();
  EXPECT_TRUE(says("2 points of ")) << out.str();
  EXPECT_TRUE(says(" are whole."));
  const auto file = made.path() + "/000002/volume-1.data";
  std::ofstream(file, std::ios::binary | std::ios::app) << "x";
  EXPECT_EQ(tandem("backup verify " + made.path()), 1);
  EXPECT_TRUE(says(file)) << out.str();
  EXPECT_TRUE(says("Points that can be restored: 1."));
  EXPECT_TRUE(complains("is damaged"));
  EXPECT_EQ(tandem("backup verify " + made.path() + " --point 1"), 0);
  EXPECT_TRUE(says("1 point of"));
  EXPECT_EQ(tandem("backup verify " + made.path() + " --point 3"), 5);
  EXPECT_EQ(tandem("backup verify " + made.path() + " --point 0"), 2);
}

TEST_F(BackupCommand, RestoreToAFile) {
  const auto image = made.path() + "/image";
  EXPECT_EQ(tandem("restore " + made.path() + " --to-file " + image), 0) << err.str();
  EXPECT_TRUE(content(image) == made.second);
  EXPECT_TRUE(says("Restored volume v of point 2"));
  EXPECT_EQ(tandem("restore " + made.path() + " --point 1 --to-file " + image), 4);
  EXPECT_TRUE(complains("--yes"));
  EXPECT_TRUE(content(image) == made.second);
  EXPECT_EQ(tandem("restore " + made.path() + " --point 1 --yes --json --to-file " + image), 0);
  EXPECT_TRUE(content(image) == made.first);
  EXPECT_EQ(json()["size_bytes"], 1 << 20);
  terminal = true;
  in.str("image\n");
  EXPECT_EQ(tandem("restore " + made.path() + " --to-file " + image), 0);
  EXPECT_TRUE(says("This replaces " + image + " of 1 MiB by volume v of point 2"));
  EXPECT_EQ(tandem("restore " + made.path() + " --volume w --to-file " + image), 5);
  EXPECT_TRUE(complains("it has: v 1 MiB"));
  EXPECT_EQ(tandem("restore " + made.path()), 2);
}

TEST_F(BackupCommand, RestoreToAFileGoesOn) {
  const auto image = made.path() + "/image";
  const auto line = "restore " + made.path() + " --json --to-file " + image;
  const auto repository = backup::Repository::open(made.path(), false).value();
  const auto* point = repository.find(2).value();
  const auto interrupted = [&] {
    const auto& m = *point->manifest;
    auto file = backup::ImageFile::open(
        image, {m.group_id, 2, point->manifest_sha256, "v", made.second.size()},
        {.anew = false, .step_bytes = 1});
    const auto reader = backup::LayeredReader::open(*repository.layers(*point, "v"));
    const auto first = (*reader)->next();
    ASSERT_TRUE(file && first && file->write(0, (*first)->data));
  };
  const auto part = 8192u;  // the second point's change begins there
  const auto all = (1u << 20);
  interrupted();
  EXPECT_EQ(tandem("restore " + made.path() + " --to-file " + image), 0) << err.str();
  EXPECT_TRUE(says("Going on with an interrupted restore: the first 8 KiB are there."));
  EXPECT_TRUE(says("Found there already: 8 KiB of its data; written: ")) << out.str();
  EXPECT_TRUE(content(image) == made.second);
  std::filesystem::remove(image);
  interrupted();
  EXPECT_EQ(tandem(line), 0);
  EXPECT_EQ(json()["found_bytes"], part);
  EXPECT_EQ(json()["written_bytes"], all - part);
  EXPECT_EQ(json()["begun_anew_because"], nullptr);
  std::filesystem::remove(image);
  interrupted();
  EXPECT_EQ(tandem(line + " --restart"), 0);
  EXPECT_EQ(json()["found_bytes"], 0);
  EXPECT_EQ(json()["written_bytes"], all);
  EXPECT_EQ(json()["begun_anew_because"], "as told");
  EXPECT_TRUE(content(image) == made.second);
}

TEST_F(BackupCommand, RestoreToAVolumeAsksThePrimary) {
  EXPECT_EQ(both("restore " + made.path() + " --to-volume none"), 5);
  EXPECT_EQ(both("restore " + made.path() + " --to-volume disk"), 1);
  EXPECT_TRUE(complains("has no exports that can be reached from here")) << err.str();
  EXPECT_EQ(tandem("restore " + made.path() + " --to-volume disk"), 2);  // no certificates
}

TEST_F(BackupCommand, CreateIsRefusedBeforeAnythingIsMade) {
  const auto line = "backup create vms " + made.path();
  EXPECT_EQ(both(line), 4);
  EXPECT_TRUE(complains("is the backup of another group, g")) << err.str();
  EXPECT_EQ(both("backup create none " + made.path() + "/new"), 5);
  EXPECT_FALSE(std::filesystem::exists(made.path() + "/new"));
  EXPECT_EQ(both("backup create disk " + made.path()), 5);
  EXPECT_TRUE(complains("'tandem backup create vms DIRECTORY --volume disk'")) << err.str();
  EXPECT_EQ(both(line + " --zstd 20"), 2);
  EXPECT_EQ(both(line + " --nbd 10.0.0.1:10809"), 2);
  EXPECT_TRUE(complains("--node alone"));
  EXPECT_EQ(nodes["a:1"].calls, Calls{});
  nodes["a:1"].up = nodes["b:1"].up = false;
  EXPECT_EQ(both(line), 3);
}

TEST_F(BackupCommand, DiffLooksForBothPoints) {
  SnapshotStatus s;
  s.name = "s1";
  s.volumes = {{"disk", 1 << 30}};
  nodes["b:1"].status.groups[0].snapshots = {s};
  EXPECT_EQ(both("diff disk --from s1"), 5);  // the primary does not have it
  EXPECT_TRUE(complains("no node has volume disk as primary and snapshot s1")) << err.str();
  EXPECT_EQ(both("diff disk@s2 --from s1"), 5);
  EXPECT_TRUE(complains("no node has snapshot s2 of volume disk and snapshot s1"));
  EXPECT_EQ(both("diff tape@s1 --from s1"), 5);
  EXPECT_EQ(both("diff disk@s1 --from s1"), 1);
  EXPECT_TRUE(complains("node beta has no exports that can be reached from here"));
  nodes["a:1"].up = false;
  EXPECT_EQ(both("diff disk --from s1"), 1);
  EXPECT_TRUE(complains("and cannot talk to a:1")) << err.str();
}

TEST_F(BackupCommand, DiffKeepsMomentsOnlyForItself) {
  for (auto& [address, node] : nodes) {
    node.status.now = UtcNs(1'777'777'777'000'000'000);
    node.snapshot.kind = "point";
    node.snapshot.lsn = Lsn(270);
    node.snapshot.volumes = {{"disk", 1 << 30}};
  }
  nodes["b:1"].status.groups[0].head.utc = UtcNs(1'777'777'700'000'000'000);
  const auto& calls = nodes["a:1"].calls;
  // Nobody listens there, so the comparison fails when both are kept.
  const std::string line = "diff disk --nbd 127.0.0.1:1 --from ";
  EXPECT_EQ(at_a(line + "270 --to 03:09"), 1);
  ASSERT_EQ(calls.size(), 4u) << err.str();
  EXPECT_TRUE(calls[0].starts_with("keep vms at 270 - as diff-")) << calls[0];
  EXPECT_TRUE(calls[1].starts_with("keep vms at - 1777777740000000000 as diff-")) << calls[1];
  const auto name = [](const std::string& call) { return call.substr(call.rfind(' ') + 1); };
  EXPECT_EQ(calls[2], "delete snapshot vms " + name(calls[0]));
  EXPECT_EQ(calls[3], "delete snapshot vms " + name(calls[1]));
  EXPECT_NE(name(calls[0]), name(calls[1]));
  nodes["a:1"].calls.clear();
  EXPECT_EQ(at_a(line + "now --to now"), 1);
  EXPECT_TRUE(calls.at(0).starts_with("keep vms at - - as diff-")) << "the present goes on";
  EXPECT_EQ(calls.size(), 2u);
  nodes["a:1"].calls.clear();
  nodes["a:1"].snapshot.volumes = {{"other", 1 << 30}};
  EXPECT_EQ(at_a(line + "270"), 5);
  EXPECT_TRUE(complains("there was no volume disk at record 270 (")) << err.str();
  EXPECT_EQ(calls.size(), 2u) << "let go";
  nodes["a:1"].calls.clear();
  nodes["a:1"].result = Error{ErrorCode::kNotFound, "LSN 270 is not in the history here"};
  EXPECT_EQ(at_a(line + "270"), 5);
  EXPECT_TRUE(
      complains("node alpha cannot keep the state at 270 for as long as the comparison "
                "takes: LSN 270 is not in the history here"))
      << err.str();
  EXPECT_EQ(calls.size(), 1u) << "there is nothing to let go";
  nodes["a:1"].result = ok();
  // A name is a name, also one that reads like a moment.
  SnapshotStatus s;
  s.name = "270";
  s.volumes = {{"disk", 1 << 30}};
  nodes["a:1"].status.groups[0].snapshots = {s};
  nodes["a:1"].calls.clear();
  EXPECT_EQ(at_a(line + "270"), 1);
  EXPECT_EQ(calls, Calls{});
  // A mirror has no present of the volume; of its history it is asked.
  EXPECT_EQ(at_b(line + "03:08:19"), 5);
  EXPECT_TRUE(complains("no node has volume disk as primary and its state at 03:08:19"));
  EXPECT_EQ(at_b("diff disk@270 --nbd 127.0.0.1:1 --from 03:09"), 1);
  EXPECT_EQ(nodes["b:1"].calls.size(), 4u) << err.str();
}

TEST(NbdAddress, OfANodeElsewhereOnlyWhatIsReachedFromHere) {
  NodeStatus node;
  node.node = "alpha";
  // 192.0.2.1 is nobody's: reserved for documents.
  const auto address = [&](const std::string& service, const std::string& given) {
    const auto found = nbd_address(node, service, given);
    return found ? found->text() : std::string(to_string(found.error().code));
  };
  EXPECT_EQ(address("192.0.2.1:7788", ""), "unavailable");
  node.nbd = {"unix:/dev/null", "127.0.0.1:10809"};  // not a socket; that machine's own loopback
  EXPECT_EQ(address("192.0.2.1:7788", ""), "unavailable");
  EXPECT_EQ(address("127.0.0.1:7788", ""), "127.0.0.1:10809");
  EXPECT_EQ(address("192.0.2.1:7788", "localhost:1"), "localhost:1");
  node.nbd = {"0.0.0.0:10809"};
  EXPECT_EQ(address("192.0.2.1:7788", ""), "192.0.2.1:10809");
  node.nbd = {"[::]:10809"};
  EXPECT_EQ(address("[2001:db8::1]:7788", ""), "2001:db8::1:10809");
}

TEST(Progress, OneLine) {
  using std::chrono::milliseconds;
  EXPECT_EQ(progress_text("v", 0, 0, {}, 80),
            "v  [========================================]  100 %  0 B of 0 B");
  EXPECT_EQ(progress_text("v", 512, 1024, milliseconds(500), 60),
            "v  [================>                ]  50 %  512 B of 1 KiB");
  EXPECT_EQ(progress_text("v", 1 << 20, 4 << 20, milliseconds(2000), 79),
            "v  [=======>                     ]  25 %  1 MiB of 4 MiB, 512 KiB/s, 6.0 s left");
  EXPECT_EQ(progress_text("v", 1 << 20, 4 << 20, milliseconds(2000), 20), "v  25 %  1 MiB of 4 ");
}

TEST_F(BackupCommand, ABarIsDrawnOnATerminalAndIsGoneAtTheEnd) {
  Context context{.settings = {}, .out = out, .err = err, .in = in, .connect = {}};
  { ProgressBar quiet(context, "v", 10); }
  EXPECT_EQ(err.str(), "");
  context.progress = true;
  { ProgressBar shown(context, "v", 10); }
  EXPECT_NE(err.str().find("0 B of 10 B"), std::string::npos);
  EXPECT_TRUE(err.str().ends_with("\r\x1b[K"));
  err.str("");
  context.settings.json = true;
  { ProgressBar quiet(context, "v", 10); }
  EXPECT_EQ(err.str(), "");
}

}  // namespace
}  // namespace tandem::ctl
