// Restores that are gone on with: the journal of an image file, what it is not believed, and what
// is written to a volume that has a part already.
#include <fcntl.h>

#include <fstream>

#include "backup/image_file.h"
#include "tests/unit/backup_fixture.h"

namespace tandem::backup {
namespace {

constexpr std::uint64_t kStep = 4 * kBlock;
constexpr std::size_t kBlocks = 16;
const ImageIdentity kIdentity{"group", 3, "manifest", "v", kBlocks* kBlock};

// FORMAT.md: what this version writes, later ones must understand.
TEST(ImageJournal, GoldenBytes) {
  EXPECT_EQ(to_text({{"group", 3, "manifest", "v", 65536}, 12345, Digest(7)}),
            R"({"format":"tandem-restore","version":1,"identity":{"group_id":"group","point":3,)"
            R"("manifest_sha256":"manifest","volume":"v","size_bytes":65536},)"
            R"("durable_bytes":12345,"front":7})"
            "\n"
            "cd5158b0b0dd59874012561c08151f7c58d027a1f84e903d1592359144a911f9"
            "\n");
}

TEST(ImageJournal, TornIsNoneAtEveryLength) {
  const std::string text = to_text({kIdentity, 12345, Digest(~std::uint64_t{})});
  const auto whole = parse_image_journal(text);
  ASSERT_TRUE(whole);
  EXPECT_EQ(whole->identity, kIdentity);
  EXPECT_EQ(whole->durable_bytes, 12345u);
  EXPECT_EQ(whole->front, Digest(~std::uint64_t{}));
  for (std::size_t size = 0; size < text.size(); ++size)
    EXPECT_FALSE(parse_image_journal(text.substr(0, size))) << size;
  EXPECT_FALSE(parse_image_journal(text + "\n"));
  EXPECT_FALSE(parse_image_journal(std::string(text.size(), '\0')));
}

TEST(ImageJournal, NoDamagedByteIsBelieved) {
  const std::string text = to_text({kIdentity, 12345, Digest(1)});
  for (std::size_t at = 0; at < text.size(); ++at) {
    std::string damaged = text;
    damaged[at] ^= 1;
    EXPECT_FALSE(parse_image_journal(damaged)) << at;
  }
  for (const std::string line : {"{}\n", "[1]\n", "no\n", "{\"format\":\"tandem-restore\"}\n"})
    EXPECT_FALSE(parse_image_journal(line + sha256_of(line) + "\n")) << line;
}

TEST(ImageJournal, EveryRestoreHasANameOfItsOwn) {
  auto other = kIdentity;
  other.manifest_sha256 = "another";
  EXPECT_NE(partial_suffix(kIdentity), partial_suffix(other));
  EXPECT_TRUE(partial_suffix(kIdentity).starts_with(".point-3."));
}

class Image : public BackupTest {
 protected:
  Image() {
    std::generate(content.begin(), content.end(), [&] { return std::byte(random()); });
  }
  static std::uint8_t random() { return static_cast<std::uint8_t>(::rand() % 255 + 1); }

  Result<ImageFile> open_image(const ImageIdentity& identity = kIdentity, bool anew = false) const {
    return ImageFile::open(path, identity, {.anew = anew, .step_bytes = kStep});
  }
  std::span<const std::byte> block(std::size_t i) const {
    return std::span(content).subspan(i * kBlock, kBlock);
  }
  void write(ImageFile& image, std::size_t blocks) const {
    for (std::size_t i = 0; i < blocks; ++i) ASSERT_TRUE(image.write(i * kBlock, block(i)));
  }
  /// As if killed behind so many blocks.
  void interrupted(std::size_t blocks) const {
    auto image = open_image();
    ASSERT_TRUE(image) << image.error().message;
    write(*image, blocks);
  }
  /// The rest of a restore: what it found, in blocks; the image is right in the end.
  std::uint64_t go_on(const std::string& anew_because = "") const {
    auto image = open_image();
    EXPECT_TRUE(image) << image.error().message;
    EXPECT_EQ(image->anew_because(), anew_because);
    write(*image, kBlocks);
    EXPECT_TRUE(image->finish());
    EXPECT_TRUE(bytes_of(path) == content);
    std::vector<std::string> left;
    for (const auto& entry : std::filesystem::directory_iterator(directory))
      left.push_back(entry.path().filename());
    EXPECT_EQ(left, std::vector<std::string>{"image"});
    return image->found_bytes() / kBlock;
  }
  static Bytes bytes_of(const Path& path) {
    const auto text = read_text(path);
    EXPECT_TRUE(text);
    const auto bytes = std::as_bytes(std::span(text->data(), text->size()));
    return {bytes.begin(), bytes.end()};
  }
  Path partial() const { return path.string() + partial_suffix(kIdentity); }
  Path journal() const { return partial().string() + ".journal"; }
  void overwrite(std::uint64_t offset, std::size_t bytes) const {
    auto file = File::open(partial(), O_WRONLY);
    ASSERT_TRUE(file && file->write_at(offset, Bytes(bytes, std::byte{0})));
  }

