// What every write pays: the checksum of its data, its record, and the digest over that.
#include <benchmark/benchmark.h>

#include <vector>

#include "format/checksum.h"
#include "format/record.h"

namespace tandem::format {
namespace {

std::vector<std::byte> some_bytes(std::size_t n) {
  std::vector<std::byte> bytes(n);
  std::uint64_t x = 1;
  for (auto& b : bytes) b = static_cast<std::byte>((x = x * 6364136223846793005ull + 1) >> 56);
  return bytes;
}

void BM_Crc32c(benchmark::State& state) {
  const auto bytes = some_bytes(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(crc32c(bytes));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Crc32c)->Arg(4096)->Arg(64 << 10)->Arg(1 << 20);

RecordHeader header_for(std::uint32_t blocks) {
  return {.type = RecordType::kWrite,
          .volume = VolumeId{1},
          .lsn = Lsn{42},
          .utc = UtcNs{1'700'000'000'000'000'000},
          .first_block = VolumeBlock{7},
          .block_count = blocks};
}

std::vector<std::byte> encoded(std::uint32_t blocks) {
  std::vector<std::byte> bytes(write_record_bytes(blocks));
  Encoder out(bytes);
  const std::vector<std::uint32_t> crcs(blocks, 0x12345678);
  encode_write(out, header_for(blocks), crcs);
  return bytes;
}

void BM_Digest(benchmark::State& state) {
  const auto record = encoded(static_cast<std::uint32_t>(state.range(0)));
  Digest digest;
  for (auto _ : state) benchmark::DoNotOptimize(digest = chain(digest, record));
}
BENCHMARK(BM_Digest)->Arg(1)->Arg(64);

void BM_EncodeWrite(benchmark::State& state) {
  const auto blocks = static_cast<std::uint32_t>(state.range(0));
  std::vector<std::byte> bytes(write_record_bytes(blocks));
  const std::vector<std::uint32_t> crcs(blocks, 0x12345678);
  const RecordHeader header = header_for(blocks);
  for (auto _ : state) {
    Encoder out(bytes);
    encode_write(out, header, crcs);
    benchmark::ClobberMemory();
  }
}
BENCHMARK(BM_EncodeWrite)->Arg(1)->Arg(64);

void BM_DecodeRecord(benchmark::State& state) {
  const auto bytes = encoded(static_cast<std::uint32_t>(state.range(0)));
  for (auto _ : state) {
    Decoder in(bytes);
    auto record = decode_record(in);
    if (!record) state.SkipWithError("the record does not decode");
    benchmark::DoNotOptimize(record);
  }
}
BENCHMARK(BM_DecodeRecord)->Arg(1)->Arg(64);

}  // namespace
}  // namespace tandem::format
