#include "tests/support/store_model.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "tandem/base/check.h"

namespace tandem::sim {
namespace {

constexpr std::uint64_t kMagic = 0x74616e64656d2073;  // "tandem s"
constexpr std::size_t kWords = kStampBytes / 8;
using Words = std::array<std::uint64_t, kWords>;

std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

std::uint64_t name_hash(const std::string& volume) {
  std::uint64_t h = 0xcbf29ce484222325ull;
  for (const char c : volume) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return h;
}

Words words_of(OpId op, std::uint64_t volume_hash, std::uint64_t sector) {
  Words words{kMagic, op, volume_hash, sector};
  const std::uint64_t base = mix(op * 0x9e3779b97f4a7c15ull ^ mix(volume_hash ^ sector));
  for (std::size_t i = 4; i < kWords; ++i) words[i] = mix(base + i * 0x9e3779b97f4a7c15ull);
  return words;
}

}  // namespace

void stamp(OpId op, const std::string& volume, std::uint64_t offset, std::span<std::byte> into) {
  CHECK(op != 0 && offset % kStampBytes == 0 && into.size() % kStampBytes == 0);
  const std::uint64_t hash = name_hash(volume);
  for (std::size_t at = 0; at < into.size(); at += kStampBytes) {
    const Words words = words_of(op, hash, (offset + at) / kStampBytes);
    std::memcpy(into.data() + at, words.data(), kStampBytes);
  }
}

Stamp read_stamp(const std::string& volume, std::uint64_t offset,
                 std::span<const std::byte> sector) {
  CHECK(sector.size() == kStampBytes);
  Words words;
  std::memcpy(words.data(), sector.data(), kStampBytes);
  if (words == Words{}) return {.valid = true, .op = 0};
  if (words[0] != kMagic) return {.complaint = "bytes that nobody wrote"};
  const bool whole = words == words_of(words[1], words[2], words[3]);
  const std::string of = "operation " + std::to_string(words[1]);
  if (!whole) return {.complaint = "a damaged stamp of " + of};
  if (words[2] != name_hash(volume))
    return {.complaint = "a stamp of " + of + " on another volume"};
  if (words[3] != offset / kStampBytes) {
    return {.complaint = "a stamp of " + of + " that belongs at byte " +
                         std::to_string(words[3] * kStampBytes)};
  }
  return {.valid = true, .op = words[1]};
}

bool has_stamp(std::span<const std::byte> bytes) {
  for (std::size_t at = 0; at < bytes.size(); at += kStampBytes) {
    Words words;
    std::memcpy(words.data(), bytes.data() + at, kStampBytes);
    if (words[0] == kMagic && words == words_of(words[1], words[2], words[3])) return true;
  }
  return false;
}

StoreModel StoreModel::settled(const Found& found, OpId first_op) {
  StoreModel model(first_op);
  for (const auto& [name, bytes] : found) {
    ModelVolume volume;
    volume.size.push_back({0, bytes.size()});
    for (std::size_t at = 0; at < bytes.size(); at += kStampBytes) {
      const Stamp s = read_stamp(name, at, std::span(bytes).subspan(at, kStampBytes));
      CHECK(s.valid);
      volume.sectors.push_back({Version{0, s.op}});
    }
    model.volumes_.emplace(name, std::move(volume));
  }
  return model;
}

StoreModel::Operation& StoreModel::begin(OpId op, Kind kind, std::string text) {
  CHECK(op == next_op_);
  ++next_op_;
  Operation operation;
  operation.kind = kind;
  operation.begun = now_++;
  operation.text = std::move(text);
  return operations_.emplace(op, std::move(operation)).first->second;
}

OpId StoreModel::begin_create(const std::string& volume, std::uint64_t size_bytes) {
  CHECK(!volumes_.contains(volume) && size_bytes % kStampBytes == 0);
  const OpId op = next_op_;
  begin(op, Kind::kChange, "create " + volume);
  ModelVolume created;
  created.size = {Version{0, kAbsent}, Version{op, size_bytes}};
  created.sectors.assign(size_bytes / kStampBytes, Cell{Version{}});
  volumes_.emplace(volume, std::move(created));
  return op;
}

OpId StoreModel::begin_resize(const std::string& volume, std::uint64_t size_bytes) {
  const OpId op = next_op_;
  begin(op, Kind::kChange, "resize " + volume + " to " + std::to_string(size_bytes));
  ModelVolume& v = volumes_.at(volume);
  CHECK(size_bytes >= v.size.back().value && size_bytes % kStampBytes == 0);
  v.size.push_back({op, size_bytes});
  v.sectors.resize(std::max(v.sectors.size(), size_bytes / kStampBytes), Cell{Version{}});
  return op;
}

OpId StoreModel::begin_delete(const std::string& volume) {
  const OpId op = next_op_;
  begin(op, Kind::kChange, "delete " + volume);
  volumes_.at(volume).size.push_back({op, kAbsent});
  return op;
}

OpId StoreModel::change_sectors(const std::string& volume, std::uint64_t offset,
                                std::uint64_t length, bool fua, bool zero) {
  CHECK(length != 0 && offset % kStampBytes == 0 && length % kStampBytes == 0);
  const OpId op = next_op_;
  Operation& operation =
      begin(op, Kind::kChange,
            std::string(zero ? "zero " : "write ") + volume + " [" + std::to_string(offset) + ", " +
                std::to_string(offset + length) + ")" + (fua ? " fua" : ""));
  operation.durable = fua;
  auto& sectors = volumes_.at(volume).sectors;
  CHECK((offset + length) / kStampBytes <= sectors.size());
  for (std::uint64_t s = offset / kStampBytes; s < (offset + length) / kStampBytes; ++s) {
    sectors[s].push_back({op, zero ? 0 : op});
  }
  return op;
}

OpId StoreModel::begin_write(const std::string& volume, std::uint64_t offset, std::uint64_t length,
                             bool fua) {
  return change_sectors(volume, offset, length, fua, /*zero=*/false);
}

OpId StoreModel::begin_zero(const std::string& volume, std::uint64_t offset, std::uint64_t length,
                            bool fua) {
  return change_sectors(volume, offset, length, fua, /*zero=*/true);
}

OpId StoreModel::begin_flush() {
  const OpId op = next_op_;
  begin(op, Kind::kFlush, "flush").durable = true;
  return op;
}

void StoreModel::acknowledge(OpId op) { operations_.at(op).acknowledged = now_++; }
void StoreModel::refuse(OpId op) { operations_.at(op).refused = true; }
void StoreModel::doubt(OpId) { ++now_; }

std::string StoreModel::describe(const Version& version) const {
  if (version.op == 0) return "settled value " + std::to_string(version.value);
  const Operation& op = operations_.at(version.op);
  std::string text = "operation " + std::to_string(version.op) + " (" + op.text + ", called at " +
                     std::to_string(op.begun);
  if (op.acknowledged != kNever) text += ", acknowledged at " + std::to_string(op.acknowledged);
  if (op.refused) text += ", refused";
  return text + ")";
}

std::optional<std::string> StoreModel::check_read(const std::string& volume, std::uint64_t offset,
                                                  std::span<const std::byte> data,
                                                  std::uint64_t called) const {
  const ModelVolume& v = volumes_.at(volume);
  for (std::size_t at = 0; at < data.size(); at += kStampBytes) {
    const std::uint64_t byte = offset + at;
    const auto wrong = [&](const std::string& what) {
      return "read of " + volume + " at byte " + std::to_string(byte) + ": " + what;
    };
    const Stamp got = read_stamp(volume, byte, data.subspan(at, kStampBytes));
    if (!got.valid) return wrong(got.complaint);
    const Cell& cell = v.sectors.at(byte / kStampBytes);
    bool explained = false;
    // Newest first: once a version was acknowledged before the call, older ones are stale.
    for (auto version = cell.rbegin(); version != cell.rend(); ++version) {
      const Operation* op = version->op == 0 ? nullptr : &operations_.at(version->op);
      if (op != nullptr && op->refused) continue;
      if (version->value == got.op) explained = true;
      if (explained || op == nullptr || op->acknowledged < called) {
        if (!explained) {
          return wrong("found stamp " + std::to_string(got.op) +
                       ", but it must be at least as new as " + describe(*version));
        }
        break;
      }
    }
    if (!explained) return wrong("found stamp " + std::to_string(got.op) + ", unknown here");
  }
  return std::nullopt;
}

std::uint64_t StoreModel::required_before(Crash crash) const {
  if (crash == Crash::kProcessKilled) return now_ + 1;
  if (crash == Crash::kPrefix) return 0;
  std::uint64_t before = 0;
  for (const auto& [id, op] : operations_) {
    if (op.durable && op.acknowledged != kNever) before = std::max(before, op.begun);
  }
  return before;
}

std::size_t StoreModel::promised(Crash crash) const {
  const std::uint64_t before = required_before(crash);
  std::size_t count = 0;
  for (const auto& [id, op] : operations_) {
    const bool durable_itself = crash != Crash::kPrefix && op.durable && op.acknowledged != kNever;
    if (op.kind == Kind::kChange && (op.acknowledged < before || durable_itself)) ++count;
  }
  return count;
}

/// Finds the smallest set of operations that explains what was found; see the header.
class StoreModel::Judge {
 public:
  Judge(const StoreModel& model, const Found& found, Demand demand)
      : model_(model), found_(found), before_(demand.before), fua_counts_(demand.durable) {}

