// Load of clients that commit: each writes a random 4 KiB block, waits for it, and after every K-th
// of its writes flushes and waits for that too. fio only queues a flush beside the writes of a deep
// queue and leaves it out of its latencies; here a write that is committed lasts until its flush is
// done, as a database sees it.
//
//   commit_load --seconds 8 --clients 32 --flush-every 1 --size BYTES
//               (--uri nbd+unix:///NAME?socket=PATH | --file PATH)
//
// All clients share one NBD connection (libnbd), or one ring on a file opened with O_DIRECT.
// Prints one line of JSON; exits with 1 and a reason when anything fails. One thread.
#include <fcntl.h>
#include <libnbd.h>
#include <liburing.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr std::size_t kBlockBytes = 4096;
using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "commit_load: %s\n", what.c_str());
  std::exit(1);
}

struct Options {
  double seconds = 8;
  std::uint64_t clients = 1, flush_every = 1, size_bytes = 0;
  std::string uri, file;
};

/// Where the load goes. Completions are the numbers of clients, each once per request.
class Target {
 public:
  virtual ~Target() = default;
  /// `from` stays untouched until the client's completion.
  virtual void write(std::size_t client, std::uint64_t offset, const std::byte* from) = 0;
  virtual void flush(std::size_t client) = 0;
  /// Waits for at least one completion; returns all there are.
  virtual const std::vector<std::size_t>& wait() = 0;
};

class NbdTarget final : public Target {
 public:
  NbdTarget(const Options& options) : handle_(nbd_create()), requests_(options.clients) {
    if (!handle_ || nbd_connect_uri(handle_, options.uri.c_str()) == -1) fail(nbd_get_error());
    for (std::size_t i = 0; i < requests_.size(); ++i) requests_[i] = {this, i};
  }
  ~NbdTarget() override { nbd_close(handle_); }

  void write(std::size_t client, std::uint64_t offset, const std::byte* from) override {
    if (nbd_aio_pwrite(handle_, from, kBlockBytes, offset, completion(client), 0) == -1)
      fail(nbd_get_error());
  }
  void flush(std::size_t client) override {
    if (nbd_aio_flush(handle_, completion(client), 0) == -1) fail(nbd_get_error());
  }
  const std::vector<std::size_t>& wait() override {
    done_.clear();
    while (done_.empty())
      if (nbd_poll(handle_, -1) == -1) fail(nbd_get_error());
    return done_;
  }

 private:
  struct Request {
    NbdTarget* target = nullptr;
    std::size_t client = 0;
  };

  nbd_completion_callback completion(std::size_t client) {
    nbd_completion_callback callback{};
    callback.callback = &completed;
    callback.user_data = &requests_[client];
    return callback;
  }
  // libnbd holds its lock here: nothing may be submitted before wait() returns.
  static int completed(void* data, int* error) {
    const auto& request = *static_cast<Request*>(data);
    if (*error != 0) fail(std::string("the server answered: ") + std::strerror(*error));
    request.target->done_.push_back(request.client);
    return 1;  // retire the command
  }

  nbd_handle* handle_;
  std::vector<Request> requests_;
  std::vector<std::size_t> done_;
};

class FileTarget final : public Target {
 public:
  FileTarget(const Options& options)
      : file_(open(options.file.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC)) {
    if (file_ < 0) fail(options.file + ": " + std::strerror(errno));
    const int result = io_uring_queue_init(static_cast<unsigned>(options.clients * 2), &ring_, 0);
    if (result < 0) fail(std::string("io_uring: ") + std::strerror(-result));
  }
  ~FileTarget() override { io_uring_queue_exit(&ring_); }

  void write(std::size_t client, std::uint64_t offset, const std::byte* from) override {
    auto* entry = next();
    io_uring_prep_write(entry, file_, from, kBlockBytes, offset);
    io_uring_sqe_set_data64(entry, client);
  }
  void flush(std::size_t client) override {
    auto* entry = next();
    io_uring_prep_fsync(entry, file_, IORING_FSYNC_DATASYNC);
    io_uring_sqe_set_data64(entry, client);
  }
  const std::vector<std::size_t>& wait() override {
    done_.clear();
    const int submitted = io_uring_submit_and_wait(&ring_, 1);
    if (submitted < 0 && submitted != -EINTR) fail(std::strerror(-submitted));
    io_uring_cqe* completion = nullptr;
    while (io_uring_peek_cqe(&ring_, &completion) == 0) {
      if (completion->res < 0) fail(std::strerror(-completion->res));
      done_.push_back(io_uring_cqe_get_data64(completion));
      io_uring_cqe_seen(&ring_, completion);
    }
    return done_;
  }

 private:
  io_uring_sqe* next() {
    auto* entry = io_uring_get_sqe(&ring_);
    if (!entry) fail("the ring is full");  // it has two places for each client
    return entry;
  }

  int file_;
  io_uring ring_{};
  std::vector<std::size_t> done_;
};

