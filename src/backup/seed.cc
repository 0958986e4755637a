#include "backup/seed.h"

#include <algorithm>
#include <cstring>

#include "format/checksum.h"

namespace tandem::backup {
namespace {

constexpr std::size_t kBlocksMax = kPieceBytesMax / kBlockBytes;

Error unusable(const Point& point, const std::string& why) {
  return {ErrorCode::kUnsupported, "no mirror can be made from point " +
                                       std::to_string(point.number) + ": " + why +
                                       "; it can be restored all the same"};
}

/// Timelines ascend, each begins where the one in front ends, and the point is on the last.
bool is_history_of(const SeedPoint& seed) {
  const auto& forks = seed.history;
  if (forks.empty() || forks.back().timeline != seed.point.timeline) return false;
  for (std::size_t i = 1; i < forks.size(); ++i) {
    if (forks[i].timeline <= forks[i - 1].timeline || forks[i].fork < forks[i - 1].fork)
      return false;
  }
  return forks.back().fork <= seed.point.lsn;
}

std::uint64_t blocks_of(const SeedVolume& volume, const std::vector<Layer>& layers) {
  std::uint64_t data_bytes = 0;
  for (const auto& layer : layers) data_bytes += layer.part.summary.data_bytes;
  return std::min(blocks_for(volume.size_bytes), blocks_for(data_bytes));
}

}  // namespace

Result<SeedPlan> plan_seed(const Repository& repository, const Point& point) {
  if (!point.manifest) return point.manifest.error();
  const Manifest& manifest = *point.manifest;
  if (!manifest.seed)
    return unusable(point,
                    "its manifest says nothing of the log that its snapshot is part of (an older "
                    "tandem or node made it, or it is of a branch); 'tandem backup create' makes "
                    "one that does");
  const auto group = Uuid::parse(manifest.group_id);
  if (!group || !is_history_of(*manifest.seed) || manifest.seed->point.lsn == Lsn{0})
    return Error{ErrorCode::kCorrupt, "point " + std::to_string(point.number) +
                                          ": its manifest contradicts itself about the log"};
  SeedPlan plan{.group = *group, .seed = *manifest.seed};
  for (const auto& volume : plan.seed.volumes) {
    const auto* part = manifest.find(volume.name);
    if (part == nullptr)
      return unusable(
          point, "it lacks volume " + volume.name + " of the group (it was made with --volume)");
    if (part->size_bytes != volume.size_bytes)
      return Error{ErrorCode::kCorrupt, "point " + std::to_string(point.number) +
                                            ": its manifest contradicts itself about volume " +
                                            volume.name};
    auto layers = repository.layers(point, volume.name);
    if (!layers) return Error(std::move(layers.error()));
    plan.volume_bytes += volume.size_bytes;
    plan.blocks += blocks_of(volume, *layers);
    plan.layers.push_back(std::move(*layers));
  }
  return plan;
}

message::ImageBegin image_of(const SeedPlan& plan) {
  message::ImageBegin begin;
  begin.point = plan.seed.point;
  begin.history = plan.seed.history;
  begin.next_volume_id = plan.seed.next_volume_id;
  begin.blocks_total = plan.blocks;
  for (const auto& v : plan.seed.volumes)
    begin.volumes.push_back({v.id, v.name, v.size_bytes, v.logical_block_bytes});
  return begin;
}

Result<std::unique_ptr<SeedReader>> SeedReader::open(const SeedPlan& plan, Progress progress) {
  std::unique_ptr<SeedReader> seed(new SeedReader(plan.seed.point.lsn, std::move(progress)));
  for (std::size_t i = 0; i < plan.layers.size(); ++i) {
    auto reader = LayeredReader::open(plan.layers[i]);
    if (!reader) return Error(std::move(reader.error()));
    seed->parts_.push_back({plan.seed.volumes[i].id, std::move(*reader)});
  }
  return seed;
}

bool SeedReader::is_full(const message::ImageBlocks& out) {
  return out.entries.size() == kBlocksMax;
}

Result<message::ImageBlocks> SeedReader::next() {
  message::ImageBlocks out;
  IoBuffer data = IoBuffer::on_heap(kPieceBytesMax);
  while (part_ < parts_.size() && !is_full(out)) {
    auto& part = parts_[part_];
    out.volume = part.id;
    if (!piece_) {
      auto piece = part.reader->next();
      if (!piece) return Error(std::move(piece.error()));
      piece_ = *piece;
      if (piece_ && progress_) progress_(piece_->length);
    }
    if (piece_) {
      take(out, data);
      continue;
    }
    end_block(out, data);
    ++part_;
    if (!out.entries.empty()) break;  // a message is about one volume
  }
  if (!out.entries.empty()) out.payload = {data.slice(0, out.entries.size() * kBlockBytes)};
  return out;
}

/// Of the piece as much as there is room for.
void SeedReader::take(message::ImageBlocks& out, IoBuffer& data) {
  while (piece_->length != 0 && !is_full(out)) {
    const VolumeBlock block{piece_->offset / kBlockBytes};
    const std::uint64_t within = piece_->offset % kBlockBytes;
    if (filling_ && *filling_ != block) {
      end_block(out, data);
      continue;
    }
    // What no byte was given of is zero.
    const auto length = piece_->zero
                            ? piece_->length
                            : std::min<std::uint64_t>(piece_->length, kBlockBytes - within);
    if (!piece_->zero) {
      std::byte* const to = data.data() + out.entries.size() * kBlockBytes;
      if (!filling_) std::memset(to, 0, kBlockBytes);
      std::memcpy(to + within, piece_->data.data(), length);
      piece_->data = piece_->data.subspan(length);
      filling_ = block;
    }
    piece_->offset += length;
    piece_->length -= length;
  }
  if (piece_->length == 0) piece_.reset();
}

void SeedReader::end_block(message::ImageBlocks& out, IoBuffer& data) {
  if (!filling_) return;
  const auto bytes = data.bytes().subspan(out.entries.size() * kBlockBytes, kBlockBytes);
  const auto crc = format::crc32c(bytes);
  const bool is_zero =
      std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{}; });
  if (!is_zero) out.entries.push_back({*filling_, crc, at_});
  filling_.reset();
}

}  // namespace tandem::backup
