#include "tests/support/sim_disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tandem::sim {
namespace {

constexpr std::size_t kSectors = kBlockBytes / kSectorBytes;
constexpr std::byte kReadPoison{0xdb};

SimPage content(const SimPageRef& ref) { return ref ? *ref : SimPage{}; }

SimPageRef to_ref(const SimPage& page) {
  static const SimPage kZeroes{};
  if (std::memcmp(page.data(), kZeroes.data(), kBlockBytes) == 0) return nullptr;
  return std::make_shared<const SimPage>(page);
}

void put(SimImage::Pages& pages, std::uint64_t at, const SimPageRef& ref) {
  if (ref) {
    pages[at] = ref;
  } else {
    pages.erase(at);
  }
}

SimPageRef get(const SimImage::Pages& pages, std::uint64_t at) {
  const auto found = pages.find(at);
  return found == pages.end() ? nullptr : found->second;
}

/// The version of page `at` in `write`, or null; pages ascend.
const SimPageRef* find_page(const SimImage::VolatileWrite& write, std::uint64_t at) {
  if (write.empty() || at < write.front().first || at > write.back().first) return nullptr;
  const auto found = std::lower_bound(write.begin(), write.end(), at,
                                      [](const auto& p, std::uint64_t v) { return p.first < v; });
  return found != write.end() && found->first == at ? &found->second : nullptr;
}

void copy_sector(SimPage& into, const SimPage& from, std::size_t sector) {
  std::memcpy(into.data() + sector * kSectorBytes, from.data() + sector * kSectorBytes,
              kSectorBytes);
}

void fill_garbage(std::span<std::byte> bytes, SimRandom& random) {
  for (std::byte& b : bytes) b = static_cast<std::byte>(random.next());
}

/// Each sector old or new by the seed.
SimPageRef mix_sectors(const SimPageRef& before, const SimPageRef& after, SimRandom& random) {
  SimPage page = content(before);
  const SimPage other = content(after);
  const std::uint64_t coins = random.next();
  for (std::size_t s = 0; s < kSectors; ++s) {
    if ((coins >> s) & 1) copy_sector(page, other, s);
  }
  return to_ref(page);
}

/// What a cut leaves of a page that was being written: a beginning, an end, or any of its sectors.
SimPageRef tear(const SimPageRef& before, const SimPageRef& after, bool garbage,
                SimRandom& random) {
  SimPage page = content(before);
  const SimPage other = content(after);
  const std::size_t boundary = random.between(1, kSectors - 1);
  const std::uint64_t shape = random.below(3);
  const std::uint64_t coins = random.next();
  for (std::size_t s = 0; s < kSectors; ++s) {
    const bool is_new = shape == 0   ? s < boundary
                        : shape == 1 ? s >= boundary
                                     : ((coins >> s) & 1) != 0;
    if (is_new) copy_sector(page, other, s);
  }
  if (garbage && random.chance(1, 4)) {
    fill_garbage(std::span(page).subspan(boundary * kSectorBytes, kSectorBytes), random);
  }
  return to_ref(page);
}

void flip_sectors(SimPage& page, std::size_t first, std::size_t last, SimRandom& random) {
  for (std::size_t s = first; s <= last; ++s) {
    const std::size_t at = s * kSectorBytes + random.below(kSectorBytes);
    page[at] ^= static_cast<std::byte>(1u << random.below(8));
  }
}

SimPageRef damaged(const SimPageRef& ref, std::uint64_t page_at, std::uint64_t offset,
                   std::uint64_t length, SimRandom random) {
  SimPage page = content(ref);
  const std::uint64_t begin = std::max(offset, page_at * kBlockBytes) - page_at * kBlockBytes;
  const std::uint64_t end =
      std::min(offset + length, (page_at + 1) * kBlockBytes) - page_at * kBlockBytes;
  flip_sectors(page, begin / kSectorBytes, (end - 1) / kSectorBytes, random);
  return to_ref(page);
}

}  // namespace

SimImage::Pages SimImage::view() const {
  Pages pages = durable_;
  for (const auto& write : volatile_) {
    for (const auto& [at, ref] : write) put(pages, at, ref);
  }
  return pages;
}

