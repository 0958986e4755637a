#include "tests/support/grpc_support.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <stdexcept>
#include <utility>

namespace tandem::test {

ThreadExecutor::ThreadExecutor() : thread_([this] { loop(); }) {}

ThreadExecutor::~ThreadExecutor() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void ThreadExecutor::post(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    ++posts_;
  }
  wake_.notify_all();
}

TimerId ThreadExecutor::schedule_after(Nanoseconds delay, std::function<void()> work) {
  std::lock_guard lock(mutex_);
  const auto id = next_timer_++;
  timers_.emplace(std::pair(std::chrono::steady_clock::now() + delay, id), std::move(work));
  wake_.notify_all();
  return id;
}

void ThreadExecutor::cancel(TimerId timer) {
  std::lock_guard lock(mutex_);
  std::erase_if(timers_, [timer](const auto& entry) { return entry.first.second == timer; });
}

void ThreadExecutor::run(std::function<void()> work) {
  std::promise<void> done;
  post([&] {
    work();
    done.set_value();
  });
  done.get_future().wait();
}

namespace {
Task<void> signal_end(std::function<Task<void>()> make, std::promise<void>& done) {
  auto task = make();
  co_await std::move(task);
  done.set_value();
}
}  // namespace

void ThreadExecutor::run_task(std::function<Task<void>()> make) {
  std::promise<void> done;
  post([&] { spawn(signal_end(make, done)); });
  done.get_future().wait();
}

std::uint64_t ThreadExecutor::posts() const {
  std::lock_guard lock(mutex_);
  return posts_;
}

void ThreadExecutor::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (!queue_.empty()) {
      auto batch = std::exchange(queue_, {});
      lock.unlock();
      for (auto& work : batch) work();
      batch.clear();
      lock.lock();
      continue;
    }
    if (stopping_) return;
    if (timers_.empty()) {
      wake_.wait(lock);
      continue;
    }
    const auto due = timers_.begin()->first.first;
    if (due > std::chrono::steady_clock::now()) {
      wake_.wait_until(lock, due);
      continue;
    }
    auto work = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    lock.unlock();
    work();
    lock.lock();
  }
}

TemporaryDirectory::TemporaryDirectory() {
  auto pattern = (std::filesystem::temp_directory_path() / "tandem-test-XXXXXX").string();
  if (!mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp failed");
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

namespace {
void openssl(const TemporaryDirectory& directory, const std::string& arguments) {
  const auto command =
      "cd '" + directory.path() + "' && openssl " + arguments + " >openssl.log 2>&1";
  if (std::system(command.c_str()) != 0)
    throw std::runtime_error("openssl failed: openssl " + arguments);
}
}  // namespace

void make_ca(const TemporaryDirectory& directory, const std::string& name) {
  openssl(directory,
          "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout " + name +
              ".key.pem -out " + name + ".ca.pem -subj /CN=" + name +
              " -addext basicConstraints=critical,CA:TRUE");
}

CertificateFiles make_certificate(const TemporaryDirectory& directory, const std::string& ca,
                                  const std::string& name, int days, const std::string& unit) {
  openssl(directory, "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout " + name +
                         ".key.pem -out " + name + ".csr -subj " +
                         (unit.empty() ? "" : "/OU=" + unit) + "/CN=" + name);
  std::ofstream(directory.file(name + ".ext")) << "subjectAltName=DNS:localhost,IP:127.0.0.1\n";
  const auto sign = " -in " + name + ".csr -out " + name + ".pem -extfile " + name + ".ext";
  if (days > 0) {
    openssl(directory, "x509 -req -CA " + ca + ".ca.pem -CAkey " + ca +
                           ".key.pem -CAcreateserial -days " + std::to_string(days) + sign);
  } else {
    // Only `openssl ca` takes a date in the past; it wants a small database beside it.
    std::ofstream(directory.file("index.txt")) << "";
    std::ofstream(directory.file("serial")) << "1000\n";
    std::ofstream(directory.file("ca.conf"))
        << "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\n"
           "default_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n";
    openssl(directory, "ca -batch -config ca.conf -cert " + ca + ".ca.pem -keyfile " + ca +
                           ".key.pem -startdate 20200101000000Z -enddate 20200102000000Z -notext" +
                           sign);
  }
  return {directory.file(ca + ".ca.pem"), directory.file(name + ".pem"),
          directory.file(name + ".key.pem")};
}

}  // namespace tandem::test