class Load {
 public:
  Load(const Options& options, Target& target)
      : options_(options), target_(target), clients_(options.clients) {
    buffers_.reset(
        static_cast<std::byte*>(std::aligned_alloc(kBlockBytes, clients_.size() * kBlockBytes)));
    auto* words = reinterpret_cast<std::uint64_t*>(buffers_.get());
    std::generate_n(words, clients_.size() * kBlockBytes / sizeof *words, std::ref(random_));
    // Clients that count from different starts do not all flush at once.
    for (std::size_t i = 0; i < clients_.size(); ++i)
      clients_[i].writes = i * options.flush_every / clients_.size();
  }

  void run() {
    const auto start = Clock::now();
    const auto end = start + std::chrono::duration_cast<Clock::duration>(
                                 std::chrono::duration<double>(options_.seconds));
    for (std::size_t i = 0; i < clients_.size(); ++i) write(i, start);
    for (auto active = clients_.size(); active > 0;) {
      const auto& done = target_.wait();
      const auto now = Clock::now();
      for (const auto client : done) {
        if (!finish(client, now)) continue;
        now < end ? write(client, now) : static_cast<void>(--active);
      }
    }
    elapsed_ = std::chrono::duration<double>(Clock::now() - start).count();
  }

  void report() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) {
      return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    };
    std::printf("{\"operations\": %zu, \"seconds\": %.6f, \"client_cpu_seconds\": %.6f",
                writes_ns_.size(), elapsed_, seconds(usage.ru_utime) + seconds(usage.ru_stime));
    print("latency_us", writes_ns_);
    print("flush_us", flushes_ns_);
    std::printf(", \"flushes\": %zu}\n", flushes_ns_.size());
  }

 private:
  struct Free {
    void operator()(std::byte* at) const { std::free(at); }
  };
  struct Client {
    std::uint64_t writes = 0;
    bool flushing = false;
    Clock::time_point written_at, flushed_at;
  };

  void write(std::size_t number, Clock::time_point now) {
    auto& client = clients_[number];
    auto* buffer = buffers_.get() + number * kBlockBytes;
    const std::uint64_t stamp = random_();  // no two blocks are the same
    std::memcpy(buffer, &stamp, sizeof stamp);
    client.written_at = now;
    target_.write(number, random_() % (options_.size_bytes / kBlockBytes) * kBlockBytes, buffer);
  }

  /// True when the client may write again.
  bool finish(std::size_t number, Clock::time_point now) {
    auto& client = clients_[number];
    if (client.flushing) {
      client.flushing = false;
      flushes_ns_.push_back(nanoseconds(now - client.flushed_at));
    } else if (++client.writes % options_.flush_every == 0) {
      client.flushing = true;
      client.flushed_at = now;
      target_.flush(number);
      return false;
    }
    writes_ns_.push_back(nanoseconds(now - client.written_at));
    return true;
  }

  static std::int64_t nanoseconds(Clock::duration d) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(d).count();
  }

  static void print(const char* name, std::vector<std::int64_t>& values) {
    std::sort(values.begin(), values.end());
    const auto at = [&](double part) {
      if (values.empty()) return 0.0;
      const auto rank = static_cast<std::size_t>(part * static_cast<double>(values.size()));
      return static_cast<double>(values[std::min(rank, values.size() - 1)]) / 1000;
    };
    std::printf(", \"%s\": {\"p50\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f}", name, at(0.5),
                at(0.99), at(0.999));
  }

  const Options& options_;
  Target& target_;
  std::vector<Client> clients_;
  std::unique_ptr<std::byte[], Free> buffers_;
  std::mt19937_64 random_{std::random_device{}()};
  std::vector<std::int64_t> writes_ns_, flushes_ns_;
  double elapsed_ = 0;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view key = argv[i];
    const char* value = argv[i + 1];
    if (key == "--seconds") {
      options.seconds = std::strtod(value, nullptr);
    } else if (key == "--clients") {
      options.clients = std::strtoull(value, nullptr, 10);
    } else if (key == "--flush-every") {
      options.flush_every = std::strtoull(value, nullptr, 10);
    } else if (key == "--size") {
      options.size_bytes = std::strtoull(value, nullptr, 10);
    } else if (key == "--uri") {
      options.uri = value;
    } else if (key == "--file") {
      options.file = value;
    } else {
      fail("unknown option " + std::string(key));
    }
  }
  if (argc % 2 == 0 || options.seconds <= 0 || options.clients == 0 || options.clients > 1024 ||
      options.flush_every == 0 || options.size_bytes < kBlockBytes ||
      options.uri.empty() == options.file.empty())
    fail("usage: see the head of commit_load.cc");
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const auto options = parse(argc, argv);
  std::unique_ptr<Target> target;
  if (options.file.empty()) {
    target = std::make_unique<NbdTarget>(options);
  } else {
    target = std::make_unique<FileTarget>(options);
  }
  Load load(options, *target);
  load.run();
  load.report();
}