void SimImage::read(std::uint64_t offset, std::span<std::byte> into) const {
  CHECK(offset <= size_bytes_ && into.size() <= size_bytes_ - offset);
  const Pages pages = volatile_.empty() ? Pages{} : view();
  const Pages& from = volatile_.empty() ? durable_ : pages;
  for (std::size_t done = 0; done < into.size();) {
    const std::uint64_t at = offset + done;
    const std::size_t inside = at % kBlockBytes;
    const std::size_t n = std::min(into.size() - done, kBlockBytes - inside);
    const SimPage page = content(get(from, at / kBlockBytes));
    std::memcpy(into.data() + done, page.data() + inside, n);
    done += n;
  }
}

void SimImage::write(std::uint64_t offset, std::span<const std::byte> from) {
  CHECK(offset <= size_bytes_ && from.size() <= size_bytes_ - offset);
  durable_ = view();
  volatile_.clear();
  for (std::size_t done = 0; done < from.size();) {
    const std::uint64_t at = offset + done;
    const std::size_t inside = at % kBlockBytes;
    const std::size_t n = std::min(from.size() - done, kBlockBytes - inside);
    SimPage page = content(get(durable_, at / kBlockBytes));
    std::memcpy(page.data() + inside, from.data() + done, n);
    put(durable_, at / kBlockBytes, to_ref(page));
    done += n;
  }
}

void SimImage::corrupt(std::uint64_t offset, std::uint64_t length, SimRandom& random) {
  CHECK(length != 0);
  durable_ = view();
  volatile_.clear();
  for (std::uint64_t p = offset / kBlockBytes; p * kBlockBytes < offset + length; ++p) {
    put(durable_, p, damaged(get(durable_, p), p, offset, length, random.fork()));
  }
}

void SimImage::truncate(std::uint64_t size_bytes) {
  CHECK(size_bytes <= size_bytes_);
  durable_ = view();
  volatile_.clear();
  durable_.erase(durable_.lower_bound(blocks_for(size_bytes)), durable_.end());
  size_bytes_ = size_bytes;
}

SimDisk::SimDisk(SimRuntime& world, SimImage image, Options options)
    : world_(world),
      executor_(options.executor != nullptr ? *options.executor : world),
      options_(std::move(options)),
      random_(options_.seed),
      size_bytes_(image.size_bytes()),
      durable_(image.durable_),
      view_(image.view()) {
  for (auto& write : image.volatile_) volatile_.push_back({++completed_, std::move(write)});
}

SimDisk::~SimDisk() { CHECK(in_flight_.empty()); }

bool SimDisk::is_inside(std::uint64_t offset, std::uint64_t length) const {
  return offset <= size_bytes_ && length <= size_bytes_ - offset;
}

void SimDisk::validate(const IoRequest& request) const {
  using Kind = IoRequest::Kind;
  CHECK(request.complete != nullptr);
  if (request.kind == Kind::kFlush) return;
  const bool has_buffer = request.kind == Kind::kRead || request.kind == Kind::kWrite;
  const std::uint64_t length = has_buffer ? request.buffer.size() : request.length;
  CHECK(length != 0 && length % kBlockBytes == 0);
  CHECK(request.offset % kBlockBytes == 0);
  CHECK(request.kind == Kind::kRead || is_inside(request.offset, length));
  if (has_buffer) CHECK(reinterpret_cast<std::uintptr_t>(request.buffer.data()) % kBlockBytes == 0);
}

void SimDisk::count(const IoRequest& request) {
  switch (request.kind) {
    case IoRequest::Kind::kRead:
      ++counters_.reads;
      counters_.bytes_read += request.buffer.size();
      break;
    case IoRequest::Kind::kWrite:
      ++counters_.writes;
      counters_.bytes_written += request.buffer.size();
      break;
    case IoRequest::Kind::kFlush:
      ++counters_.flushes;
      break;
    case IoRequest::Kind::kDiscard:
      ++counters_.discards;
      break;
    case IoRequest::Kind::kZero:
      ++counters_.zeroes;
      break;
  }
}

std::optional<DiskFault> SimDisk::fault_for(const IoRequest& request) {
  std::optional<DiskFault> hit;
  for (auto& [fault, seen] : faults_) {
    if (fault.kind != request.kind) continue;
    ++seen;
    if (seen == fault.nth || (fault.sticky && seen > fault.nth)) hit = fault;
  }
  const auto rate = rates_.find(request.kind);
  if (!hit && rate != rates_.end() &&
      random_.chance(rate->second.numerator, rate->second.denominator)) {
    hit = DiskFault{.kind = request.kind, .error = rate->second.error};
  }
  return hit;
}