  std::optional<std::string> run() {
    for (const auto& [name, bytes] : found_) {
      if (!model_.volumes_.contains(name)) return "a volume that nobody made: " + name;
      if (auto problem = decode(name, bytes)) return problem;
    }
    do {
      changed_ = false;
      for (const auto& [name, volume] : model_.volumes_) {
        if (auto problem = judge_volume(name, volume)) return problem;
      }
    } while (changed_);
    return std::nullopt;
  }

  /// Which version of a sector was found, after run() found nothing wrong.
  std::size_t version_of(const std::string& name, const Cell& cell, std::size_t sector) const {
    const auto stamps = stamps_.find(name);
    const bool there = stamps != stamps_.end() && sector < stamps->second.size();
    const auto version =
        explain(cell, sector / (kBlockBytes / kStampBytes), there ? stamps->second[sector] : 0);
    CHECK(version.has_value());
    return version->oldest;
  }
  std::size_t size_version_of(const std::string& name, const Cell& cell) const {
    const auto found = found_.find(name);
    const auto version =
        explain(cell, kNoBlock, found == found_.end() ? kAbsent : found->second.size());
    CHECK(version.has_value());
    return version->oldest;
  }

 private:
  std::optional<std::string> decode(const std::string& name, const std::vector<std::byte>& bytes) {
    auto& stamps = stamps_[name];
    for (std::size_t at = 0; at + kStampBytes <= bytes.size(); at += kStampBytes) {
      Stamp s = read_stamp(name, at, std::span(bytes).subspan(at, kStampBytes));
      if (!s.valid) return name + " at byte " + std::to_string(at) + ": " + s.complaint;
      stamps.push_back(s.op);
    }
    return std::nullopt;
  }

