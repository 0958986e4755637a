// MemoryVolume: a volume in memory for tests of front ends, with faults and delays on demand.
//
// Thread: the reactor's, like every Volume. Durability is not modelled; flushes are counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/base/buffer.h"
#include "tandem/volume.h"

namespace tandem::test {

enum class VolumeCall { kRead, kWrite, kFlush, kDiscard, kWriteZeroes, kAllocation, kChanges };

struct VolumeCounters {
  std::uint64_t reads = 0;
  std::uint64_t writes = 0;
  std::uint64_t flushes = 0;
  std::uint64_t discards = 0;
  std::uint64_t zeroes = 0;
  std::uint64_t allocations = 0;
  std::uint64_t fua = 0;  // calls that asked for it
  std::uint64_t no_hole = 0;
};

class MemoryVolume : public Volume {
 public:
  struct Options {
    std::uint64_t size_bytes = std::uint64_t{16} << 20;
    std::uint32_t logical_block_bytes = 512;
    bool read_only = false;
    std::uint64_t capacity_bytes = ~std::uint64_t{0};  // more than this allocated: kNoSpace
  };
  MemoryVolume(BufferPool& pool, std::string name, Options options);
  ~MemoryVolume() override;

  VolumeInfo info() const override { return info_; }
  Task<Result<IoBuffer>> read(std::uint64_t offset, std::uint64_t length) override;
  Task<Status> write(std::uint64_t offset, IoBuffer data, WriteOptions options) override;
  Task<Status> flush() override;
  Task<Status> discard(std::uint64_t offset, std::uint64_t length, WriteOptions options) override;
  Task<Status> write_zeroes(std::uint64_t offset, std::uint64_t length,
                            WriteOptions options) override;
  Task<Result<std::vector<AllocationExtent>>> allocation(std::uint64_t offset, std::uint64_t length,
                                                         std::size_t extents_max) override;
  std::vector<std::string> snapshots() const override;
  Result<std::shared_ptr<Changes>> changes_since(std::string_view snapshot) override;

  /// From now on what changes is remembered under this name; the content is not kept.
  void snapshot(std::string name);
  void delete_snapshot(std::string_view name);

  /// Every call first asks this for an error.
  using Fault =
      std::function<std::optional<Error>(VolumeCall, std::uint64_t offset, std::uint64_t length)>;
  void set_fault(Fault fault) { fault_ = std::move(fault); }
  /// Every call is suspended and handed to this; resuming the handle lets it go on.
  using Later = std::function<void(std::coroutine_handle<>)>;
  void set_later(Later later) { later_ = std::move(later); }
  /// The current content, without counting as a call.
  std::span<std::byte> content() { return {memory_, info_.size_bytes}; }
  /// Makes every block that is not zero count as allocated, after content() was filled.
  void allocate_all();
  void grow(std::uint64_t size_bytes);  // up to the size it was made with
  const VolumeCounters& counters() const { return counters_; }
  std::uint64_t allocated_bytes() const { return allocated_blocks_ * kBlockBytes; }

 private:
  enum class Block : std::uint8_t { kHole, kData, kZero };
  struct Snapshot {
    std::string name;
    std::vector<bool> changed;  // by block
    bool deleted = false;
  };
  class ChangesSince;
  Task<Status> begin(VolumeCall call, std::uint64_t offset, std::uint64_t length);
  void note_change(std::uint64_t offset, std::uint64_t length);
  void set_block(std::uint64_t block, Block state);
  Status zero(std::uint64_t offset, std::uint64_t length, bool keep_allocated);

  BufferPool& pool_;
  VolumeInfo info_;
  Options options_;
  std::byte* memory_;
  Block* blocks_;
  std::vector<std::shared_ptr<Snapshot>> snapshots_;
  std::uint64_t mapped_bytes_;
  std::uint64_t allocated_blocks_ = 0;
  Fault fault_;
  Later later_;
  VolumeCounters counters_;
};

class MemoryDirectory : public VolumeDirectory {
 public:
  std::vector<VolumeInfo> list() const override;
  Result<std::shared_ptr<Volume>> open(std::string_view name) override;
  bool exports(std::string_view name) const override { return volumes_.contains(name); }
  void add(std::shared_ptr<MemoryVolume> volume);
  /// It is exported no more; who has it open keeps it.
  void remove(const std::string& name) { volumes_.erase(name); }
  /// From now on open() of `name` fails so.
  void refuse(const std::string& name, Error error) { refused_[name] = std::move(error); }

 private:
  std::map<std::string, std::shared_ptr<MemoryVolume>, std::less<>> volumes_;
  std::map<std::string, Error, std::less<>> refused_;
};

}  // namespace tandem::test
