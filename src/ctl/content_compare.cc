#include "ctl/content_compare.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "ctl/format.h"

namespace tandem::ctl {
namespace {

/// Of 4096 bytes. The nodes give it for zeroes that some record wrote.
constexpr std::uint32_t kCrc32cOfZeroes = 0x98f94189;

}  // namespace

ContentCompare::ContentCompare(const std::vector<std::string>& nodes) {
  for (const auto& node : nodes) copies_.push_back({.node = node, .pieces = {}, .findings = {}});
}

void ContentCompare::begin(const std::string& volume) {
  volume_ = volume;
  for (auto& copy : copies_) {
    copy.next = 0;
    copy.end = false;
  }
}

bool ContentCompare::is_done() const {
  return std::all_of(copies_.begin(), copies_.end(), [](const Copy& c) { return c.end; });
}

std::vector<std::size_t> ContentCompare::behind() const {
  std::uint64_t least = UINT64_MAX;
  for (const auto& copy : copies_) {
    if (!copy.end) least = std::min(least, copy.next);
  }
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < copies_.size(); ++i) {
    if (!copies_[i].end && copies_[i].next == least) out.push_back(i);
  }
  return out;
}

void ContentCompare::take(std::size_t number, ContentReport report) {
  Copy& copy = copies_[number];
  copy.next = report.next;
  copy.end = report.end;
  copy.bad_blocks += report.bad_blocks;
  copy.repaired_blocks += report.repaired_blocks;
  for (const auto& piece : report.pieces) {
    copy.blocks += piece.blocks;
    copy.unreadable_pieces += piece.readable ? 0 : 1;
    copy.pieces[piece.number] = piece;
  }
  for (auto& finding : report.findings) {
    if (copy.findings.size() < kDifferencesMax) copy.findings.push_back(std::move(finding));
  }
}

/// What cannot be read is not known to differ.
bool ContentCompare::differs(std::uint64_t piece) {
  std::set<Digest> digests;
  for (auto& copy : copies_) {
    const auto found = copy.pieces.find(piece);
    if (found == copy.pieces.end()) {
      digests.insert(Digest{});
    } else if (found->second.readable) {
      digests.insert(found->second.digest);
    }
  }
  return digests.size() > 1;
}

std::vector<std::uint64_t> ContentCompare::settle() {
  std::uint64_t end = UINT64_MAX;
  for (const auto& copy : copies_) {
    if (!copy.end) end = std::min(end, copy.next);
  }
  std::set<std::uint64_t> answered;
  for (const auto& copy : copies_) {
    for (const auto& [number, piece] : copy.pieces) {
      if (number < end) answered.insert(number);
    }
  }
  std::vector<std::uint64_t> out;
  for (const auto number : answered) {
    if (differs(number)) out.push_back(number);
    for (auto& copy : copies_) copy.pieces.erase(number);
  }
  return out;
}

std::uint32_t ContentCompare::Version::crc32c() const {
  return block ? block->crc32c : kCrc32cOfZeroes;
}

bool ContentCompare::differ(const Versions& versions) {
  std::set<std::uint32_t> contents;
  for (const auto& version : versions) {
    if (version.readable) contents.insert(version.crc32c());
  }
  return contents.size() > 1;
}

/// A later record replaces what an earlier one wrote, and all copies are at the same record: who
/// has the earlier one has missed the later.
std::string ContentCompare::judge(const Versions& versions) {
  std::set<Lsn> records;
  for (std::size_t i = 0; i < versions.size(); ++i) {
    if (!versions[i].readable) continue;
    if (!versions[i].block)
      return copies_[i].node + " has zeroes of unknown age: which copy is right cannot be told";
    records.insert(versions[i].block->lsn);
  }
  if (records.size() == 1)
    return "one record and different content: which copy is right cannot be told";
  std::string bad;
  for (std::size_t i = 0; i < versions.size(); ++i) {
    if (!versions[i].readable || versions[i].block->lsn == *records.rbegin()) continue;
    ++copies_[i].older_blocks;
    bad += (bad.empty() ? "" : " and ") + copies_[i].node;
  }
  return "the bad copy is that of " + bad + ", which has missed the later record";
}

