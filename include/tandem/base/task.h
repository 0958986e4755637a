// Task<T>: the one coroutine type. Lazy, single owner, resumed on whatever thread completes what
// it awaits; in Tandem that is always the reactor's. It never names a thread, an io_context or a
// ring, so the same code runs in production and in the simulator.
//
// - A Task starts when it is awaited (or given to spawn()). If it ends before its first wait, its
//   awaiter goes on without having been suspended; otherwise it resumes its awaiter. A loop may
//   therefore await as many tasks that end at once as it likes: none of them stays on the stack,
//   also where the compiler makes no tail calls (sanitizers, -O0). It must be awaited exactly
//   once, or destroyed unstarted.
// - Coroutines are named functions or member functions, never capturing lambdas: captures die with
//   the lambda, not with the coroutine.
// - After every co_await re-read shared state: others ran in between.
#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

#include "tandem/base/check.h"

namespace tandem {

template <class T>
class Task;

namespace task_detail {

// Clang 14 miscompiles a loop around a co_await when it inlines this.
#ifdef __clang__
#define TANDEM_NO_INLINE __attribute__((noinline))
#else
#define TANDEM_NO_INLINE
#endif

struct FinalAwaiter {
  bool await_ready() const noexcept { return false; }
  template <class Promise>
  TANDEM_NO_INLINE std::coroutine_handle<> await_suspend(
      std::coroutine_handle<Promise> self) const noexcept {
    self.promise().ended = true;
    return self.promise().continuation;
  }
  void await_resume() const noexcept {}
};

struct PromiseBase {
  std::coroutine_handle<> continuation = std::noop_coroutine();  // whom to resume, once it waits
  bool ended = false;
  std::suspend_always initial_suspend() const noexcept { return {}; }
  FinalAwaiter final_suspend() const noexcept { return {}; }
  void unhandled_exception() const noexcept { std::terminate(); }
};

template <class T>
struct Promise : PromiseBase {
  std::optional<T> value;
  Task<T> get_return_object() noexcept;
  template <class U>
  void return_value(U&& v) {
    value.emplace(std::forward<U>(v));
  }
  T take() { return std::move(*value); }
};

template <>
struct Promise<void> : PromiseBase {
  Task<void> get_return_object() noexcept;
  void return_void() const noexcept {}
  void take() const noexcept {}
};

}  // namespace task_detail

template <class T = void>
class [[nodiscard]] Task {
 public:
  using promise_type = task_detail::Promise<T>;
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&& other) noexcept {
    if (handle_) handle_.destroy();
    handle_ = std::exchange(other.handle_, {});
    return *this;
  }
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  TANDEM_NO_INLINE bool await_suspend(std::coroutine_handle<> awaiter) noexcept {
    auto& promise = handle_.promise();
    handle_.resume();
    if (promise.ended) return false;
    promise.continuation = awaiter;
    return true;
  }
  T await_resume() { return handle_.promise().take(); }

 private:
  friend promise_type;
  explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

namespace task_detail {

template <class T>
Task<T> Promise<T>::get_return_object() noexcept {
  return Task<T>(std::coroutine_handle<Promise<T>>::from_promise(*this));
}
inline Task<void> Promise<void>::get_return_object() noexcept {
  return Task<void>(std::coroutine_handle<Promise<void>>::from_promise(*this));
}

struct Detached {
  struct promise_type {
    Detached get_return_object() const noexcept { return {}; }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() const noexcept { std::terminate(); }
  };
};

inline Detached run_detached(Task<void> task) { co_await std::move(task); }

}  // namespace task_detail

/// Starts `task` now, on this thread, and lets it run to its end on its own. Whatever it refers to
/// must outlive it: use a Gate (sync.h) to wait for it.
inline void spawn(Task<void> task) { task_detail::run_detached(std::move(task)); }

}  // namespace tandem
