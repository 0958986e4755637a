// What the stages of a write take: see tandem/latency.h. On the way of every page, so the clock is
// read once for each step of a page, not of a record.
#include "store/group.h"

namespace tandem::store {

GroupLatency Group::latency() const {
  auto reading = times_.reading();
  reading.group = name_;
  reading.role = role_;
  reading.since = opened_;
  return reading;
}

void Group::note_formed(PageInFlight& page) {
  page.formed = runtime_.clock.monotonic();
  const bool replicated = page.records.front().replicated;
  if (!replicated) times_.add(Batch::kPage, page.records.size());
  for (const auto& record : page.records) {
    if (record.completion == nullptr) continue;
    if (record.completion->called)
      times_.add(Stage::kWriteQueue, page.formed - *record.completion->called);
    if (record.completion->called || replicated) ++page.timed;
  }
}

void Group::note_applied(const PageInFlight& page) {
  if (page.timed == 0) return;
  if (page.records.front().replicated)
    return times_.add(Stage::kApplyDevice, page.came_back - page.formed, page.timed);
  const Nanoseconds now = runtime_.clock.monotonic();
  times_.add(Stage::kWriteDevice, page.came_back - page.formed, page.timed);
  times_.add(Stage::kWriteOrder, now - page.came_back, page.timed);
  if (!remote_.written || page.after.lsn <= *remote_.written) return;
  for (const auto& record : page.records) {
    auto* completion = record.completion;
    if (completion != nullptr && completion->called && completion->last > *remote_.written)
      completion->mirror_awaited = now;
  }
}

void Group::note_answered(const Completion& completion, Nanoseconds now) {
  if (!completion.called) return;
  if (completion.mirror_awaited) times_.add(Stage::kWriteMirror, now - *completion.mirror_awaited);
  times_.add(Stage::kWrite, now - *completion.called);
}

}  // namespace tandem::store
