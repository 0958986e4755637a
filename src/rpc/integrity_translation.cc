#include "rpc/integrity_translation.h"

#include "rpc/wire.h"

namespace tandem::rpc {

using wire::utf8;

void to_proto(const DamageStatus& damage, v1::DamageStatus* out) {
  out->set_fetched_blocks(damage.fetched_blocks);
  out->set_repaired_blocks(damage.repaired_blocks);
  out->set_unrepairable_blocks(damage.unrepairable_blocks);
  out->set_damaged_map_nodes(damage.damaged_map_nodes);
  out->set_last_utc_ns(damage.last_at.value);
  out->set_last_volume(utf8(damage.last_volume));
  out->set_last_byte(damage.last_byte);
  out->set_last_outcome(utf8(damage.last_outcome));
}

DamageStatus from_proto(const v1::DamageStatus& in) {
  return {.fetched_blocks = in.fetched_blocks(),
          .repaired_blocks = in.repaired_blocks(),
          .unrepairable_blocks = in.unrepairable_blocks(),
          .damaged_map_nodes = in.damaged_map_nodes(),
          .last_at = UtcNs(in.last_utc_ns()),
          .last_volume = in.last_volume(),
          .last_byte = in.last_byte(),
          .last_outcome = in.last_outcome()};
}

}  // namespace tandem::rpc