void SimDisk::submit(IoRequest& request) {
  CHECK(world_.is_here());
  validate(request);
  if (request.kind == IoRequest::Kind::kRead && !is_inside(request.offset, request.buffer.size())) {
    executor_.post([&request] {
      request.error = EIO;
      request.complete(request);
    });
    return;
  }
  const std::uint64_t id = ++last_id_;
  Nanoseconds latency{static_cast<std::int64_t>(
      random_.between(static_cast<std::uint64_t>(options_.latency_min.count()),
                      static_cast<std::uint64_t>(options_.latency_max.count())))};
  InFlight op;
  op.request = &request;
  if (!is_off()) {
    count(request);
    op.fault = fault_for(request);
    if (op.fault && op.fault->effect == DiskFault::Effect::kStall) latency += op.fault->stall;
    const std::uint64_t first = request.offset / kBlockBytes;
    if (request.kind == IoRequest::Kind::kWrite) {
      for (std::size_t i = 0; i * kBlockBytes < request.buffer.size(); ++i) {
        SimPage page;
        std::memcpy(page.data(), request.buffer.data() + i * kBlockBytes, kBlockBytes);
        op.pages.emplace_back(first + i, to_ref(page));
      }
    } else if (request.kind == IoRequest::Kind::kFlush) {
      op.covers = completed_;
    } else if (request.kind == IoRequest::Kind::kRead) {
      op.sampled_early = random_.chance(1, 2);
      for (std::size_t i = 0; op.sampled_early && i * kBlockBytes < request.buffer.size(); ++i) {
        op.early.emplace_back(first + i, sample(first + i));
      }
      std::fill(request.buffer.begin(), request.buffer.end(), kReadPoison);
    } else {
      op.pages = range_change(request);
    }
  }
  in_flight_.emplace(id, std::move(op));
  executor_.schedule_after(latency, [this, id] { finish(id); });
  if (request.kind != IoRequest::Kind::kRead) moment(Moment::kSubmitted, request);
}

/// kZero and kDiscard change only pages that hold something: all others are zero already.
SimImage::VolatileWrite SimDisk::range_change(const IoRequest& request) {
  SimImage::VolatileWrite change;
  const std::uint64_t first = request.offset / kBlockBytes;
  const std::uint64_t end = (request.offset + request.length) / kBlockBytes;
  std::set<std::uint64_t> affected;
  for (auto p = view_.lower_bound(first); p != view_.end() && p->first < end; ++p) {
    affected.insert(p->first);
  }
  for (const auto& [id, other] : in_flight_) {
    for (const auto& [at, ref] : other.pages) {
      if (at >= first && at < end) affected.insert(at);
    }
  }
  for (const std::uint64_t at : affected) {
    SimPageRef becomes;
    if (request.kind == IoRequest::Kind::kDiscard) {
      const std::uint64_t fate = random_.below(3);  // a hole, the old content, or anything at all
      SimPage garbage;
      if (fate == 1) becomes = page_now(at);
      if (fate == 2) {
        fill_garbage(garbage, random_);
        becomes = to_ref(garbage);
      }
    }
    change.emplace_back(at, becomes);
  }
  return change;
}

void SimDisk::moment(Moment when, const IoRequest& request) {
  if (is_off()) return;
  if (observer_) observer_(when, request);
  if (!moments_left_) return;
  if (--*moments_left_ == 0) power_off(planned_cut_);
}

void SimDisk::finish(std::uint64_t id) {
  auto node = in_flight_.extract(id);
  InFlight& op = node.mapped();
  IoRequest& request = *op.request;
  request.error = is_off() ? EIO : carry_out(op);
  world_.trace(static_cast<std::uint64_t>(request.kind) * 1000 +
               static_cast<std::uint64_t>(request.error));
  world_.trace(request.offset ^ (request.buffer.size() << 40));
  if (request.kind != IoRequest::Kind::kRead) moment(Moment::kCompleted, request);
  // The power may have gone at this very moment: then the owner never hears of success.
  if (is_off()) request.error = EIO;
  request.complete(request);
}

int SimDisk::carry_out(InFlight& op) {
  switch (op.request->kind) {
    case IoRequest::Kind::kRead:
      return finish_read(op);
    case IoRequest::Kind::kFlush:
      return finish_flush(op);
    default:
      return finish_write(op);
  }
}

