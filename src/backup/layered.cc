#include "backup/layered.h"

#include <algorithm>

#include "tandem/base/check.h"

namespace tandem::backup {

Result<std::unique_ptr<LayeredReader>> LayeredReader::open(const std::vector<Layer>& layers) {
  CHECK(!layers.empty());
  auto volume = std::make_unique<LayeredReader>();
  for (const auto& layer : layers) {
    auto reader = ChunkReader::open(layer.file);
    if (!reader) return Error(std::move(reader.error()));
    volume->layers_.push_back({layer.part, layer.file, std::move(*reader), {}, false});
  }
  return volume;
}

Status LayeredReader::advance(Open& layer) {
  while (!layer.through && (!layer.chunk || layer.chunk->offset + layer.chunk->length <= at_)) {
    auto chunk = layer.reader->next();
    if (!chunk) return Error(std::move(chunk.error()));
    layer.chunk = *chunk;
    layer.through = !*chunk;
  }
  return ok();
}

Result<std::optional<Chunk>> LayeredReader::next() {
  if (at_ >= size_bytes()) {
    TANDEM_TRY(check_the_rest());
    return std::optional<Chunk>{};
  }
  for (auto& layer : layers_) TANDEM_TRY(advance(layer));
  // From the newest down to the first that says what is here; the newer ones say where it ends.
  Chunk piece{at_, 0, true, {}};
  std::uint64_t end = size_bytes();
  for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer) {
    const auto& chunk = layer->chunk;
    if (at_ >= layer->part.size_bytes) break;  // behind a smaller point's end: zeroes
    end = std::min(end, layer->part.size_bytes);
    if (chunk && chunk->offset <= at_) {
      end = std::min(end, chunk->offset + chunk->length);
      piece.zero = chunk->zero;
      if (!chunk->zero) piece.data = chunk->data.subspan(at_ - chunk->offset, end - at_);
      break;
    }
    if (chunk) end = std::min(end, chunk->offset);
  }
  piece.length = end - at_;
  at_ = end;
  return std::optional(piece);
}

Status LayeredReader::check_the_rest() {
  for (auto& layer : layers_) {
    at_ = ~std::uint64_t{};  // every chunk is behind us
    TANDEM_TRY(advance(layer));
    if (layer.reader->summary() != layer.part.summary)
      return Error{ErrorCode::kCorrupt,
                   layer.file.string() + " is not the file that its manifest describes"};
  }
  return ok();
}

}  // namespace tandem::backup