void ContentCompare::take_detail(const std::vector<ContentReport>& reports) {
  std::map<std::uint64_t, Versions> blocks;
  Versions unknown(copies_.size());
  for (std::size_t i = 0; i < reports.size(); ++i) {
    for (const auto& piece : reports[i].pieces) unknown[i].readable &= piece.readable;
  }
  for (std::size_t i = 0; i < reports.size(); ++i) {
    for (const auto& block : reports[i].blocks)
      blocks.try_emplace(block.number, unknown).first->second[i].block = block;
  }
  for (const auto& [number, versions] : blocks) {
    if (!differ(versions)) continue;
    ++differing_blocks_;
    auto verdict = judge(versions);
    if (differences_.size() < kDifferencesMax)
      differences_.push_back({volume_, number * kBlockBytes, versions, std::move(verdict)});
  }
}

bool ContentCompare::all_good() const {
  return differing_blocks_ == 0 &&
         std::all_of(copies_.begin(), copies_.end(), [](const Copy& copy) {
           return copy.bad_blocks + copy.unreadable_pieces == 0;
         });
}

std::string ContentCompare::copy_text(const Copy& copy) const {
  std::string text = "  " + copy.node + ": " + count_text(copy.blocks, "block");
  if (copy.bad_blocks + copy.unreadable_pieces == 0) {
    text += ", none damaged\n";
  } else {
    text += ", " + std::to_string(copy.bad_blocks) + " DAMAGED (" +
            std::to_string(copy.repaired_blocks) + " given back by a peer)";
    if (copy.unreadable_pieces != 0)
      text += ", " + size_text(copy.unreadable_pieces << 20) + " below damaged map nodes";
    text += "\n";
  }
  for (const auto& finding : copy.findings) {
    text += "    " + finding.volume + " at byte " + std::to_string(finding.byte) + ": " +
            finding.outcome + "\n";
  }
  return text;
}

std::string ContentCompare::version_text(const std::string& node, const Version& version) {
  if (!version.readable) return node + " cannot read it";
  if (!version.block) return node + " has zeroes";
  const bool zeroes = version.block->crc32c == kCrc32cOfZeroes;
  return node + " has " + (zeroes ? "zeroes" : "what was written") + " by record " +
         std::to_string(version.block->lsn.value);
}

std::string ContentCompare::text() const {
  std::string text;
  for (const auto& copy : copies_) text += copy_text(copy);
  if (copies_.size() < 2) return text + "There is no other copy to compare it with.\n";
  if (differing_blocks_ == 0)
    return text + "Wherever they can be read, the copies are identical.\n";
  text += "THE COPIES DIFFER in " + count_text(differing_blocks_, "block") + ":\n";
  for (const auto& difference : differences_) {
    text += "  " + difference.volume + " at byte " + std::to_string(difference.byte) + ":";
    for (std::size_t i = 0; i < copies_.size(); ++i)
      text += (i == 0 ? " " : ", ") + version_text(copies_[i].node, difference.versions[i]);
    text += "; " + difference.verdict + "\n";
  }
  return text;
}

Json ContentCompare::json() const {
  Json out = {{"good", all_good()},
              {"differing_blocks", differing_blocks_},
              {"copies", Json::array()},
              {"differences", Json::array()}};
  for (const auto& copy : copies_) {
    Json entry = {{"node", copy.node},
                  {"blocks", copy.blocks},
                  {"bad_blocks", copy.bad_blocks},
                  {"repaired_blocks", copy.repaired_blocks},
                  {"unreadable_pieces", copy.unreadable_pieces},
                  {"older_blocks", copy.older_blocks},
                  {"findings", Json::array()}};
    for (const auto& finding : copy.findings) {
      entry["findings"].push_back(
          {{"volume", finding.volume}, {"byte", finding.byte}, {"outcome", finding.outcome}});
    }
    out["copies"].push_back(std::move(entry));
  }
  for (const auto& difference : differences_) {
    Json entry = {{"volume", difference.volume},
                  {"byte", difference.byte},
                  {"verdict", difference.verdict},
                  {"versions", Json::array()}};
    for (std::size_t i = 0; i < copies_.size(); ++i) {
      const auto& version = difference.versions[i];
      entry["versions"].push_back({{"node", copies_[i].node},
                                   {"readable", version.readable},
                                   {"lsn", version.block ? version.block->lsn.value : 0},
                                   {"crc32c", version.crc32c()}});
    }
    out["differences"].push_back(std::move(entry));
  }
  return out;
}

}  // namespace tandem::ctl