  static constexpr std::uint64_t kNoBlock = kNever;

  bool is_required(OpId id, std::uint64_t block) const {
    if (id == 0) return true;
    const Operation& op = model_.operations_.at(id);
    if (op.acknowledged < before_) return true;
    if (fua_counts_ && op.durable && op.acknowledged != kNever) return true;
    return included_.contains({id, block});
  }

  struct Explanation {
    std::size_t oldest = 0;
    bool unique = true;
  };
  /// The oldest version that explains `value` and is not older than what is required.
  std::optional<Explanation> explain(const Cell& cell, std::uint64_t block,
                                     std::uint64_t value) const {
    std::size_t floor = 0;
    for (std::size_t i = cell.size(); i-- > 0;) {
      if (is_required(cell[i].op, block)) {
        floor = i;
        break;
      }
    }
    std::optional<Explanation> found;
    for (std::size_t i = floor; i < cell.size(); ++i) {
      const bool refused = cell[i].op != 0 && model_.operations_.at(cell[i].op).refused;
      if (cell[i].value != value || refused) continue;
      if (found) {
        found->unique = false;
      } else {
        found = Explanation{i, true};
      }
    }
    return found;
  }

  /// `id` is there, and with it all it changed in this block: a block is never half applied.
  void include(OpId id, std::uint64_t block) {
    if (id == 0) return;
    const Operation& op = model_.operations_.at(id);
    if (included_.insert({id, block}).second) changed_ = true;
    if (op.begun > before_) {
      before_ = op.begun;
      because_ = id;
      changed_ = true;
    }
  }

