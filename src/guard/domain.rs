//! The domain itself: only one that is shut off, and will start from its disks, may be touched.

use virt::sys;

use crate::domain::libvirt::Condition;

/// Why a domain must not be touched, with the way out; `None` if it may be.
///
/// Everything but SHUTOFF counts as active: libvirt's list of states grows.
pub fn refusal(name: &str, condition: Condition) -> Option<String> {
    let active = |what: &str, way_out: &str| Some(format!("domain {name} is {what}; {way_out}"));
    let shut_it_down = format!("shut it down first: virsh shutdown {name}");
    match condition.state {
        sys::VIR_DOMAIN_SHUTOFF => {}
        sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => {
            return active("running", &shut_it_down);
        }
        sys::VIR_DOMAIN_PAUSED if condition.is_starting() => {
            return active("about to start", &shut_it_down);
        }
        sys::VIR_DOMAIN_PAUSED => return active("paused", &shut_it_down),
        sys::VIR_DOMAIN_PMSUSPENDED => return active("suspended to memory", &shut_it_down),
        sys::VIR_DOMAIN_SHUTDOWN => return active("still shutting down", "wait until it is off"),
        sys::VIR_DOMAIN_CRASHED => {
            return active(
                "crashed, but not gone",
                &format!("end it first: virsh destroy {name}"),
            );
        }
        other => {
            return active(
                &format!("in a state that this version does not know ({other})"),
                &format!("{shut_it_down}; if it is shut off, a newer virt-fsck may know the state"),
            );
        }
    }
    if condition.has_managed_save {
        return active(
            "shut off with its memory saved, and will go on from there",
            &format!(
                "start it and shut it down, or drop its memory: {}",
                plainly_off(name)
            ),
        );
    }
    match u32::try_from(condition.reason) {
        // libvirt keeps this reason after virsh managedsave-remove, and then nothing tells it from
        // a memory image in a file elsewhere, which virsh restore may still bring back.
        Ok(sys::VIR_DOMAIN_SHUTOFF_SAVED) => active(
            "shut off because its memory was saved",
            &format!(
                "go on with it (virsh restore) and shut it down, or, if its memory is not wanted \
                 any more: {}",
                plainly_off(name)
            ),
        ),
        Ok(sys::VIR_DOMAIN_SHUTOFF_MIGRATED) => active(
            "shut off because it was migrated",
            &format!(
                "its disks may be in use on another host: check it there, or, if it runs on no \
                 host any more: {}",
                plainly_off(name)
            ),
        ),
        _ => None,
    }
}

/// How a domain is shut off for no other reason than that somebody did so, and its saved memory is
/// gone, though the guest has not run one instruction.
fn plainly_off(name: &str) -> String {
    format!("virsh start --force-boot --paused {name}, then virsh destroy {name}")
}

/// What is to be known of internal snapshots that hold the guest's memory. They are no reason to
/// refuse: each has the disk's content of its moment, which a repair of today's does not change.
pub fn note(snapshots_with_memory: usize) -> Option<String> {
    let has = match snapshots_with_memory {
        0 => return None,
        1 => "an internal snapshot holds".to_owned(),
        count => format!("{count} internal snapshots hold"),
    };
    Some(format!(
        "{has} the guest's memory, and its disks as they were then: they stay as they are, and are \
         not checked"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: Condition = Condition {
        state: sys::VIR_DOMAIN_SHUTOFF,
        reason: 1,
        has_managed_save: false,
    };

    #[test]
    fn only_shut_off_may_be_touched() {
        for state in 0..20 {
            let condition = Condition { state, ..OFF };
            assert_eq!(
                refusal("vm1", condition).is_none(),
                state == 5,
                "state {state}"
            );
        }
    }

    #[test]
    fn snapshots_with_memory_are_told() {
        assert_eq!(note(0), None);
        assert!(note(1).is_some_and(|words| words.starts_with("an internal snapshot holds")));
        assert!(note(3).is_some_and(|words| words.starts_with("3 internal snapshots hold")));
    }

    #[test]
    fn saved_and_migrated_are_refused_other_reasons_are_not() {
        for reason in 0..10 {
            let condition = Condition { reason, ..OFF };
            let refused = refusal("vm1", condition).is_some();
            assert_eq!(refused, [4, 5].contains(&reason), "reason {reason}");
        }
    }

    #[test]
    fn a_managed_save_is_refused_with_the_way_out() {
        let condition = Condition {
            has_managed_save: true,
            ..OFF
        };
        let words = refusal("vm1", condition).unwrap();
        let way_out = "virsh start --force-boot --paused vm1, then virsh destroy vm1";
        assert!(words.contains(way_out), "{words}");
    }
}