  Path path = directory / "image";
  Bytes content = Bytes(kBlocks * kBlock);
};

TEST_F(Image, IsThereWhenItIsWhole) {
  auto image = open_image();
  ASSERT_TRUE(image);
  ASSERT_TRUE(image->write(8192, block(2)));
  EXPECT_FALSE(std::filesystem::exists(path));
  ASSERT_TRUE(image->finish());
  EXPECT_EQ(std::filesystem::file_size(path), kBlocks * kBlock);
  EXPECT_FALSE(std::filesystem::exists(partial()));
  EXPECT_FALSE(std::filesystem::exists(journal()));
  EXPECT_EQ(ImageFile::open(directory, kIdentity, {}).error().code, ErrorCode::kInvalid);
}

TEST_F(Image, GoesOnWhereverItWasInterrupted) {
  for (std::size_t blocks = 0; blocks <= kBlocks; ++blocks) {
    SCOPED_TRACE(blocks);
    interrupted(blocks);
    EXPECT_EQ(go_on(), blocks / 4 * 4);
  }
  interrupted(9);
  interrupted(13);
  interrupted(2);  // less than there is: nothing is lost of it
  EXPECT_EQ(go_on(), 12u);
}

TEST_F(Image, WhatIsDurableIsNotWrittenAgainAndTheRestIsNotBelieved) {
  interrupted(11);
  // The journal is behind the truth, and what it does not vouch for is torn.
  overwrite(9 * kBlock, 100);
  {
    auto image = open_image();
    ASSERT_TRUE(image);
    EXPECT_EQ(image->resumed_at(), 8 * kBlock);
    const auto now = bytes_of(partial());
    EXPECT_TRUE(is_zero(std::span(now).subspan(8 * kBlock)));
  }
  // A mark in front stays: nothing is written there.
  overwrite(5 * kBlock, 100);
  auto image = open_image();
  ASSERT_TRUE(image);
  write(*image, kBlocks);
  ASSERT_TRUE(image->finish());
  std::fill_n(content.begin() + 5 * kBlock, 100, std::byte{0});
  EXPECT_TRUE(bytes_of(path) == content);
}

TEST_F(Image, BeginsAnewWhenTheJournalCannotBeBelieved) {
  interrupted(9);
  const std::string good = *read_text(journal());
  ASSERT_TRUE(write_text(journal(), good.substr(0, good.size() / 2)));
  EXPECT_EQ(go_on("its journal is damaged"), 0u);

  auto other = kIdentity;
  other.point = 4;
  interrupted(9);
  ASSERT_TRUE(write_text(journal(), to_text({other, 8 * kBlock, Digest(1)})));
  EXPECT_EQ(go_on("its journal is of another restore"), 0u);

  interrupted(9);
  std::filesystem::remove(journal());
  EXPECT_EQ(go_on("it has no journal"), 0u);

  for (const std::uint64_t size : {7 * kBlock, 17 * kBlock}) {
    interrupted(9);
    std::filesystem::resize_file(partial(), size);
    EXPECT_EQ(go_on("it is not the file that its journal describes"), 0u);
  }
  interrupted(9);
  ASSERT_TRUE(write_text(journal(), to_text({kIdentity, 17 * kBlock, Digest(1)})));
  EXPECT_EQ(go_on("it is not the file that its journal describes"), 0u);

  // Killed between cutting it off and making it as large as before.
  interrupted(9);
  std::filesystem::resize_file(partial(), 8 * kBlock);
  EXPECT_EQ(go_on(), 8u);
  // The file is gone, or was only just renamed.
  interrupted(9);
  std::filesystem::remove(partial());
  EXPECT_EQ(go_on(), 0u);
}

TEST_F(Image, OfAnotherPointIsLeftAlone) {
  interrupted(9);
  auto other = kIdentity;
  other.point = 4;
  {
    auto image = open_image(other);
    ASSERT_TRUE(image);
    EXPECT_EQ(image->resumed_at(), 0u);
    ASSERT_TRUE(image->finish());
  }
  EXPECT_EQ(go_on(), 8u);
}

TEST_F(Image, BeginsAnewWhenTold) {
  interrupted(9);
  {
    const auto image = open_image(kIdentity, true);
    ASSERT_TRUE(image);
    EXPECT_EQ(image->resumed_at(), 0u);
    EXPECT_EQ(image->anew_because(), "as told");
    EXPECT_TRUE(is_zero(bytes_of(partial())));
    EXPECT_EQ(parse_image_journal(*read_text(journal()))->durable_bytes, 0u);
  }
  EXPECT_EQ(go_on(), 0u);
}

TEST_F(Image, IsGivenUpWhenTheBackupHasOtherContentInFront) {
  interrupted(9);
  content[5] ^= std::byte{1};
  {
    auto image = open_image();
    ASSERT_TRUE(image);
    write(*image, 8);
    const auto refused = image->write(8 * kBlock, block(8));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kCorrupt);
  }
  EXPECT_EQ(go_on(), 0u);
  interrupted(kBlocks);
  content[5] ^= std::byte{1};
  auto image = open_image();
  ASSERT_TRUE(image);
  write(*image, kBlocks);
  EXPECT_FALSE(image->finish());
  EXPECT_FALSE(bytes_of(path) == content) << "the image of before stays";
}

TEST_F(Image, IsOfOneProcessAtATime) {
  const auto first = open_image();
  ASSERT_TRUE(first);
  const auto second = open_image();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kBusy);
}

