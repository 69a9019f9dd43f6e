//! Swap space, and what a suspended system writes over its signature
//! (kernel: include/linux/swap.h, `union swap_header`; kernel/power/swap.c).

use crate::layers::signature::field;
use crate::layers::signature::model::Signature;
use crate::layers::signature::probe::Probe;

/// The signature's ten bytes end the first page; these are the page sizes Linux has.
const PAGE_SIZES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];
const SIGNATURE_LENGTH: usize = 10;
const HEADER: usize = 1024;

const PLAIN: [&str; 2] = ["SWAPSPACE2", "SWAP-SPACE"];
/// Of the kernel, of uswsusp, and of old kernels.
const SUSPENDED: [&str; 4] = ["S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"];
/// TuxOnIce writes its own at byte 0.
const TUX_ON_ICE: &[u8] = b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c";

/// What the signature says, and whether the header bears it out.
pub(super) struct Swap {
    /// The swap space.
    pub(super) signature: Signature,
    /// A system is suspended to it.
    pub(super) hibernated: bool,
    /// The header at byte 1024 is that of swap space. Without it the signature may be what mkfs
    /// left of an earlier use: ext writes over the header and not over the signature.
    pub(super) has_header: bool,
}

/// Swap space of any page size.
pub(super) fn recognise(probe: &Probe) -> Option<Swap> {
    let (found, hibernated) = if probe.is(0, TUX_ON_ICE) {
        ("TuxOnIce", true)
    } else {
        signature(probe)?
    };
    let header = probe.from(HEADER);
    let version = field::le32(header, 0)?;
    let has_header = (version == 1 || version.swap_bytes() == 1) && field::le32(header, 4)? != 0;
    Some(Swap {
        signature: Signature::Swap {
            uuid: has_header.then(|| field::uuid(header, 12)).flatten(),
            label: has_header.then(|| field::text(header, 28, 16)).flatten(),
            hibernated: hibernated.then(|| found.to_owned()),
        },
        hibernated,
        has_header,
    })
}

fn signature(probe: &Probe) -> Option<(&'static str, bool)> {
    PAGE_SIZES.iter().find_map(|page| {
        let at = page.checked_sub(SIGNATURE_LENGTH)?;
        let among = |names: &'static [&'static str]| {
            names
                .iter()
                .find(|name| probe.is(at, name.as_bytes()))
                .copied()
        };
        among(&SUSPENDED)
            .map(|name| (name, true))
            .or_else(|| among(&PLAIN).map(|name| (name, false)))
    })
}
