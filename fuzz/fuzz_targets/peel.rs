//! All layers of all disks of a domain.
#![no_main]

use libfuzzer_sys::fuzz_target;
use virt_fsck::layers::dormant::{Headers, Known, Unlocked};
use virt_fsck::layers::peel::{WholeMirrors, peel};
use virt_fsck::layers::read::{ReadAt, ReadImages};
use virt_fsck::layers::tree::Layer;
use virt_fsck_fuzz::Disks;

fuzz_target!(|disks: Disks| {
    let open = disks.open();
    let peeled = peel(
        &open,
        &disks,
        Known {
            activated: None,
            unlocked: &Unlocked::new(),
            headers: &Headers::new(),
        },
        WholeMirrors::default(),
    );
    assert_eq!(peeled.layers.len(), open.len());
    for layer in peeled.layers.iter().flat_map(Layer::walk) {
        for place in layer.extents.places() {
            let image = disks.image(place.image).map(ReadAt::size);
            let end = place.offset.checked_add(place.length);
            assert!(end <= image, "{} lies outside of its disk", layer.path);
        }
    }
});
