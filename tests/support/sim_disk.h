// SimDisk: a BlockDevice in memory that loses, tears, delays and damages what a real one may.
//
// Model: a durable image, an ordered list of volatile writes (completed, not flushed), and the
// requests in flight. Reads see volatile data; a read that overlaps a write in flight returns old
// or new per 512-byte sector. A flush makes durable the writes that completed before it was
// submitted. Two writes in flight to one page leave either, per sector. Latency, completion order
// and everything left open come from the seed.
//
// Power cut: every page that is volatile or in flight is kept, dropped or torn between sectors.
// Killed process: completed writes stay (volatile), writes in flight happen or not, page by page.
// crash_image() answers "what if now" without disturbing the run; power_off() makes it happen: from
// then on every request fails with EIO, so that the node's coroutines can unwind, and remains() is
// what the next start finds.
//
// Memory: a page that was never written, or is zero by a discard, costs nothing: a 1 TiB disk is
// cheap. Images share their pages; copying one costs a map, not the data.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tandem/port/block_device.h"
#include "tests/support/sim_runtime.h"

namespace tandem::sim {

inline constexpr std::size_t kSectorBytes = 512;

using SimPage = std::array<std::byte, kBlockBytes>;
/// Null: a page of zeroes.
using SimPageRef = std::shared_ptr<const SimPage>;

/// What is on a disk: durable pages and, after a mere process crash, what its cache still holds.
class SimImage {
 public:
  using Pages = std::map<std::uint64_t, SimPageRef>;
  /// One completed write that no flush covered, page by page; pages ascending.
  using VolatileWrite = std::vector<std::pair<std::uint64_t, SimPageRef>>;

  explicit SimImage(std::uint64_t size_bytes) : size_bytes_(size_bytes) {}
  std::uint64_t size_bytes() const { return size_bytes_; }

  /// As the next reader sees it (cache included); any alignment.
  void read(std::uint64_t offset, std::span<std::byte> into) const;
  /// Puts bytes onto the platter directly, for tests that prepare or damage an image.
  void write(std::uint64_t offset, std::span<const std::byte> from);
  /// Flips bits in every sector of [offset, offset+length).
  void corrupt(std::uint64_t offset, std::uint64_t length, SimRandom& random);
  /// A shorter disk than before; what lay behind is gone.
  void truncate(std::uint64_t size_bytes);
  const Pages& durable() const { return durable_; }
  std::size_t volatile_writes() const { return volatile_.size(); }

