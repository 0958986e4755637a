#include "tests/sim/store_client.h"

#include <algorithm>
#include <array>

namespace tandem::sim {
namespace {

constexpr std::uint64_t kSector = kStampBytes;

}  // namespace

Mix Mix::from_seed(SimRandom random) {
  Mix mix;
  mix.depth = std::array<std::size_t, 4>{1, 2, 4, 12}[random.below(4)];
  mix.part_write = random.chance(1, 2) ? 0 : 5;
  mix.large_write = random.chance(1, 3) ? 3 : 0;
  mix.flush = random.chance(1, 4) ? 0 : static_cast<std::uint32_t>(random.between(1, 8));
  mix.discard = random.chance(1, 3) ? 0 : 3;
  mix.zero = random.chance(1, 3) ? 0 : 2;
  mix.resize = random.chance(1, 2) ? 0 : 1;
  mix.create = random.chance(1, 2) ? 0 : 1;
  mix.remove = mix.create;
  mix.checkpoint = random.chance(1, 3) ? 0 : static_cast<std::uint32_t>(random.between(1, 4));
  mix.fua_of_16 = random.chance(1, 3) ? 0 : static_cast<std::uint32_t>(random.between(1, 8));
  mix.compact = random.chance(1, 2) ? 0 : 2;
  return mix;
}

StoreClients::StoreClients(SimRuntime& world, ClientTarget& target, StoreModel& model, Mix mix,
                           std::uint64_t seed)
    : world_(world), target_(target), model_(model), mix_(mix), random_(seed) {}

Task<Status> StoreClients::make_volumes(std::size_t volumes, std::uint64_t size_bytes) {
  for (std::size_t i = 0; i < volumes; ++i) {
    std::string name = "v" + std::to_string(names_++);
    const OpId op = model_.begin_create(name, size_bytes);
    Status made = co_await target_.create_volume(name, size_bytes);
    if (!made) co_return made;
    model_.acknowledge(op);
  }
  co_return ok();
}

bool StoreClients::is_over() const {
  return started_ >= mix_.operations || target_.is_dead() || !complaint_.empty() ||
         target_.is_stopped();
}

Task<void> StoreClients::run() {
  names_ = std::max<std::size_t>(names_, model_.next_op() + 100);
  running_ = mix_.depth;
  for (std::size_t i = 0; i < mix_.depth; ++i) spawn(worker());
  while (running_ != 0) co_await finished_.wait();
}

Task<void> StoreClients::worker() {
  while (!is_over()) {
    ++started_;
    co_await one();
  }
  // A turn later, so that the last worker's frame is gone before run() goes on.
  co_await next_turn(world_);
  if (--running_ == 0) finished_.notify_all();
}

Task<void> StoreClients::one() {
  const std::array<std::uint32_t, 13> weights{
      mix_.write,      mix_.part_write, mix_.large_write, mix_.flush,  mix_.discard,
      mix_.zero,       mix_.read,       mix_.resize,      mix_.create, mix_.remove,
      mix_.checkpoint, mix_.pause,      mix_.compact};
  std::uint64_t total = 0;
  for (const auto w : weights) total += w;
  std::uint64_t point = random_.below(total);
  std::size_t chosen = 0;
  while (point >= weights[chosen]) point -= weights[chosen++];
  switch (chosen) {
    case 0:
      co_await write(false, false);
      break;
    case 1:
      co_await write(true, false);
      break;
    case 2:
      co_await write(false, true);
      break;
    case 3:
      co_await flush();
      break;
    case 4:
      co_await clear(true);
      break;
    case 5:
      co_await clear(false);
      break;
    case 6:
      co_await read();
      break;
    case 7:
      co_await resize();
      break;
    case 8:
      co_await create();
      break;
    case 9:
      co_await remove();
      break;
    case 10:
      co_await checkpoint();
      break;
    case 12:
      target_.compact();
      break;
    default: {
      const Nanoseconds delay(static_cast<std::int64_t>(random_.below(3'000'000)));
      co_await sleep_for(world_, delay);
    }
  }
}

StoreClients::Range StoreClients::pick(bool part, bool large) {
  const auto names = model_.volume_names();
  for (int attempt = 0; attempt < 20; ++attempt) {
    Range range;
    range.volume = names[random_.below(names.size())];
    if (busy_shape_.contains(range.volume)) continue;
    const std::uint64_t size = model_.size_of(range.volume);
    const std::uint64_t unit = part ? kSector : kBlockBytes;
    const std::uint64_t units = size / unit;
    if (units == 0) continue;
    // Mostly a small hot part of the volume, so that blocks are overwritten again and again.
    const std::uint64_t reach = random_.chance(3, 4) ? std::min<std::uint64_t>(units, 24) : units;
    const std::uint64_t first = random_.below(reach);
    const std::uint64_t longest = large ? 200 : part ? 20 : 6;
    range.offset = first * unit;
    range.length = std::min(random_.between(1, longest), units - first) * unit;
    const bool taken = std::any_of(changing_.begin(), changing_.end(),
                                   [&](const Range& r) { return r.is_inside(range); });
    if (!taken || mix_.overlap) return range;
  }
  return {};
}

std::shared_ptr<Volume> StoreClients::open(const std::string& volume) {
  auto opened = target_.open_volume(volume);
  return opened ? std::move(*opened) : nullptr;
}

/// What the client learnt. A node whose disk is off cannot tell anybody anything any more.
void StoreClients::answer(OpId op, const Status& status) {
  if (target_.is_dead()) return model_.doubt(op);
  if (status) {
    ++acknowledged_;
    return model_.acknowledge(op);
  }
  if (status.error().code == ErrorCode::kNoSpace) {
    ++refused_;
    return model_.refuse(op);
  }
  ++failed_;
  model_.doubt(op);
}

Task<void> StoreClients::write(bool part, bool large) {
  const Range range = pick(part, large);
  if (range.length == 0) co_return;
  const auto volume = open(range.volume);
  if (!volume) co_return;
  WriteOptions options;
  options.fua = random_.chance(mix_.fua_of_16, 16);
  IoBuffer data = IoBuffer::on_heap(range.length);
  const OpId op = model_.begin_write(range.volume, range.offset, range.length, options.fua);
  stamp(op, range.volume, range.offset, data.bytes());
  changing_.push_back(range);
  const Status status = co_await volume->write(range.offset, std::move(data), options);
  std::erase_if(changing_, [&](const Range& r) {
    return r.volume == range.volume && r.offset == range.offset && r.length == range.length;
  });
  answer(op, status);
}

Task<void> StoreClients::clear(bool discard) {
  const Range range = pick(mix_.part_write != 0, random_.chance(1, 4));
  if (range.length == 0) co_return;
  const auto volume = open(range.volume);
  if (!volume) co_return;
  WriteOptions options;
  options.fua = random_.chance(mix_.fua_of_16, 16);
  options.no_hole = random_.chance(1, 2);
  const OpId op = model_.begin_zero(range.volume, range.offset, range.length, options.fua);
  changing_.push_back(range);
  Status status;
  if (discard) {
    status = co_await volume->discard(range.offset, range.length, options);
  } else {
    status = co_await volume->write_zeroes(range.offset, range.length, options);
  }
  std::erase_if(changing_, [&](const Range& r) {
    return r.volume == range.volume && r.offset == range.offset && r.length == range.length;
  });
  answer(op, status);
}

Task<void> StoreClients::read() {
  const Range range = pick(random_.chance(1, 2), random_.chance(1, 4));
  if (range.length == 0) co_return;
  const auto volume = open(range.volume);
  if (!volume) co_return;
  const std::uint64_t called = model_.now();
  auto data = co_await volume->read(range.offset, range.length);
  if (target_.is_dead() || !complaint_.empty()) co_return;
  if (!data) {
    ++failed_;
    co_return;
  }
  // A volume that was deleted meanwhile may have anything, even nothing.
  if (model_.size_of(range.volume) == 0) co_return;
  auto problem = model_.check_read(range.volume, range.offset, data->bytes(), called);
  if (problem) complaint_ = std::move(*problem);
}

Task<void> StoreClients::flush() {
  const auto names = model_.volume_names();
  const auto volume = open(names[random_.below(names.size())]);
  if (!volume) co_return;
  const OpId op = model_.begin_flush();
  const Status status = co_await volume->flush();
  answer(op, status);
}

Task<void> StoreClients::resize() {
  const auto names = model_.volume_names();
  const std::string name = names[random_.below(names.size())];
  const std::uint64_t size = model_.size_of(name) + kBlockBytes * random_.between(1, 300);
  if (size > mix_.volume_bytes_max || busy_shape_.contains(name)) co_return;
  busy_shape_.insert(name);
  const OpId op = model_.begin_resize(name, size);
  const Status status = co_await target_.resize_volume(name, size);
  answer(op, status);
  // In doubt about a size nobody can address the volume's new end: leave it alone from now on.
  if (status) busy_shape_.erase(name);
}

Task<void> StoreClients::create() {
  if (model_.volume_names().size() >= 4) co_return;
  const std::string name = "v" + std::to_string(names_++);
  const std::uint64_t size = kBlockBytes * random_.between(1, 100);
  busy_shape_.insert(name);
  const OpId op = model_.begin_create(name, size);
  const Status status = co_await target_.create_volume(name, size);
  answer(op, status);
  if (status) busy_shape_.erase(name);
}

Task<void> StoreClients::remove() {
  const auto names = model_.volume_names();
  const std::string name = names[random_.below(names.size())];
  const bool in_use = std::any_of(changing_.begin(), changing_.end(),
                                  [&](const Range& r) { return r.volume == name; });
  if (names.size() < 2 || in_use || busy_shape_.contains(name)) co_return;
  busy_shape_.insert(name);
  const OpId op = model_.begin_delete(name);
  const Status status = co_await target_.delete_volume(name);
  answer(op, status);
}

Task<void> StoreClients::checkpoint() {
  const Status status = co_await target_.checkpoint();
  if (!status && !target_.is_dead()) ++failed_;
}

}  // namespace tandem::sim
