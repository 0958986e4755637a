// StoreModel: what a client may expect of the volumes of one group, and a judge of what it gets.
//
// It knows only calls and answers, never the store's insides. Every 512-byte sector that the test
// writes is stamped with its volume, its place and the operation that wrote it, so that wrong data
// names itself. For every sector the model keeps all versions in call order; so its users must not
// have two changes of one sector in flight, whose order the contract leaves open.
//
// After a crash the state must be a prefix of the log (promise 2). The log's order is not visible
// to a client, but this much of it is: what was acknowledged before another operation was called
// comes before that operation. So:
//   - killed process: everything acknowledged is there;
//   - power cut: everything acknowledged before the last acknowledged flush (or FUA) was called is
//     there, and that FUA operation itself;
//   - whatever else is there brings with it all that was acknowledged before it was called (a
//     prefix has no hole), and is there for the whole 4 KiB block (no block is half applied);
//   - what was refused for lack of space is never there.
// The smallest set of operations that explains the sectors found is computed as a fixed point; if
// none exists, the sectors that cannot be explained are reported.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "tandem/base/units.h"

namespace tandem::sim {

inline constexpr std::size_t kStampBytes = 512;

using OpId = std::uint64_t;

/// Fills `into`, which belongs at byte `offset` (a multiple of 512) of `volume`, with stamps of
/// `op`.
void stamp(OpId op, const std::string& volume, std::uint64_t offset, std::span<std::byte> into);

/// What a sector holds: zeroes, a stamp of an operation at its proper place, or something wrong.
struct Stamp {
  bool valid = false;
  OpId op = 0;            // 0: zeroes
  std::string complaint;  // when not valid: what it is instead
};
Stamp read_stamp(const std::string& volume, std::uint64_t offset,
                 std::span<const std::byte> sector);

/// Some sector of these bytes, of whole sectors, holds a whole stamp, wherever it belongs.
bool has_stamp(std::span<const std::byte> bytes);

class StoreModel {
 public:
  /// Content of every volume found after a restart.
  using Found = std::map<std::string, std::vector<std::byte>>;
  enum class Crash {
    kProcessKilled,
    kPowerCut,
    kPrefix,  // a copy that may lag: any prefix of the log, but not older than the settled state
  };
  /// What a copy must have, beyond being a prefix: a copy that is known to have been level at some
  /// moment owes more than one that may lag.
  struct Demand {
    std::uint64_t before = 0;  // everything acknowledged before this
    bool durable = false;      // and every acknowledged FUA operation
  };

  explicit StoreModel(OpId first_op = 1) : next_op_(first_op) {}
  /// A model that takes `found`, which was judged good, as the settled state.
  static StoreModel settled(const Found& found, OpId first_op);

  // --- operations: begin when called, then exactly one of the three answers -------------------
  OpId begin_create(const std::string& volume, std::uint64_t size_bytes);
  OpId begin_resize(const std::string& volume, std::uint64_t size_bytes);
  OpId begin_delete(const std::string& volume);
  OpId begin_write(const std::string& volume, std::uint64_t offset, std::uint64_t length, bool fua);
  /// Discard or write zeroes: either way it reads as zeroes.
  OpId begin_zero(const std::string& volume, std::uint64_t offset, std::uint64_t length, bool fua);
  OpId begin_flush();
  void acknowledge(OpId op);
  void refuse(OpId op);  // answered with an error that promises "nothing changed"
  void doubt(OpId op);   // answered with another error: it may have happened, or happen yet

  // --- reads of the running store --------------------------------------------------------------
  /// Remember it when a read is called; give it to check_read() with the data that came.
  std::uint64_t now() const { return now_; }
  std::optional<std::string> check_read(const std::string& volume, std::uint64_t offset,
                                        std::span<const std::byte> data,
                                        std::uint64_t called) const;

  // --- after a crash ---------------------------------------------------------------------------
  /// Nothing, or what is wrong with `found`. Does not change the model: many possible crashes of
  /// one instant can be judged.
  std::optional<std::string> check_recovered(const Found& found, Crash crash) const;
  std::optional<std::string> check_recovered(const Found& found, Demand demand) const;
  Demand demand(Crash crash) const { return {required_before(crash), crash != Crash::kPrefix}; }
  /// When the last flush or FUA was called of those that were called at `from` or later and
  /// acknowledged before `to`: what was acknowledged before that is on every node that it names.
  std::uint64_t flushed_before(std::uint64_t from, std::uint64_t to) const;
  /// It crashed and came back with `found`, which was judged good by that demand: what is there now
  /// counts as acknowledged now, what is not there is gone for good.
  void restarted(const Found& found, Demand demand);
  /// The process died and came back with `found`, which was judged good, but nothing was flushed:
  /// what is there now counts as acknowledged now, what is not there is gone for good.
  void restarted_after_kill(const Found& found);
  /// Operations acknowledged that a crash now may not lose.
  std::size_t promised(Crash crash) const;

  OpId next_op() const { return next_op_; }
  std::vector<std::string> volume_names() const;
  /// Of the newest version; 0 when there is no such volume.
  std::uint64_t size_of(const std::string& volume) const;

 private:
  static constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
  static constexpr std::uint64_t kAbsent = kNever;  // size of a volume that does not exist
  enum class Kind { kSettled, kChange, kFlush };
  struct Operation {
    Kind kind = Kind::kChange;
    std::uint64_t begun = 0;
    std::uint64_t acknowledged = kNever;
    bool refused = false;
    bool durable = false;  // fua, or a flush
    std::string text;      // for messages
  };
  struct Version {
    OpId op = 0;              // 0: settled before this model began
    std::uint64_t value = 0;  // of a sector: the stamp found (0: zeroes); of a size: bytes
  };
  using Cell = std::vector<Version>;
  struct ModelVolume {
    Cell size;
    std::vector<Cell> sectors;
  };
  class Judge;

  Operation& begin(OpId op, Kind kind, std::string text);
  OpId change_sectors(const std::string& volume, std::uint64_t offset, std::uint64_t length,
                      bool fua, bool zero);
  std::uint64_t required_before(Crash crash) const;
  std::string describe(const Version& version) const;

  OpId next_op_;
  std::uint64_t now_ = 1;
  std::map<OpId, Operation> operations_;
  std::map<std::string, ModelVolume> volumes_;
};

}  // namespace tandem::sim
