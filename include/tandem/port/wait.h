// Waiting for a condition, for a limited time, on the executor port.
//
// Thread: the reactor's.
#pragma once

#include "tandem/base/sync.h"
#include "tandem/base/task.h"
#include "tandem/port/executor.h"

namespace tandem {

/// Returns when `condition` was notified or `limit` has passed, whichever is first; the caller
/// looks at the state to learn which. Whoever else waits for `condition` wakes with it.
inline Task<void> wait_at_most(Executor& executor, Condition& condition, Nanoseconds limit) {
  const TimerId timer = executor.schedule_after(limit, [&condition] { condition.notify_all(); });
  co_await condition.wait();
  executor.cancel(timer);
}

}  // namespace tandem
