#include "store/dead_list.h"

#include <algorithm>

namespace tandem::store {

Task<Status> DeadChunks::append(DeadChain& chain, std::vector<DeadBlock> blocks,
                                std::vector<Extent>& taken) {
  // The next chunk is written there: nowhere but in a place that was reserved.
  if (chain.tail.value != 0 && !space_.is_used(chain.tail)) {
    co_return Error{ErrorCode::kCorrupt, "dead list is to go on in a block that is free"};
  }
  std::vector<IoBuffer> pages;
  IoBatch io(device_);
  for (std::size_t done = 0; done < blocks.size(); done += format::kDeadPerChunk) {
    if (chain.tail.value == 0) {
      auto place = space_.allocate(1);
      if (!place) co_return Error{ErrorCode::kNoSpace, "no block for the dead list"};
      taken.push_back(*place);
      chain.tail = chain.head = place->start;
    }
    auto next = space_.allocate(1);
    if (!next) co_return Error{ErrorCode::kNoSpace, "no block for the dead list"};
    taken.push_back(*next);
    const auto count = std::min(format::kDeadPerChunk, blocks.size() - done);
    format::DeadChunk chunk{chain.tail, next->start, group_, {}};
    chunk.blocks.assign(blocks.begin() + static_cast<std::ptrdiff_t>(done),
                        blocks.begin() + static_cast<std::ptrdiff_t>(done + count));
    pages.push_back(IoBuffer::on_heap(kBlockBytes));
    format::encode_dead_chunk(format::Page(pages.back().bytes()), chunk);
    io.write(chain.tail.value * kBlockBytes, pages.back().bytes());
    chain.tail = next->start;
    chain.entries += count;
    ++chain.chunks;
  }
  co_return co_await io.run();
}

Task<Result<format::DeadChunk>> DeadChunks::first(const DeadChain& chain) const {
  CHECK(chain.chunks != 0);
  // So a chain that leads back into itself ends, too: what was dropped is not in use.
  if (!space_.is_used(chain.head)) {
    co_return Error{ErrorCode::kCorrupt, "dead list goes on in a block that is free"};
  }
  IoBuffer page = IoBuffer::on_heap(kBlockBytes);
  IoBatch io(device_);
  io.read(chain.head.value * kBlockBytes, page.bytes());
  Status read = co_await io.run();
  if (!read) co_return Error(std::move(read.error()));
  auto chunk = format::decode_dead_chunk(format::ConstPage(page.bytes()));
  if (chunk && (chunk->at != chain.head || chunk->group != group_)) {
    co_return Error{ErrorCode::kCorrupt, "dead list chunk is not where it belongs"};
  }
  co_return chunk;
}

void DeadChunks::release(PoolBlock block, std::vector<PoolBlock>& released) {
  space_.release(block);
  released.push_back(block);
}

void DeadChunks::drop_first(DeadChain& chain, const format::DeadChunk& first,
                            std::vector<PoolBlock>& released) {
  release(chain.head, released);
  chain.entries -= first.blocks.size();
  --chain.chunks;
  chain.head = first.next;
}

Task<Result<std::vector<DeadBlock>>> DeadChunks::take_all(DeadChain& chain,
                                                          std::vector<PoolBlock>& released) {
  std::vector<DeadBlock> all;
  while (chain.chunks != 0) {
    auto chunk = co_await first(chain);
    if (!chunk) co_return Error(std::move(chunk.error()));
    all.insert(all.end(), chunk->blocks.begin(), chunk->blocks.end());
    drop_first(chain, *chunk, released);
  }
  dissolve(chain, released);
  co_return all;
}

void DeadChunks::dissolve(DeadChain& chain, std::vector<PoolBlock>& released) {
  CHECK(chain.chunks == 0);
  if (chain.tail.value != 0) {
    release(chain.tail, released);
  }
  chain = DeadChain{};
}

std::vector<DeadBlock> DeadList::take_frozen() {
  std::vector<DeadBlock> frozen(recent_.begin(),
                                recent_.begin() + static_cast<std::ptrdiff_t>(frozen_));
  recent_.erase(recent_.begin(), recent_.begin() + static_cast<std::ptrdiff_t>(frozen_));
  frozen_ = 0;
  return frozen;
}

/// Of the first chunk that must stay, nothing is let go: chunks are small.
Task<Result<DeadChain>> DeadList::settle(Lsn horizon, std::vector<DeadBlock> waiting,
                                         std::vector<Extent>& taken,
                                         std::vector<PoolBlock>& released) {
  const auto may_go = [horizon](const DeadBlock& dead) { return dead.death <= horizon; };
  while (queue_.chunks != 0) {
    auto chunk = co_await chunks_.first(queue_);
    if (!chunk) co_return Error(std::move(chunk.error()));
    if (!std::all_of(chunk->blocks.begin(), chunk->blocks.end(), may_go)) break;
    for (const auto& dead : chunk->blocks) chunks_.release(dead.where, released);
    chunks_.drop_first(queue_, *chunk, released);
  }
  Status appended = co_await chunks_.append(queue_, std::move(waiting), taken);
  if (!appended) co_return Error(std::move(appended.error()));
  co_return queue_;
}

Task<Result<std::vector<DeadBlock>>> DeadList::take_if(
    const std::function<bool(const DeadBlock&)>& moves, std::vector<Extent>& taken,
    std::vector<PoolBlock>& released) {
  auto all = co_await chunks_.take_all(queue_, released);
  if (!all) co_return Error(std::move(all.error()));
  const auto stays = std::stable_partition(all->begin(), all->end(), moves);
  Status appended =
      co_await chunks_.append(queue_, std::vector<DeadBlock>(stays, all->end()), taken);
  if (!appended) co_return Error(std::move(appended.error()));
  all->erase(stays, all->end());
  co_return all;
}

}  // namespace tandem::store
