// An image of a group, or a difference, as the messages that carry it.
#pragma once

#include <optional>
#include <vector>

#include "store/group.h"

namespace tandem::sim {

struct Image {
  message::ImageBegin begin;
  std::vector<message::ImageBlocks> blocks;
};

inline Task<Result<Image>> take_image(store::Group& from, std::optional<LogPoint> since) {
  Image image;
  auto begin = co_await from.begin_image(std::move(since));
  if (!begin) co_return Error(std::move(begin.error()));
  image.begin = std::move(*begin);
  for (;;) {
    auto blocks = co_await from.read_image(16 * kBlockBytes);
    if (!blocks) co_return Error(std::move(blocks.error()));
    if (blocks->entries.empty()) break;
    image.blocks.push_back(std::move(*blocks));
  }
  from.end_image();
  co_return image;
}

inline Task<Status> install(store::Group& to, Image image) {
  message::ImageEnd end;
  end.point = image.begin.point;
  Status done = co_await to.begin_install(image.begin);
  if (!done) co_return done;
  for (auto& blocks : image.blocks) {
    done = co_await to.install_blocks(std::move(blocks));
    if (!done) co_return done;
  }
  co_return co_await to.finish_install(end);
}

}  // namespace tandem::sim