int SimDisk::finish_read(InFlight& op) {
  if (op.fault && op.fault->effect == DiskFault::Effect::kError) return op.fault->error;
  const std::uint64_t first = op.request->offset / kBlockBytes;
  for (std::size_t i = 0; i * kBlockBytes < op.request->buffer.size(); ++i) {
    const SimPage page = content(op.sampled_early ? op.early[i].second : sample(first + i));
    std::memcpy(op.request->buffer.data() + i * kBlockBytes, page.data(), kBlockBytes);
  }
  return 0;
}

int SimDisk::finish_write(InFlight& op) {
  const auto effect = op.fault ? std::optional(op.fault->effect) : std::nullopt;
  if (op.request->kind == IoRequest::Kind::kWrite) {
    // Memory that changes under a write in flight is a bug of the writer: a real disk stores a mix.
    for (std::size_t i = 0; i < op.pages.size(); ++i) {
      const SimPage page = content(op.pages[i].second);
      CHECK(std::memcmp(page.data(), op.request->buffer.data() + i * kBlockBytes, kBlockBytes) ==
            0);
    }
  }
  if (effect == DiskFault::Effect::kLose) return 0;
  if (effect == DiskFault::Effect::kMisdirect) {
    const std::uint64_t target = op.fault->misdirect_to / kBlockBytes;
    for (std::size_t i = 0; i < op.pages.size(); ++i) {
      op.pages[i].first = std::min(target + i, size_bytes_ / kBlockBytes - 1);
    }
    become_visible(std::move(op.pages));
    return 0;
  }
  const bool failed = effect == DiskFault::Effect::kError;
  if (failed && op.fault->error == ENOSPC) return ENOSPC;
  for (auto& [at, ref] : op.pages) {
    if (failed || op.contested.contains(at)) ref = mix_sectors(page_now(at), ref, random_);
  }
  become_visible(std::move(op.pages));
  return failed ? op.fault->error : 0;
}

void SimDisk::become_visible(SimImage::VolatileWrite pages) {
  for (const auto& [at, ref] : pages) {
    put(view_, at, ref);
    for (auto& [id, other] : in_flight_) {
      if (find_page(other.pages, at) != nullptr) other.contested.insert(at);
    }
  }
  volatile_.push_back({++completed_, std::move(pages)});
}

int SimDisk::finish_flush(InFlight& op) {
  if (op.fault && op.fault->effect == DiskFault::Effect::kError) {
    make_durable(op.covers, /*lossy=*/true);
    return op.fault->error;
  }
  const bool lost = op.fault && op.fault->effect == DiskFault::Effect::kLose;
  if (!lying_flush_ && !lost) make_durable(op.covers, /*lossy=*/false);
  return 0;
}

void SimDisk::make_durable(std::uint64_t up_to, bool lossy) {
  const auto end = std::find_if(volatile_.begin(), volatile_.end(),
                                [&](const Completed& c) { return c.sequence > up_to; });
  for (auto write = volatile_.begin(); write != end; ++write) {
    for (const auto& [at, ref] : write->pages) {
      if (lossy && random_.chance(1, 2)) continue;
      put(durable_, at, ref);
    }
  }
  volatile_.erase(volatile_.begin(), end);
  if (!lossy) return;
  // The kernel marks such pages clean, so that even a reader on this boot may see the old content.
  view_ = durable_;
  for (const auto& write : volatile_) {
    for (const auto& [at, ref] : write.pages) put(view_, at, ref);
  }
}

SimPageRef SimDisk::page_now(std::uint64_t page) const { return get(view_, page); }

SimPageRef SimDisk::sample(std::uint64_t page) {
  SimPageRef seen = page_now(page);
  for (const auto& [id, op] : in_flight_) {
    if (const SimPageRef* ref = find_page(op.pages, page)) seen = mix_sectors(seen, *ref, random_);
  }
  return seen;
}

