// The format of a backup, pinned: a data file and a manifest byte by byte.
#include <fstream>
#include <sstream>

#include "tests/unit/backup_fixture.h"

namespace tandem::backup {
namespace {

class BackupFormat : public BackupTest {
 protected:
  std::string content(const std::string& name) {
    std::ostringstream text;
    text << std::ifstream(directory / name, std::ios::binary).rdbuf();
    return text.str();
  }
  void put(const std::string& name, const std::string& text) {
    std::ofstream(directory / name, std::ios::binary) << text;
  }
};

// The sums were computed by another program.
constexpr char kData[] =
    "5444424301000000"   // TDBC, data
    "0010000000000000"   // at 4096
    "0400000000000000"   // 4 bytes
    "04000000310ac892"   // 4 stored, their CRC-32C
    "33cc444900000000"   // the header's
    "61626364"           // "abcd"
    "5444424303000000"   // TDBC, zeroes
    "0020000000000000"   // at 8192
    "0000100000000000"   // 1 MiB
    "0000000000000000"   // nothing stored
    "e3ae150e00000000";  // the header's CRC-32C
constexpr char kDataSha256[] = "7f053cad446cb8bae874fc52b1be3e6200e0713c94a9b49a247c8ddb3905b920";

std::string unhex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

TEST_F(BackupFormat, DataFile) {
  auto writer = ChunkWriter::open(directory / "data", 0);
  ASSERT_TRUE(writer);
  const std::string abcd = "abcd";
  ASSERT_TRUE((*writer)->data(4096, std::as_bytes(std::span(abcd))));
  ASSERT_TRUE((*writer)->zeroes(8192, 1 << 20));
  const auto summary = (*writer)->finish();
  ASSERT_TRUE(summary);
  EXPECT_EQ(content("data"), unhex(kData));
  const Summary wanted{84, 2, 4, 1 << 20, kDataSha256};
  EXPECT_EQ(*summary, wanted);
}

TEST_F(BackupFormat, DataFileIsRead) {
  put("data", unhex(kData));
  auto reader = ChunkReader::open(directory / "data");
  ASSERT_TRUE(reader);
  auto chunk = (*reader)->next();
  ASSERT_TRUE(chunk && *chunk);
  EXPECT_EQ((*chunk)->offset, 4096u);
  EXPECT_FALSE((*chunk)->zero);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>((*chunk)->data.data()), 4), "abcd");
  chunk = (*reader)->next();
  ASSERT_TRUE(chunk && *chunk);
  EXPECT_TRUE((*chunk)->zero);
  EXPECT_EQ((*chunk)->length, 1u << 20);
  chunk = (*reader)->next();
  ASSERT_TRUE(chunk);
  EXPECT_FALSE(*chunk);
  EXPECT_EQ((*reader)->summary().sha256, kDataSha256);
}

TEST_F(BackupFormat, EveryFlippedBitOfADataFileIsSeen) {
  const std::string whole = unhex(kData);
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    put("data", damaged);
    auto reader = ChunkReader::open(directory / "data");
    ASSERT_TRUE(reader);
    bool seen = false;
    for (;;) {
      const auto chunk = (*reader)->next();
      seen = seen || !chunk;
      if (chunk ? !*chunk : !(*reader)->damaged()) break;
    }
    EXPECT_TRUE(seen) << "bit " << bit;
  }
}

constexpr char kManifest[] = R"({
  "format": "tandem-backup",
  "version": 1,
  "number": 2,
  "group": {
    "name": "vm",
    "id": "0c5aa1f4-0000-4000-8000-000000000001"
  },
  "node": "beta",
  "snapshot": {
    "name": "backup-2026-05-02T00:00:00Z",
    "lsn": 900,
    "utc_ns": 1777680000000000000
  },
  "consistency": "crash-consistent",
  "snapshot_is_ours": true,
  "from": {
    "name": "backup-2026-05-01T00:00:00Z",
    "lsn": 300,
    "utc_ns": 1777593600000000000,
    "number": 1,
    "manifest_sha256": "05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f"
  },
  "created_utc_ns": 1777680001000000000,
  "volumes": [
    {
      "name": "disk",
      "size_bytes": 1073741824,
      "logical_block_bytes": 512,
      "based": true,
      "file": "volume-1.data",
      "file_bytes": 84,
      "chunks": 2,
      "data_bytes": 4,
      "zero_bytes": 1048576,
      "sha256": "7f053cad446cb8bae874fc52b1be3e6200e0713c94a9b49a247c8ddb3905b920"
    }
  ]
}
)";

