#include "daemon/storage.h"

#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "device/uring_device.h"
#include "tandem/base/log.h"

namespace tandem::daemon {
namespace {

enum class Place { kMissing, kEmptyFile, kFile, kDevice, kOther };

Place look_at(const std::string& path) {
  struct stat at {};
  if (::stat(path.c_str(), &at) != 0) return Place::kMissing;
  if (S_ISBLK(at.st_mode)) return Place::kDevice;
  if (!S_ISREG(at.st_mode)) return Place::kOther;
  return at.st_size == 0 ? Place::kEmptyFile : Place::kFile;
}

device::DeviceOptions device_options(const Config& config, bool create) {
  return {.path = config.pool.path,
          .create = create,
          .size_bytes = config.pool.size_bytes,
          .direct = config.pool.direct};
}

store::StoreOptions store_options(const Config& config) {
  store::StoreOptions options;
  options.map_cache_bytes = config.memory.map_cache_bytes;
  options.recent_bytes_max = config.replication.memory_bytes;
  using Return = PoolConfig::Return;
  const Return when = config.pool.return_free_space;
  const bool is_file = look_at(config.pool.path) == Place::kFile;
  options.prepare_all = config.pool.prepare == PoolConfig::Prepare::kAll;
  if (when == Return::kOn || (when == Return::kAuto && is_file && !options.prepare_all))
    options.return_after = config.pool.return_after;
  return options;
}

}  // namespace

Result<std::unique_ptr<Storage>> Storage::open(const Config& config, bool create) {
  std::unique_ptr<Storage> storage(new Storage());
  auto reactor = device::Reactor::create({.spin = config.reactor.spin});
  if (!reactor) return std::move(reactor.error());
  storage->buffers_ = std::make_unique<BufferPool>(config.memory.buffer_bytes);
  storage->reactor_ = std::move(*reactor);
  TANDEM_TRY(storage->make_pool(config, create || config.pool.create));
  TANDEM_TRY(storage->open_pool(config));
  return storage;
}

Status Storage::make_pool(const Config& config, bool create) {
  const std::string& path = config.pool.path;
  const Place place = look_at(path);
  if (place == Place::kFile || place == Place::kOther) return ok();  // open_pool() judges it
  if (place != Place::kDevice && !create) {
    return Error{ErrorCode::kNotFound,
                 "there is no pool at " + path +
                     "; check pool.path, or make one with --create-pool (and pool.size)"};
  }
  if (place == Place::kDevice) {
    // A device that holds a pool already is simply opened; only a blank one is made into a pool.
    auto present = device::open_device(*reactor_, *buffers_, device_options(config, false));
    if (!present) return Error(std::move(present.error()));
    auto formatted = reactor_->wait_for(store::Pool::looks_formatted(**present));
    if (!formatted) return Error(std::move(formatted.error()));
    if (*formatted || !create) return ok();
  }
  auto device = device::open_device(*reactor_, *buffers_, device_options(config, true));
  if (!device) return Error(std::move(device.error()));
  const store::FormatOptions format{.zone_bytes = config.pool.zone_bytes,
                                    .prepared = place == Place::kDevice};
  Status formatted = reactor_->wait_for(store::Pool::format(reactor_->runtime(), **device, format));
  if (!formatted) {
    device->reset();
    if (place == Place::kMissing) ::unlink(path.c_str());
    return formatted;
  }
  log_event(Level::kInfo, "pool.created", "path={} bytes={} zone_bytes={}", path,
            (*device)->size_bytes(), config.pool.zone_bytes);
  return ok();
}

Status Storage::open_pool(const Config& config) {
  auto device = device::open_device(*reactor_, *buffers_, device_options(config, false));
  if (!device) return Error(std::move(device.error()));
  device_ = std::move(*device);
  auto pool = reactor_->wait_for(
      store::Pool::open(reactor_->runtime(), *device_, *buffers_, store_options(config)));
  if (!pool) return Error(std::move(pool.error()));
  pool_ = std::move(*pool);
  return ok();
}

Task<void> Storage::close() {
  co_await pool_->close();
  pool_.reset();
  device_.reset();
}

}  // namespace tandem::daemon
