// What changed in a volume: read from the exports of a node that keeps both points.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/json.h"
#include "ctl/places.h"

namespace tandem::ctl {
namespace {

Json point_json(const SnapshotStatus* snapshot) {
  if (snapshot == nullptr) return nullptr;  // now
  return {
      {"snapshot", snapshot->name}, {"lsn", snapshot->lsn.value}, {"utc_ns", snapshot->utc.value}};
}

std::string point_words(const SnapshotStatus* snapshot) {
  if (snapshot == nullptr) return "now";
  return "snapshot " + snapshot->name + " (" + time_text(snapshot->utc) + ")";
}

/// Prints runs as they come: there may be millions.
class Listing {
 public:
  Listing(Context& context, const DiffRequest& request, const Opened& opened)
      : context_(context),
        request_(request),
        node_(opened.place->node->node),
        from_(find_snapshot(*opened.place->group, request.from)),
        to_(request.to.empty() ? nullptr : find_snapshot(*opened.place->group, request.to)),
        size_(opened.exported->size_bytes()) {}

  void begin() {
    if (context_.settings.json) {
      std::string head = json_text({{"volume", request_.volume},
                                    {"from", point_json(from_)},
                                    {"to", point_json(to_)},
                                    {"node", node_},
                                    {"size_bytes", size_}});
      head.resize(head.rfind('}'));
      context_.out << head << (request_.summary ? "" : ",\"extents\":[");
    } else if (!request_.summary) {
      context_.out << std::right << std::setw(kWidth) << "OFFSET" << std::setw(kWidth) << "LENGTH"
                   << "  CONTENT\n";
    }
  }

  void add(const backup::Run& run) {
    ++count_;
    changed_ += run.length;
    zero_ += run.zero ? run.length : 0;
    if (request_.summary) return;
    if (context_.settings.json) {
      const Json extent = {{"offset", run.offset}, {"length", run.length}, {"zero", run.zero}};
      context_.out << (count_ == 1 ? "" : ",") << extent.dump();
    } else {
      context_.out << std::setw(kWidth) << run.offset << std::setw(kWidth) << run.length << "  "
                   << (run.zero ? "zeroes" : "data") << "\n";
    }
  }

  void end() {
    if (context_.settings.json) {
      context_.out << (request_.summary ? "" : "]") << ",\"extents_count\":" << count_
                   << ",\"changed_bytes\":" << changed_ << ",\"zero_bytes\":" << zero_ << "}\n";
      return;
    }
    context_.out << "Volume " << request_.volume << " of " << size_text(size_) << ": "
                 << size_text(changed_) << " in " << count_text(count_, "run") << " differ"
                 << (count_ == 1 ? "s" : "") << " between " << point_words(from_) << " and "
                 << point_words(to_) << ", of which " << size_text(zero_)
                 << " read as zeroes; told by node " << node_ << ".\n";
  }

 private:
  static constexpr int kWidth = 16;
  Context& context_;
  const DiffRequest& request_;
  const std::string node_;
  const SnapshotStatus *from_, *to_;
  const std::uint64_t size_;
  std::uint64_t count_ = 0, changed_ = 0, zero_ = 0;
};

/// Runs that touch are one, be they told in two answers.
Status list(Export& exported, Listing& listing) {
  std::optional<backup::Run> open;
  for (std::uint64_t at = 0; at < exported.size_bytes();) {
    const auto runs = exported.runs(at);
    if (!runs) return runs.error();
    for (const auto& run : *runs) {
      const bool goes_on = open && run.changed && run.zero == open->zero &&
                           open->offset + open->length == run.offset;
      if (goes_on) {
        open->length += run.length;
        continue;
      }
      if (open) listing.add(*open);
      open.reset();
      if (run.changed) open = run;
    }
    at = runs->back().offset + runs->back().length;
  }
  if (open) listing.add(*open);
  return ok();
}

/// Whether both points of the volume are there.
bool holds(const GroupStatus& group, const DiffRequest& request) {
  const auto is_it = [&](const auto& v) { return export_name(group, v.name) == request.volume; };
  const auto has_it = [&](const auto& volumes) {
    return std::any_of(volumes.begin(), volumes.end(), is_it);
  };
  const auto* from = find_snapshot(group, request.from);
  if (from == nullptr || !has_it(from->volumes)) return false;
  if (!request.to.empty()) {
    const auto* to = find_snapshot(group, request.to);
    return to != nullptr && has_it(to->volumes);
  }
  return group.role == Role::kPrimary && has_it(group.volumes);
}

}  // namespace

Exit run_diff(Context& context, DiffRequest request) {
  const auto at = request.volume.find('@');
  if (at != std::string::npos) {
    if (!request.to.empty())
      return fail_usage(context, "give the newer snapshot once: as VOLUME@SNAPSHOT or with --to");
    request.to = request.volume.substr(at + 1);
    request.volume.resize(at);
  }
  const auto answers = ask_readers(context, request.nbd);
  if (!answers) return fail(context, answers.error(), false);
  const std::string what =
      (request.to.empty() ? "volume " + request.volume + " as primary"
                          : "snapshot " + request.to + " of volume " + request.volume) +
      " and snapshot " + request.from;
  const auto places = places_with(*answers, request.nbd, what,
                                  [&](const GroupStatus& group) { return holds(group, request); });
  if (!places) return fail(context, places.error(), answered(*answers));
  const auto opened = open_at_one(*places, context.settings, [&](const Place&) {
    return Wanted{request.volume + (request.to.empty() ? "" : "@" + request.to), request.from};
  });
  if (!opened) return fail(context, opened.error());
  Listing listing(context, request, *opened);
  listing.begin();
  if (const auto done = list(*opened->exported, listing); !done) return fail(context, done.error());
  listing.end();
  return Exit::kOk;
}

}  // namespace tandem::ctl