  std::string complain(const std::string& where, const Cell& cell, std::uint64_t block,
                       std::uint64_t value) const {
    std::string text = where + ": found " + std::to_string(value) + "; the versions are:";
    for (const auto& version : cell) {
      text +=
          "\n    " + model_.describe(version) + (is_required(version.op, block) ? " required" : "");
    }
    text += "\n  required is what was acknowledged before " + std::to_string(before_);
    if (because_ != 0) {
      text += ", because " + model_.describe(Version{because_, 0}) + " was found elsewhere";
    }
    return text;
  }

  std::optional<std::string> judge_volume(const std::string& name, const ModelVolume& volume) {
    const auto found = found_.find(name);
    const std::uint64_t size = found == found_.end() ? kAbsent : found->second.size();
    const auto size_version = explain(volume.size, kNoBlock, size);
    if (!size_version) return complain("size of " + name, volume.size, kNoBlock, size);
    if (size_version->unique) include(volume.size[size_version->oldest].op, kNoBlock);
    if (size == kAbsent) return std::nullopt;
    const auto& stamps = stamps_[name];
    for (std::size_t s = 0; s < volume.sectors.size(); ++s) {
      const std::uint64_t value = s < stamps.size() ? stamps[s] : 0;
      const Cell& cell = volume.sectors[s];
      const std::uint64_t block = s / (kBlockBytes / kStampBytes);
      const auto version = explain(cell, block, value);
      if (!version) {
        return complain(name + " at byte " + std::to_string(s * kStampBytes), cell, block, value);
      }
      // Zeroes have no stamp: they prove an operation only if no other one explains them. Of two
      // that were never answered, the older may have failed and the newer happened.
      if (version->unique) include(cell[version->oldest].op, block);
    }
    return std::nullopt;
  }

  const StoreModel& model_;
  const Found& found_;
  std::uint64_t before_;  // what was acknowledged earlier than this is required
  bool fua_counts_;
  OpId because_ = 0;
  std::set<std::pair<OpId, std::uint64_t>> included_;
  std::map<std::string, std::vector<std::uint64_t>> stamps_;
  bool changed_ = false;
};

std::optional<std::string> StoreModel::check_recovered(const Found& found, Crash crash) const {
  return check_recovered(found, demand(crash));
}

std::optional<std::string> StoreModel::check_recovered(const Found& found, Demand demand) const {
  return Judge(*this, found, demand).run();
}

std::uint64_t StoreModel::flushed_before(std::uint64_t from, std::uint64_t to) const {
  std::uint64_t before = 0;
  for (const auto& [id, op] : operations_) {
    const bool counts = op.durable && op.begun >= from && op.acknowledged < to;
    if (counts) before = std::max(before, op.begun);
  }
  return before;
}

void StoreModel::restarted_after_kill(const Found& found) {
  restarted(found, demand(Crash::kProcessKilled));
}

void StoreModel::restarted(const Found& found, Demand demand) {
  Judge judge(*this, found, demand);
  CHECK(!judge.run());
  const std::uint64_t restart = now_++;
  const auto settle = [&](Cell& cell, std::size_t version) {
    cell.resize(version + 1);
    const OpId op = cell.back().op;
    if (op != 0 && operations_.at(op).acknowledged == kNever) {
      operations_.at(op).acknowledged = restart;
    }
  };
  // Find all versions before settling any: settling makes more of them required.
  std::vector<std::pair<Cell*, std::size_t>> versions;
  for (auto& [name, volume] : volumes_) {
    versions.emplace_back(&volume.size, judge.size_version_of(name, volume.size));
    if (!found.contains(name)) continue;
    for (std::size_t s = 0; s < volume.sectors.size(); ++s) {
      versions.emplace_back(&volume.sectors[s], judge.version_of(name, volume.sectors[s], s));
    }
  }
  for (auto& [cell, version] : versions) settle(*cell, version);
  for (auto& [name, volume] : volumes_) {
    if (found.contains(name)) volume.sectors.resize(found.at(name).size() / kStampBytes);
  }
}

std::vector<std::string> StoreModel::volume_names() const {
  std::vector<std::string> names;
  for (const auto& [name, volume] : volumes_) {
    if (volume.size.back().value != kAbsent) names.push_back(name);
  }
  return names;
}

std::uint64_t StoreModel::size_of(const std::string& volume) const {
  const auto found = volumes_.find(volume);
  if (found == volumes_.end() || found->second.size.back().value == kAbsent) return 0;
  return found->second.size.back().value;
}

}  // namespace tandem::sim
