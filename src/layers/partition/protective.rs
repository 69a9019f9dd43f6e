//! What the MBR in front of a GPT says that the GPT does not.

use crate::layers::partition::gpt::Gpt;
use crate::layers::partition::mbr::Record;
use crate::layers::partition::span::Notes;
use crate::units::SectorSize;

/// Notes where the record and the GPT, whose disk ends with the sector `last`, do not belong
/// together: Linux, util-linux and Windows follow one or the other (kernel:
/// block/partitions/efi.c, `is_pmbr_valid`).
pub(super) fn note(record: &Record, gpt: &Gpt, last: u64, size: SectorSize, notes: &mut Notes) {
    let Some((length, is_believed)) = record.protective() else {
        return;
    };
    if !is_believed {
        notes.add(
            "the protective entry of the MBR does not begin at sector 1; util-linux uses the GPT \
             all the same, Linux itself takes no partitions from this disk"
                .to_owned(),
        );
    }
    let beside = record.beside_protective();
    if beside.is_empty() {
        let whole = u32::try_from(last).unwrap_or(u32::MAX);
        if length != whole && length != u32::MAX && !gpt.is_resized {
            notes.add(format!(
                "the protective entry of the MBR covers {length} sectors of the disk, which has \
                 {last} after the first"
            ));
        }
        return;
    }
    let (mut same, mut other) = (Vec::new(), Vec::new());
    for (number, entry) in beside {
        let place = entry.bytes(0, size);
        let is_in_gpt = gpt
            .spans
            .iter()
            .any(|span| place == Some((span.start, span.end)));
        let list = if is_in_gpt { &mut same } else { &mut other };
        list.push(number.to_string());
    }
    let which = if other.is_empty() {
        format!(
            "its entries {} are partitions of the GPT too",
            same.join(", ")
        )
    } else {
        format!(
            "its entries {} are none of the GPT's partitions",
            other.join(", ")
        )
    };
    notes.add(format!(
        "a hybrid MBR lies beside the GPT: {which}; the GPT is used, as Linux does, but Windows \
         and BIOS boot code use the MBR"
    ));
}
