// What differs between two points of a volume: read from the exports of a node that has both, where
// moments of the history are kept for as long as that takes.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/json.h"
#include "ctl/moment.h"
#include "ctl/places.h"
#include "ctl/temporary_points.h"

namespace tandem::ctl {
namespace {

/// One of the two points, as it was written.
struct Side {
  std::string text;  // "": now
  // What it means where nothing of that name is kept; neither: a name, or now.
  Moment moment;
  bool is_now() const { return text.empty() || text == "now"; }
  bool is_moment() const { return moment.lsn || moment.time; }
};

/// What it is at the node where they are compared.
struct Point {
  std::optional<SnapshotStatus> state;  // nothing: now
  bool temporary = false;               // its name says nothing
};

Json point_json(const Point& point) {
  if (!point.state) return nullptr;  // now
  return {{"snapshot", point.temporary ? Json(nullptr) : Json(point.state->name)},
          {"lsn", point.state->lsn.value},
          {"utc_ns", point.state->utc.value}};
}

std::string point_words(const Point& point) {
  if (!point.state) return "now";
  const auto& s = *point.state;
  const auto what =
      point.temporary ? "record " + std::to_string(s.lsn.value) : s.kind + " " + s.name;
  return what + " (" + time_text(s.utc) + ")";
}

/// Both points and the export that tells what differs between them, at one node.
struct Comparison {
  Point from, to;
  std::string node;
  std::unique_ptr<Export> exported;
};

/// Prints runs as they come: there may be millions.
class Listing {
 public:
  Listing(Context& context, const DiffRequest& request, const Comparison& comparison)
      : context_(context),
        request_(request),
        comparison_(comparison),
        size_(comparison.exported->size_bytes()) {}

