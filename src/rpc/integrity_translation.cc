#include "rpc/integrity_translation.h"

#include "rpc/wire.h"

namespace tandem::rpc {

using wire::utf8;

namespace {

void to_proto(const ScrubFinding& finding, v1::ScrubFinding* out) {
  out->set_volume(utf8(finding.volume));
  out->set_snapshot(utf8(finding.snapshot));
  out->set_byte(finding.byte);
  out->set_outcome(utf8(finding.outcome));
}

ScrubFinding from_proto(const v1::ScrubFinding& in) {
  return {in.volume(), in.snapshot(), in.byte(), in.outcome()};
}

}  // namespace

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
  for (const auto& finding : scrub.findings) to_proto(finding, out->add_findings());
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
  for (const auto& finding : in.findings()) scrub.findings.push_back(from_proto(finding));
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

v1::CheckContentRequest to_proto(const ContentRequest& request) {
  v1::CheckContentRequest out;
  out.set_group(request.group);
  out.set_snapshot(request.snapshot);
  out.set_volume(request.volume);
  out.set_first(request.first);
  out.set_read(request.read);
  out.set_detail(request.detail);
  return out;
}

ContentRequest from_proto(const v1::CheckContentRequest& in) {
  return {.group = in.group(),
          .snapshot = in.snapshot(),
          .volume = in.volume(),
          .first = in.first(),
          .read = in.read(),
          .detail = in.detail()};
}

void to_proto(const ContentReport& report, v1::CheckContentResponse* out) {
  out->set_next(report.next);
  out->set_end(report.end);
  for (const auto& piece : report.pieces) {
    auto* p = out->add_pieces();
    p->set_number(piece.number);
    p->set_digest(piece.digest.value);
    p->set_blocks(piece.blocks);
    p->set_unreadable(!piece.readable);
  }
  for (const auto& block : report.blocks) {
    auto* b = out->add_blocks();
    b->set_number(block.number);
    b->set_lsn(block.lsn.value);
    b->set_crc32c(block.crc32c);
  }
  out->set_bad_blocks(report.bad_blocks);
  out->set_repaired_blocks(report.repaired_blocks);
  for (const auto& finding : report.findings) to_proto(finding, out->add_findings());
}

ContentReport from_proto(const v1::CheckContentResponse& in) {
  ContentReport report{.next = in.next(),
                       .end = in.end(),
                       .pieces = {},
                       .blocks = {},
                       .bad_blocks = in.bad_blocks(),
                       .repaired_blocks = in.repaired_blocks(),
                       .findings = {}};
  for (const auto& piece : in.pieces())
    report.pieces.push_back(
        {piece.number(), Digest(piece.digest()), piece.blocks(), !piece.unreadable()});
  for (const auto& block : in.blocks())
    report.blocks.push_back({block.number(), Lsn(block.lsn()), block.crc32c()});
  for (const auto& finding : in.findings()) report.findings.push_back(from_proto(finding));
  return report;
}

}  // namespace tandem::rpc