/// A volume: what is written to it is read back, and counted.
class MemoryVolume final : public Target, public Source {
 public:
  explicit MemoryVolume(Bytes content) : bytes(std::move(content)), source_(bytes, nullptr, 7) {}
  std::uint64_t size_bytes() const override { return bytes.size(); }
  std::size_t piece_bytes_max() const override { return 3 * kBlock; }
  Result<std::vector<Run>> runs(std::uint64_t offset) override { return source_.runs(offset); }
  Status read(std::span<const Run> runs, const Sink& sink) override {
    return source_.read(runs, sink);
  }
  Status write(std::uint64_t offset, std::span<const std::byte> data) override {
    std::copy(data.begin(), data.end(), bytes.begin() + static_cast<std::ptrdiff_t>(offset));
    written += data.size();
    return written > fail_behind ? Status(Error{ErrorCode::kIo, "died"}) : ok();
  }
  Status zero(std::uint64_t offset, std::uint64_t length) override {
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), length, std::byte{});
    zeroed += length;
    return ok();
  }
  Status finish() override {
    finished = true;
    return ok();
  }
  std::uint64_t bytes_read() const { return source_.bytes_read; }

  Bytes bytes;
  std::uint64_t written = 0, zeroed = 0, fail_behind = ~std::uint64_t{};
  bool finished = false;

 private:
  MemorySource source_;
};

class ToVolume : public BackupTest {
 protected:
  ToVolume() {
    for (std::size_t i = 0; i < content.size(); ++i)
      if (i / (64 * kBlock) % 3 != 1) content[i] = std::byte(i / kBlock % 250 + 1);
    auto repository = open();
    add_point(repository, content, nullptr);
  }
  Result<Restored> restore_to(MemoryVolume& volume) {
    const Repository repository = open(false);
    const auto layers = repository.layers(*repository.find(1).value(), "v");
    const auto reader = LayeredReader::open(*layers);
    std::uint64_t told = 0;
    auto done = restore_difference(**reader, volume, volume, [&](std::uint64_t b) { told += b; });
    if (!done) return done;
    EXPECT_EQ(told, volume.size_bytes());
    EXPECT_TRUE(volume.finished);
    EXPECT_EQ(done->written, volume.written);
    EXPECT_EQ(done->zeroed, volume.zeroed);
    Bytes wanted = content;
    wanted.resize(volume.bytes.size());
    EXPECT_TRUE(volume.bytes == wanted);
    return done;
  }
  std::uint64_t data_bytes() {
    return open(false).find(1).value()->manifest->volumes[0].summary.data_bytes;
  }
  Bytes content = Bytes(600 * kBlock);
};

TEST_F(ToVolume, WritesOnlyWhatDiffers) {
  MemoryVolume same(content);
  const auto nothing = restore_to(same);
  ASSERT_TRUE(nothing);
  EXPECT_EQ(nothing->written, 0u);
  EXPECT_EQ(nothing->found, data_bytes());

  Bytes other = content;
  other.resize(700 * kBlock);
  other[10 * kBlock] ^= std::byte{1};
  other[100 * kBlock] = std::byte{1};  // the backup has a hole there
  other[650 * kBlock] = std::byte{1};  // and ends in front of that
  MemoryVolume volume(other);
  const auto done = restore_to(volume);
  ASSERT_TRUE(done);
  EXPECT_GT(done->written, 0u);
  EXPECT_LE(done->written, 3 * kBlock);
  EXPECT_GE(done->zeroed, 2 * kBlock);
  EXPECT_EQ(done->written + done->found, data_bytes());
}

TEST_F(ToVolume, ReadsNothingOfWhatIsKnownToBeZero) {
  MemoryVolume volume(Bytes(600 * kBlock));
  const auto done = restore_to(volume);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->written, data_bytes());
  EXPECT_EQ(done->found, 0u);
  EXPECT_LT(volume.bytes_read(), volume.size_bytes());
}

TEST_F(ToVolume, GoesOnWhereverItWasInterrupted) {
  for (std::uint64_t behind = 0; behind < data_bytes(); behind += 37 * kBlock) {
    MemoryVolume volume(Bytes(600 * kBlock, std::byte{0xee}));
    volume.fail_behind = behind;
    ASSERT_FALSE(restore_to(volume));
    volume.fail_behind = ~std::uint64_t{};
    const auto was_written = std::exchange(volume.written, 0);
    volume.zeroed = 0;
    const auto done = restore_to(volume);
    ASSERT_TRUE(done);
    EXPECT_EQ(done->found, was_written);
    EXPECT_EQ(done->written, data_bytes() - was_written);
  }
}

}  // namespace
}  // namespace tandem::backup
