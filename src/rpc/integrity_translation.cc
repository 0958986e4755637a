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

void to_proto(const ScrubStatus& scrub, v1::ScrubStatus* out) {
  out->set_state(utf8(scrub.state));
  out->set_started_utc_ns(scrub.started.value);
  out->set_ended_utc_ns(scrub.ended.value);
  out->set_blocks_total(scrub.blocks_total);
  out->set_blocks_read(scrub.blocks_read);
  out->set_nodes_read(scrub.nodes_read);
  out->set_bad_blocks(scrub.bad_blocks);
  out->set_repaired_blocks(scrub.repaired_blocks);
  out->set_bad_map_nodes(scrub.bad_map_nodes);
  out->set_repaired_map_nodes(scrub.repaired_map_nodes);
  for (const auto& finding : scrub.findings) {
    auto* f = out->add_findings();
    f->set_volume(utf8(finding.volume));
    f->set_snapshot(utf8(finding.snapshot));
    f->set_byte(finding.byte);
    f->set_outcome(utf8(finding.outcome));
  }
}

ScrubStatus from_proto(const v1::ScrubStatus& in) {
  ScrubStatus scrub{.state = in.state(),
                    .started = UtcNs(in.started_utc_ns()),
                    .ended = UtcNs(in.ended_utc_ns()),
                    .blocks_total = in.blocks_total(),
                    .blocks_read = in.blocks_read(),
                    .nodes_read = in.nodes_read(),
                    .bad_blocks = in.bad_blocks(),
                    .repaired_blocks = in.repaired_blocks(),
                    .bad_map_nodes = in.bad_map_nodes(),
                    .repaired_map_nodes = in.repaired_map_nodes(),
                    .findings = {}};
  for (const auto& finding : in.findings())
    scrub.findings.push_back(
        {finding.volume(), finding.snapshot(), finding.byte(), finding.outcome()});
  return scrub;
}

void to_proto(const AgreementStatus& agreement, v1::AgreementStatus* out) {
  out->set_through(agreement.through.value);
  out->set_at_utc_ns(agreement.at.value);
  out->set_difference(utf8(agreement.difference));
}

AgreementStatus from_proto(const v1::AgreementStatus& in) {
  return {.through = Lsn(in.through()), .at = UtcNs(in.at_utc_ns()), .difference = in.difference()};
}

}  // namespace tandem::rpc