Manifest manifest() {
  Manifest m;
  m.number = 2;
  m.group = "vm";
  m.group_id = "0c5aa1f4-0000-4000-8000-000000000001";
  m.node = "beta";
  m.snapshot = {"backup-2026-05-02T00:00:00Z", Lsn(900), UtcNs(1777680000000000000)};
  m.consistency = "crash-consistent";
  m.snapshot_is_ours = true;
  m.from = From{1,
                {"backup-2026-05-01T00:00:00Z", Lsn(300), UtcNs(1777593600000000000)},
                sha256_of("manifest")};
  m.created = UtcNs(1777680001000000000);
  VolumePart part;
  part.name = "disk";
  part.size_bytes = 1 << 30;
  part.based = true;
  part.file = "volume-1.data";
  part.summary = {84, 2, 4, 1 << 20, kDataSha256};
  m.volumes = {part};
  return m;
}

TEST_F(BackupFormat, ManifestIsWritten) { EXPECT_EQ(to_text(manifest()), kManifest); }

TEST_F(BackupFormat, ManifestIsRead) {
  const auto m = parse_manifest(kManifest);
  ASSERT_TRUE(m) << m.error().message;
  EXPECT_EQ(m->from->manifest_sha256, sha256_of("manifest"));
  ASSERT_NE(m->find("disk"), nullptr);
  EXPECT_EQ(m->find("disk")->summary.zero_bytes, 1u << 20);
  EXPECT_EQ(m->find("tape"), nullptr);
  EXPECT_EQ(to_text(*m), kManifest);
}

constexpr char kSeed[] = R"(  "created_utc_ns": 1777680001000000000,
  "seed": {
    "timeline": 2,
    "digest": "00000000deadbeef",
    "payload_bytes": 81920,
    "next_volume_id": 5,
    "history": [
      {
        "timeline": 1,
        "behind_lsn": 0,
        "utc_ns": 17
      },
      {
        "timeline": 2,
        "behind_lsn": 400,
        "utc_ns": 18
      }
    ],
    "volumes": [
      {
        "id": 4,
        "name": "disk",
        "size_bytes": 1073741824,
        "logical_block_bytes": 512
      }
    ]
  },
)";

/// The same with what a mirror needs: version 2.
std::string manifest_with_seed() {
  std::string text = kManifest;
  const std::string created = "  \"created_utc_ns\": 1777680001000000000,\n";
  text.replace(text.find(created), created.size(), kSeed);
  const std::string version = "\"version\": 1";
  text.replace(text.find(version), version.size(), "\"version\": 2");
  return text;
}

TEST_F(BackupFormat, AManifestWithASeedIsOfVersion2) {
  Manifest m = manifest();
  m.seed = SeedPoint{
      .point = {Timeline(2), Lsn(900), Digest(0xdeadbeef), UtcNs(1777680000000000000), 81920},
      .history = {{Timeline(1), Lsn(0), UtcNs(17)}, {Timeline(2), Lsn(400), UtcNs(18)}},
      .next_volume_id = 5,
      .volumes = {{VolumeId(4), "disk", 1 << 30, 512}}};
  EXPECT_EQ(to_text(m), manifest_with_seed());
  const auto back = parse_manifest(manifest_with_seed());
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->seed, m.seed);
  EXPECT_FALSE(parse_manifest(kManifest)->seed);
  std::string wrong = manifest_with_seed();
  wrong.replace(wrong.find("00000000deadbeef"), 16, "00000000deadbeeg");
  EXPECT_EQ(parse_manifest(wrong).error().code, ErrorCode::kCorrupt);
}

TEST_F(BackupFormat, WhatIsNoManifestIsRefused) {
  const auto with = [](const std::string& old, const std::string& now) {
    std::string text = kManifest;
    text.replace(text.find(old), old.size(), now);
    const auto m = parse_manifest(text);
    return m ? std::string("taken") : std::string(to_string(m.error().code));
  };
  EXPECT_EQ(with("tandem-backup", "other-backup"), "corrupt");
  EXPECT_EQ(with("\"version\": 1", "\"version\": 3"), "unsupported");
  EXPECT_EQ(with("\"version\": 1", "\"version\": 2"), "corrupt");  // without a seed
  EXPECT_EQ(with("volume-1.data", "../volume.data"), "corrupt");
  EXPECT_EQ(with("volume-1.data", ".."), "corrupt");
  EXPECT_EQ(with("volume-1.data", ""), "corrupt");
  EXPECT_EQ(with("\"lsn\": 900", "\"lsn\": \"900\""), "corrupt");
  EXPECT_EQ(with("\"lsn\": 900", "\"lsn\": -1"), "corrupt");
  EXPECT_EQ(with("\"based\": true,", ""), "corrupt");
  EXPECT_EQ(with("{", ""), "corrupt");
}

}  // namespace
}  // namespace tandem::backup