  void begin() {
    if (context_.settings.json) {
      std::string head = json_text({{"volume", request_.volume},
                                    {"from", point_json(comparison_.from)},
                                    {"to", point_json(comparison_.to)},
                                    {"node", comparison_.node},
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
                 << (count_ == 1 ? "s" : "") << " between " << point_words(comparison_.from)
                 << " and " << point_words(comparison_.to) << ", of which " << size_text(zero_)
                 << " read as zeroes; told by node " << comparison_.node << ".\n";
  }

 private:
  static constexpr int kWidth = 16;
  Context& context_;
  const DiffRequest& request_;
  const Comparison& comparison_;
  const std::uint64_t size_;
  std::uint64_t count_ = 0, changed_ = 0, zero_ = 0;
};

/// Runs that touch are one, be they told in two answers.
Status list(Context& context, Export& exported, Listing& listing) {
  std::optional<backup::Run> open;
  for (std::uint64_t at = 0; at < exported.size_bytes();) {
    const auto runs = exported.runs(at);
    if (!runs) return runs.error();
    if (!context.out) return Error{ErrorCode::kIo, "nobody reads what this prints"};
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

class Diff {
 public:
  Diff(Context& context, const DiffRequest& request)
      : context_(context),
        request_(request),
        from_{request.from, {}},
        to_{request.to, {}},
        points_(context, "diff") {}

  Exit run() {
    const auto answers = ask_readers(context_, request_.nbd);
    if (!answers) return fail(context_, answers.error(), false);
    understand(*answers, from_);
    understand(*answers, to_);
    const auto places = places_with(*answers, request_.nbd, words(), [&](const GroupStatus& group) {
      return has(group, from_) && has(group, to_);
    });
    if (!places) return fail(context_, places.error(), answered(*answers));
    auto comparison = compare_at_one(*places);
    if (!comparison) return failed(comparison.error());
    Listing listing(context_, request_, *comparison);
    listing.begin();
    const auto done = list(context_, *comparison->exported, listing);
    if (!done) return failed(done.error());
    listing.end();
    return Exit::kOk;
  }

 private:
  /// What fails because of an interruption is not worth a word.
  Exit failed(const Error& error) {
    return points_.interrupted() ? Exit::kFailed : fail(context_, error);
  }

  bool has_volume(const GroupStatus& group, const std::string& name) const {
    return export_name(group, name) == request_.volume;
  }
  bool has_now(const GroupStatus& group) const {
    return std::any_of(group.volumes.begin(), group.volumes.end(),
                       [&](const auto& v) { return has_volume(group, v.name); });
  }
  bool has_in(const GroupStatus& group, const SnapshotStatus& state) const {
    return std::any_of(state.volumes.begin(), state.volumes.end(),
                       [&](const auto& v) { return has_volume(group, v.name); });
  }

  /// A name that any node knows is that name everywhere; else it may be a moment, which is the same
  /// one on each.
  void understand(const std::vector<Answer>& answers, Side& side) {
    const NodeStatus* first = nullptr;
    for (const auto& answer : answers) {
      if (!answer.status) continue;
      if (first == nullptr) first = &*answer.status;
      for (const auto& group : answer.status->groups) {
        const auto* kept = find_snapshot(group, side.text);
        if (kept != nullptr && has_in(group, *kept)) return;
        primary_answers_ |= group.role == Role::kPrimary && has_now(group);
      }
    }
    if (side.is_now() || first == nullptr) return;
    const auto moment = parse_moment(side.text, first->now);
    if (moment) side.moment = *moment;
  }

  bool has(const GroupStatus& group, const Side& side) const {
    if (side.is_moment()) {
      const auto& kept = group.snapshots;
      const bool had_it =
          has_now(group) ||
          std::any_of(kept.begin(), kept.end(), [&](const auto& s) { return has_in(group, s); });
      // A mirror that has not come to that time yet would tell too little.
      const bool may_lag = group.role != Role::kPrimary && primary_answers_;
      return had_it && !(may_lag && side.moment.time && group.head.utc < *side.moment.time);
    }
    if (const auto* kept = find_snapshot(group, side.text)) return has_in(group, *kept);
    return side.is_now() && group.role == Role::kPrimary && has_now(group);
  }

  std::string words() const {
    const auto at = [](const Side& side, const std::string& now) {
      if (side.is_now()) return now;
      return side.is_moment() ? "its state at " + side.text : "snapshot " + side.text;
    };
    std::string text = "volume " + request_.volume;
    if (to_.is_now()) text += " as primary";
    if (!to_.is_now() && !to_.is_moment()) text = "snapshot " + to_.text + " of " + text;
    if (to_.is_moment()) text += ", " + at(to_, "");
    return text + " and " + at(from_, "its present state");
  }

  Result<Point> point_at(const Place& place, const Side& side, bool is_from) {
    const auto* kept = find_snapshot(*place.group, side.text);
    if (kept != nullptr) return Point{*kept, false};
    if (side.is_now() && !is_from) return Point{};
    KeepPoint request;
    request.group = place.group->name;
    request.lsn = side.moment.lsn;
    request.time = side.moment.time;
    auto made = points_.keep(place.service, std::move(request));
    if (!made)
      return Error{made.error().code,
                   "node " + place.node->node + " cannot keep the state at " +
                       (side.is_now() ? "present" : side.text) +
                       " for as long as the comparison takes: " + made.error().message};
    if (!has_in(*place.group, *made))
      return Error{ErrorCode::kNotFound, "there was no volume " + request_.volume + " at record " +
                                             std::to_string(made->lsn.value) + " (" +
                                             time_text(made->utc) + ")"};
    return Point{std::move(*made), true};
  }

  Result<Comparison> compare_at(const Place& place) {
    auto from = point_at(place, from_, true);
    if (!from) return from.error();
    auto to = point_at(place, to_, false);
    if (!to) return to.error();
    const auto name = request_.volume + (to->state ? "@" + to->state->name : "");
    auto exported = Export::open(place.nbd, name, context_.settings, from->state->name);
    if (!exported) return exported.error();
    return Comparison{std::move(*from), std::move(*to), place.node->node, std::move(*exported)};
  }

  Result<Comparison> compare_at_one(const std::vector<Place>& places) {
    std::optional<Error> first;
    for (const auto& place : places) {
      auto comparison = compare_at(place);
      if (comparison) return comparison;
      points_.let_all_go();
      if (!first) first = comparison.error();
    }
    return *first;
  }

  Context& context_;
  const DiffRequest& request_;
  Side from_, to_;
  bool primary_answers_ = false;
  TemporaryPoints points_;
};

}  // namespace

Exit run_diff(Context& context, DiffRequest request) {
  const auto at = request.volume.find('@');
  if (at != std::string::npos) {
    if (!request.to.empty())
      return fail_usage(context, "give the newer point once: as VOLUME@POINT or with --to");
    request.to = request.volume.substr(at + 1);
    request.volume.resize(at);
  }
  return Diff(context, request).run();
}

}  // namespace tandem::ctl
