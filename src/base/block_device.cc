#include "tandem/port/block_device.h"

#include <cstring>

namespace tandem {

void IoBatch::add(IoRequest::Kind kind, std::uint64_t offset, std::uint64_t length,
                  std::span<std::byte> buffer) {
  Member member;
  member.kind = kind;
  member.offset = offset;
  member.length = length;
  member.buffer = buffer;
  member.complete = &IoBatch::on_complete;
  member.batch = this;
  requests_.push_back(member);
}

void IoBatch::Awaiter::await_suspend(std::coroutine_handle<> h) {
  batch.waiter_ = h;
  batch.pending_ = batch.requests_.size();
  for (auto& request : batch.requests_) batch.device_.submit(request);
}

void IoBatch::on_complete(IoRequest& request) {
  IoBatch& batch = *static_cast<Member&>(request).batch;
  if (--batch.pending_ == 0) batch.waiter_.resume();
}

Status IoBatch::outcome() const {
  for (const auto& request : requests_) {
    if (request.error == 0) continue;
    const char* what = request.kind == IoRequest::Kind::kRead    ? "read"
                       : request.kind == IoRequest::Kind::kFlush ? "flush"
                                                                 : "write";
    const auto code = request.error == ENOSPC ? ErrorCode::kNoSpace : ErrorCode::kIo;
    return Error{code, device_.name() + ": " + what + " of " + std::to_string(request.length) +
                           " bytes at " + std::to_string(request.offset) +
                           " failed: " + std::strerror(request.error)};
  }
  return ok();
}

}  // namespace tandem
