#include "store/dead_list.h"

namespace tandem::store {

void DeadList::add(const DeadBlock& dead) {
  CHECK(recent_.empty() || recent_.back().death <= dead.death);
  recent_.push_back(dead);
}

Task<Result<format::DeadQueue>> DeadList::settle(Lsn horizon, std::vector<Extent>& taken,
                                                 std::vector<PoolBlock>& released) {
  Status chunks = co_await release_chunks(horizon, released);
  if (!chunks) co_return Error(std::move(chunks.error()));
  std::vector<DeadBlock> keep;
  for (; frozen_ != 0; --frozen_) {
    const DeadBlock dead = recent_.front();
    recent_.pop_front();
    if (dead.death <= horizon) {
      space_.release(dead.where);
      released.push_back(dead.where);
    } else {
      keep.push_back(dead);
    }
  }
  Status appended = co_await append_chunks(std::move(keep), taken);
  if (!appended) co_return Error(std::move(appended.error()));
  co_return queue_;
}

/// Lets go whole chunks from the front, and of the first that must stay, nothing: chunks are small.
Task<Status> DeadList::release_chunks(Lsn horizon, std::vector<PoolBlock>& released) {
  IoBuffer page = IoBuffer::on_heap(kBlockBytes);
  while (queue_.chunks != 0) {
    IoBatch io(device_);
    io.read(queue_.head.value * kBlockBytes, page.bytes());
    Status read = co_await io.run();
    if (!read) co_return read;
    auto chunk = format::decode_dead_chunk(format::ConstPage(page.bytes()));
    if (!chunk) co_return Error(std::move(chunk.error()));
    if (chunk->at != queue_.head) {
      co_return Error{ErrorCode::kCorrupt, "dead list chunk is not where it belongs"};
    }
    if (!chunk->blocks.empty() && chunk->blocks.back().death > horizon) break;
    for (const auto& dead : chunk->blocks) {
      space_.release(dead.where);
      released.push_back(dead.where);
    }
    space_.release(queue_.head);
    released.push_back(queue_.head);
    queue_.entries -= chunk->blocks.size();
    --queue_.chunks;
    queue_.head = chunk->next;
  }
  co_return ok();
}

Task<Status> DeadList::append_chunks(std::vector<DeadBlock> blocks, std::vector<Extent>& taken) {
  std::vector<IoBuffer> pages;
  IoBatch io(device_);
  for (std::size_t done = 0; done < blocks.size(); done += format::kDeadPerChunk) {
    if (queue_.tail.value == 0) {
      auto place = space_.allocate(1);
      if (!place) co_return Error{ErrorCode::kNoSpace, "no block for the dead list"};
      taken.push_back(*place);
      queue_.tail = queue_.head = place->start;
    }
    auto next = space_.allocate(1);
    if (!next) co_return Error{ErrorCode::kNoSpace, "no block for the dead list"};
    taken.push_back(*next);
    const auto count = std::min(format::kDeadPerChunk, blocks.size() - done);
    format::DeadChunk chunk{queue_.tail, next->start, {}};
    chunk.blocks.assign(blocks.begin() + static_cast<std::ptrdiff_t>(done),
                        blocks.begin() + static_cast<std::ptrdiff_t>(done + count));
    pages.push_back(IoBuffer::on_heap(kBlockBytes));
    format::encode_dead_chunk(format::Page(pages.back().bytes()), chunk);
    io.write(queue_.tail.value * kBlockBytes, pages.back().bytes());
    queue_.tail = next->start;
    queue_.entries += count;
    ++queue_.chunks;
  }
  co_return co_await io.run();
}

}  // namespace tandem::store