 private:
  friend class SimDisk;
  Pages view() const;
  std::uint64_t size_bytes_;
  Pages durable_;
  std::vector<VolatileWrite> volatile_;
};

struct CutOptions {
  enum class Mode {
    kRandom,   // each page by the seed: kept, dropped or torn
    kKeepAll,  // everything submitted made it
    kDropAll,  // only what a flush covered survives
    kByMask,   // whole writes: the i-th pending one (oldest first) is kept if bit i is set
  };
  Mode mode = Mode::kRandom;
  bool tear = true;     // kRandom: pages may be torn between sectors
  bool garbage = true;  // kRandom: a torn page may have one sector that is neither old nor new
  std::uint64_t keep_mask = 0;
};

/// Something that goes wrong with the n-th request of a kind, counted from inject().
struct DiskFault {
  enum class Effect {
    kError,      // fails with `error`; a write leaves old or new per sector; a flush loses data
    kLose,       // reported as success, never happens
    kMisdirect,  // a write that lands at `misdirect_to`, reported as success
    kStall,      // takes `stall` longer
  };
  IoRequest::Kind kind = IoRequest::Kind::kWrite;
  Effect effect = Effect::kError;
  std::uint64_t nth = 1;
  bool sticky = false;  // every later one too
  int error = 5;        // EIO
  Nanoseconds stall{0};
  std::uint64_t misdirect_to = 0;
};

class SimDisk final : public BlockDevice {
 public:
  struct Options {
    std::string name = "sim-disk";
    std::uint64_t seed = 1;
    Executor* executor = nullptr;  // null: the world's node 0
    Nanoseconds latency_min{20'000};
    Nanoseconds latency_max{200'000};
  };
  struct Counters {
    std::uint64_t reads = 0, writes = 0, flushes = 0, discards = 0, zeroes = 0;
    std::uint64_t bytes_read = 0, bytes_written = 0;
    std::uint64_t changes() const { return writes + flushes + discards + zeroes; }
  };
  enum class Moment { kSubmitted, kCompleted };
  /// Called for every request but reads: once it is in flight, and once its effect is there but its
  /// owner does not know yet. Between two such moments no crash can look different.
  using Observer = std::function<void(Moment, const IoRequest&)>;

  SimDisk(SimRuntime& world, SimImage image, Options options);
  ~SimDisk() override;

  void submit(IoRequest& request) override;
  std::uint64_t size_bytes() const override { return size_bytes_; }
  std::string name() const override { return options_.name; }

  // --- crashes -------------------------------------------------------------------------------
  SimImage crash_image(const CutOptions& cut, SimRandom& random) const;
  SimImage killed_image(SimRandom& random) const;
  /// The power goes now; see crash_image() for what remains.
  void power_off(const CutOptions& cut);
  /// The process dies now; the disk's cache lives on.
  void kill();
  /// power_off(cut) at the n-th moment (see Observer) from now; 0: at once.
  void power_off_after(std::uint64_t moments, const CutOptions& cut);
  bool is_off() const { return remains_.has_value(); }
  /// What the next start finds: after power_off() or kill(), or of an idle disk as it is.
  SimImage remains() const;
  /// Writes that a power cut now may keep or drop, in flight ones included.
  std::size_t pending_writes() const;

  // --- faults --------------------------------------------------------------------------------
  void inject(const DiskFault& fault) { faults_.push_back({fault, 0}); }
  /// All of them, a power cut that was to come included.
  void clear_faults();
  /// Every request of `kind` fails with `error` in `numerator` of `denominator` cases.
  void set_error_rate(IoRequest::Kind kind, std::uint64_t numerator, std::uint64_t denominator,
                      int error);
  /// Flushes report success and do nothing.
  void set_lying_flush(bool lies) { lying_flush_ = lies; }
  /// Damages what is stored at [offset, offset+length), until it is written again.
  void corrupt(std::uint64_t offset, std::uint64_t length);
  /// What reads see of a page now; null: zeroes.
  SimPageRef page(std::uint64_t page) const { return page_now(page); }
  /// Undoes a corrupt() of that page.
  void give_back(std::uint64_t page, const SimPageRef& content);

  void set_observer(Observer observer) { observer_ = std::move(observer); }
  const Counters& counters() const { return counters_; }
  std::size_t in_flight() const { return in_flight_.size(); }

 private:
  struct InFlight {
    IoRequest* request = nullptr;
    SimImage::VolatileWrite pages;      // of a write: copied at submission
    std::set<std::uint64_t> contested;  // pages that another write changed meanwhile
    SimImage::VolatileWrite early;      // of a read: sampled at submission
    bool sampled_early = false;
    std::uint64_t covers = 0;  // of a flush: writes completed before it
    std::optional<DiskFault> fault;
  };
  struct Completed {
    std::uint64_t sequence;
    SimImage::VolatileWrite pages;
  };
  struct ArmedFault {
    DiskFault fault;
    std::uint64_t seen;
  };
  struct Rate {
    std::uint64_t numerator = 0, denominator = 1;
    int error = 0;
  };

  bool is_inside(std::uint64_t offset, std::uint64_t length) const;
  void validate(const IoRequest& request) const;
  std::optional<DiskFault> fault_for(const IoRequest& request);
  void count(const IoRequest& request);
  void finish(std::uint64_t id);
  int carry_out(InFlight& op);
  int finish_read(InFlight& op);
  int finish_write(InFlight& op);
  int finish_flush(InFlight& op);
  SimPageRef page_now(std::uint64_t page) const;
  /// The page as a read now may see it: writes in flight may show through per sector.
  SimPageRef sample(std::uint64_t page);
  SimImage::VolatileWrite range_change(const IoRequest& request);
  void become_visible(SimImage::VolatileWrite pages);
  void make_durable(std::uint64_t up_to, bool lossy);
  void moment(Moment moment, const IoRequest& request);

  SimRuntime& world_;
  Executor& executor_;
  Options options_;
  SimRandom random_;
  std::uint64_t size_bytes_;
  SimImage::Pages durable_;
  SimImage::Pages view_;
  std::vector<Completed> volatile_;
  std::uint64_t completed_ = 0;  // sequence of the newest completed write
  std::map<std::uint64_t, InFlight> in_flight_;
  std::uint64_t last_id_ = 0;
  std::optional<SimImage> remains_;
  std::optional<std::uint64_t> moments_left_;
  CutOptions planned_cut_;
  std::vector<ArmedFault> faults_;
  std::map<IoRequest::Kind, Rate> rates_;
  bool lying_flush_ = false;
  Observer observer_;
  Counters counters_;
};

}  // namespace tandem::sim
