// The commands of the transmission phase: what each asks of the volume and how it is answered.
#include <algorithm>
#include <utility>
#include <vector>

#include "frontend/nbd/session.h"
#include "tandem/base/check.h"
#include "tandem/base/log.h"

namespace tandem::nbd {
namespace {

// Descriptors in one BLOCK_STATUS reply, of all contexts: 8 KiB of payload; a client asks again.
constexpr std::size_t kStatusExtentsMax = 1024;
// A sparse read with more runs than this is not worth taking apart.
constexpr std::size_t kReadExtentsMax = 16;

std::uint16_t flags_of(std::uint16_t type) {
  switch (type) {
    case command::kRead:
      return flag::kFua | flag::kDf;
    case command::kWriteZeroes:
      return flag::kFua | flag::kNoHole | flag::kFastZero;
    case command::kBlockStatus:
      return flag::kFua | flag::kReqOne;
    default:
      return flag::kFua;  // valid on every command, by the specification
  }
}

bool writes(std::uint16_t type) {
  return type == command::kWrite || type == command::kTrim || type == command::kWriteZeroes;
}

WriteOptions write_options(const Request& request) {
  WriteOptions options;
  options.fua = (request.flags & flag::kFua) != 0;
  options.no_hole = (request.flags & flag::kNoHole) != 0;
  return options;
}

}  // namespace

std::optional<Refusal> judge(const Request& request, const Agreement& agreement,
                             std::uint32_t payload_bytes_max) {
  const std::uint16_t type = request.type;
  if (type > command::kBlockStatus || type == command::kDisc)
    return Refusal{WireError::kInvalid, "unknown command"};
  if ((request.flags & ~flags_of(type)) != 0)
    return Refusal{WireError::kInvalid, "unknown flag for this command"};
  if ((request.flags & flag::kDf) != 0 && !agreement.structured)
    return Refusal{WireError::kInvalid, "DF needs structured replies"};
  if (type == command::kFlush) {
    if (request.offset != 0 || request.length != 0)
      return Refusal{WireError::kInvalid, "a flush has no offset and no length"};
    return std::nullopt;
  }
  if (type == command::kBlockStatus && agreement.contexts.empty())
    return Refusal{WireError::kInvalid, "no meta context was selected"};
  if (writes(type) && agreement.info.read_only)
    return Refusal{WireError::kPerm, "the export is read-only"};
  if (request.length == 0) return Refusal{WireError::kInvalid, "the length is zero"};
  const std::uint64_t size = agreement.info.size_bytes;
  if (request.offset > size || request.length > size - request.offset) {
    const bool grows = type == command::kWrite || type == command::kWriteZeroes;
    return Refusal{grows ? WireError::kNoSpace : WireError::kInvalid,
                   "the range ends behind the end of the export"};
  }
  const bool carries_data = type == command::kRead || type == command::kWrite;
  if (carries_data && request.length > payload_bytes_max) {
    const bool whole = (request.flags & flag::kDf) != 0;
    return Refusal{whole ? WireError::kOverflow : WireError::kInvalid,
                   "the length is above the advertised maximum"};
  }
  return std::nullopt;
}

void Session::execute(const Request& request, IoBuffer data) {
  Stats& stats = context_.stats;
  switch (request.type) {
    case command::kRead:
      ++stats.reads_total;
      stats.read_bytes_total += request.length;
      return spawn(do_read(request));
    case command::kWrite:
      ++stats.writes_total;
      stats.written_bytes_total += request.length;
      return spawn(do_write(request, std::move(data)));
    case command::kFlush:
      ++stats.flushes_total;
      return spawn(do_flush(request));
    case command::kTrim:
      ++stats.trims_total;
      return spawn(do_trim(request));
    case command::kWriteZeroes:
      ++stats.zeroes_total;
      return spawn(do_write_zeroes(request));
    case command::kBlockStatus:
      ++stats.block_status_total;
      return spawn(do_block_status(request));
    case command::kCache:
      // A hint: the volume decides itself what it keeps in memory.
      ++stats.caches_total;
      return reply_ok(request);
    default:
      CHECK(false);  // judge() lets no other pass
  }
}

Task<void> Session::do_read(Request request) {
  Gate::Holder hold(volume_tasks_);
  const bool may_split = agreement_.structured && (request.flags & flag::kDf) == 0;
  if (may_split && request.length >= options_.sparse_read_bytes_min) {
    bool answered = false;
    const Status outcome = co_await sparse_read(request, answered);
    if (answered) co_return;
    if (!outcome) {
      finish_request(request, outcome);
      co_return;
    }
  }
  Result<IoBuffer> data = co_await agreement_.volume->read(request.offset, request.length);
  if (!data) {
    finish_request(request, Status(std::move(data.error())));
    co_return;
  }
  reply_data(request, std::move(*data));
}

/// Answers a read with a chunk per run when the range has holes; otherwise leaves it to the caller
/// (`answered` stays false). The allocation is looked up while the read is under way, so a write
/// that changes it in between is concurrent with the read and may be seen or not.
Task<Status> Session::sparse_read(Request request, bool& answered) {
  Volume& volume = *agreement_.volume;
  const auto known = co_await volume.allocation(request.offset, request.length, kReadExtentsMax);
  if (!known) co_return ok();  // the read itself will say what is wrong
  const auto& extents = *known;
  std::uint64_t covered = 0;
  bool holes = false;
  for (const auto& extent : extents) {
    covered += extent.length_bytes;
    holes = holes || extent.zero;
  }
  if (!holes || covered != request.length) co_return ok();

  std::vector<IoBuffer> data(extents.size());
  std::uint64_t at = request.offset;
  for (std::size_t i = 0; i < extents.size(); ++i) {
    if (!extents[i].zero) {
      Result<IoBuffer> piece = co_await volume.read(at, extents[i].length_bytes);
      if (!piece) co_return Error(std::move(piece.error()));
      data[i] = std::move(*piece);
    }
    at += extents[i].length_bytes;
  }
  at = request.offset;
  for (std::size_t i = 0; i < extents.size(); ++i) {
    const bool last = i + 1 == extents.size();
    const auto length = static_cast<std::uint32_t>(extents[i].length_bytes);
    if (extents[i].zero) {
      append_offset_hole(replies_.head(), request.cookie, last, at, length);
    } else {
      CHECK(data[i].size() == length);
      append_offset_data_head(replies_.head(), request.cookie, last, at, length);
      replies_.attach(std::move(data[i]));
    }
    at += length;
  }
  end_reply(request);
  answered = true;
  co_return ok();
}

Task<void> Session::do_write(Request request, IoBuffer data) {
  Gate::Holder hold(volume_tasks_);
  Task<Status> task =
      agreement_.volume->write(request.offset, std::move(data), write_options(request));
  const Status outcome = co_await std::move(task);
  finish_request(request, outcome);
}

Task<void> Session::do_flush(Request request) {
  Gate::Holder hold(volume_tasks_);
  const Status outcome = co_await agreement_.volume->flush();
  finish_request(request, outcome);
}

Task<void> Session::do_trim(Request request) {
  Gate::Holder hold(volume_tasks_);
  const Status outcome =
      co_await agreement_.volume->discard(request.offset, request.length, write_options(request));
  finish_request(request, outcome);
}

Task<void> Session::do_write_zeroes(Request request) {
  Gate::Holder hold(volume_tasks_);
  const Status outcome = co_await agreement_.volume->write_zeroes(request.offset, request.length,
                                                                  write_options(request));
  finish_request(request, outcome);
}

Task<void> Session::do_block_status(Request request) {
  Gate::Holder hold(volume_tasks_);
  const bool one = (request.flags & flag::kReqOne) != 0;
  const std::size_t extents_max =
      one ? 1 : std::max<std::size_t>(kStatusExtentsMax / agreement_.contexts.size(), 1);
  // All of them or an error: half of an answer would look like a whole one.
  std::vector<std::vector<StatusExtent>> answers;
  for (const auto& context : agreement_.contexts) {
    auto extents = co_await extents_of(context, *agreement_.volume, request.offset, request.length,
                                       extents_max);
    if (!extents) {
      finish_request(request, Status(std::move(extents.error())));
      co_return;
    }
    answers.push_back(std::move(*extents));
  }
  for (std::size_t i = 0; i < answers.size(); ++i) {
    append_block_status(replies_.head(), request.cookie, i + 1 == answers.size(),
                        agreement_.contexts[i].id, answers[i]);
  }
  end_reply(request);
}

void Session::finish_request(const Request& request, const Status& outcome) {
  if (outcome) {
    reply_ok(request);
    return;
  }
  const bool moved = outcome.error().code == ErrorCode::kReadOnly && !agreement_.info.read_only;
  if (moved) return leave_unanswered(request);
  if (!std::exchange(error_logged_, true)) {
    // Once a connection: a failing volume would otherwise log every request.
    log_event(Level::kWarn, "nbd.first_error",
              "export={} client={} command={} offset={} length={} "
              "error={} reason=\"{}\"",
              agreement_.info.name, transport_.peer(), request.type, request.offset, request.length,
              to_string(outcome.error().code), outcome.error().message);
  }
  reply_error(request, wire_error(outcome.error().code), outcome.error().message);
}

/// This node is a mirror of its volume now (tandem/volume.h): an error would reach the guest,
/// whereas a client that loses its connection asks again, there.
void Session::leave_unanswered(const Request& request) {
  ++context_.stats.unanswered_total;
  --at_volume_;
  release({.requests = 1, .bytes = charge_of(request)});
  if (!intake_closed_) stop();
}

void Session::reply_ok(const Request& request) {
  append_simple_reply(replies_.head(), request.cookie, WireError::kNone);
  end_reply(request);
}

void Session::reply_error(const Request& request, WireError error, std::string_view message) {
  ++context_.stats.errors_total;
  if (agreement_.structured) {
    append_error_chunk(replies_.head(), request.cookie, error, message);
  } else {
    append_simple_reply(replies_.head(), request.cookie, error);
  }
  end_reply(request);
}

void Session::reply_data(const Request& request, IoBuffer data) {
  CHECK(data.size() == request.length);
  if (agreement_.structured) {
    append_offset_data_head(replies_.head(), request.cookie, true, request.offset, request.length);
  } else {
    append_simple_reply(replies_.head(), request.cookie, WireError::kNone);
  }
  replies_.attach(std::move(data));
  end_reply(request);
}

void Session::end_reply(const Request& request) {
  replies_.end_reply(charge_of(request));
  replied();
}

}  // namespace tandem::nbd