SimImage SimDisk::crash_image(const CutOptions& cut, SimRandom& random) const {
  SimImage image(size_bytes_);
  image.durable_ = durable_;
  std::vector<const SimImage::VolatileWrite*> pending;
  for (const auto& write : volatile_) pending.push_back(&write.pages);
  std::vector<const SimImage::VolatileWrite*> flying;
  for (const auto& [id, op] : in_flight_) {
    if (!op.pages.empty()) flying.push_back(&op.pages);
  }
  if (cut.mode == CutOptions::Mode::kRandom) {
    // Writes in flight reach the platter in any order.
    for (std::size_t i = flying.size(); i > 1; --i)
      std::swap(flying[i - 1], flying[random.below(i)]);
  }
  pending.insert(pending.end(), flying.begin(), flying.end());
  // Some cuts lose nearly everything and some nearly nothing: even odds for every page would make
  // both all but impossible once many pages are pending.
  const std::uint64_t keep_of_16 = random.below(17);
  for (std::size_t i = 0; i < pending.size(); ++i) {
    for (const auto& [at, ref] : *pending[i]) {
      switch (cut.mode) {
        case CutOptions::Mode::kKeepAll:
          put(image.durable_, at, ref);
          break;
        case CutOptions::Mode::kDropAll:
          break;
        case CutOptions::Mode::kByMask:
          if (i >= 64 || ((cut.keep_mask >> i) & 1)) put(image.durable_, at, ref);
          break;
        case CutOptions::Mode::kRandom:
          if (cut.tear && random.chance(1, 8)) {
            put(image.durable_, at, tear(get(image.durable_, at), ref, cut.garbage, random));
          } else if (random.chance(keep_of_16, 16)) {
            put(image.durable_, at, ref);
          }
          break;
      }
    }
  }
  return image;
}

SimImage SimDisk::killed_image(SimRandom& random) const {
  SimImage image(size_bytes_);
  image.durable_ = durable_;
  for (const auto& write : volatile_) image.volatile_.push_back(write.pages);
  for (const auto& [id, op] : in_flight_) {
    SimImage::VolatileWrite happened;
    const std::uint64_t fate = random.below(3);  // all of it, none of it, or page by page
    for (const auto& page : op.pages) {
      if (fate == 0 || (fate == 2 && random.chance(1, 2))) happened.push_back(page);
    }
    if (!happened.empty()) image.volatile_.push_back(std::move(happened));
  }
  return image;
}

void SimDisk::power_off(const CutOptions& cut) {
  CHECK(!is_off());
  remains_ = crash_image(cut, random_);
  moments_left_.reset();
}

void SimDisk::kill() {
  CHECK(!is_off());
  remains_ = killed_image(random_);
  moments_left_.reset();
}

void SimDisk::power_off_after(std::uint64_t moments, const CutOptions& cut) {
  if (moments == 0) return power_off(cut);
  planned_cut_ = cut;
  moments_left_ = moments;
}

SimImage SimDisk::remains() const {
  if (remains_) return *remains_;
  CHECK(in_flight_.empty());
  SimImage image(size_bytes_);
  image.durable_ = durable_;
  for (const auto& write : volatile_) image.volatile_.push_back(write.pages);
  return image;
}

std::size_t SimDisk::pending_writes() const {
  std::size_t count = volatile_.size();
  for (const auto& [id, op] : in_flight_) count += op.pages.empty() ? 0 : 1;
  return count;
}

void SimDisk::clear_faults() {
  faults_.clear();
  rates_.clear();
  lying_flush_ = false;
  moments_left_.reset();
}

void SimDisk::set_error_rate(IoRequest::Kind kind, std::uint64_t numerator,
                             std::uint64_t denominator, int error) {
  rates_[kind] = Rate{numerator, denominator, error};
}

void SimDisk::corrupt(std::uint64_t offset, std::uint64_t length) {
  CHECK(length != 0 && offset <= size_bytes_ && length <= size_bytes_ - offset);
  for (std::uint64_t p = offset / kBlockBytes; p * kBlockBytes < offset + length; ++p) {
    const SimRandom damage = random_.fork();  // the same bits in every copy of the page
    put(durable_, p, damaged(get(durable_, p), p, offset, length, damage));
    put(view_, p, damaged(get(view_, p), p, offset, length, damage));
    for (auto& write : volatile_) {
      for (auto& [at, ref] : write.pages) {
        if (at == p) ref = damaged(ref, p, offset, length, damage);
      }
    }
  }
}

void SimDisk::give_back(std::uint64_t page, const SimPageRef& content) {
  put(durable_, page, content);
  put(view_, page, content);
  for (auto& write : volatile_) {
    for (auto& [at, ref] : write.pages) {
      if (at == page) ref = content;
    }
  }
}

}  // namespace tandem::sim
