//! Which of an array's members take part in it, and which do not.

use super::assemble::FoundMember;
use super::superblock::{Role, Superblock};

/// MD lets members in whose count of events is that much behind (`super_1_validate`).
const BEHIND: u64 = 1;

/// One array's members, each with what it is for the array.
pub(super) struct Standing<'a> {
    /// The member whose superblock counts.
    pub newest: &'a FoundMember,
    /// Those that hold a part of the array, with their role; a role may be claimed twice.
    pub active: Vec<(u32, &'a FoundMember)>,
    /// What is to be said of the others.
    pub notes: Vec<String>,
    /// Why none of them can be believed.
    pub contradiction: Option<String>,
}

impl<'a> Standing<'a> {
    /// Of all found members of one array; `None` if there are none.
    pub fn of(found: &[&'a FoundMember]) -> Option<Self> {
        let newest = newest(found)?;
        let mut standing = Self {
            newest,
            active: Vec::new(),
            notes: Vec::new(),
            contradiction: None,
        };
        for member in found {
            standing.add(member);
        }
        standing.active.sort_by_key(|(role, _)| *role);
        let twice = standing.claimed_twice();
        standing.contradiction = standing.contradiction.or(twice);
        Some(standing)
    }

    fn add(&mut self, member: &'a FoundMember) {
        let FoundMember {
            path, superblock, ..
        } = member;
        let newest = &self.newest.superblock;
        let Role::Active(role) = superblock.role() else {
            self.notes.push(idle(member));
            return;
        };
        if superblock.events.saturating_add(BEHIND) < newest.events {
            self.notes.push(format!(
                "{path} is left out: its data are older (event {}, the newest is {})",
                superblock.events, newest.events
            ));
            return;
        }
        if !superblock.agrees_with(newest) {
            self.contradicts(format!(
                "{path} and {} describe the array differently",
                self.newest.path
            ));
            return;
        }
        let by_newest = newest.role_of(superblock.number);
        if by_newest == Role::Active(role) && role < newest.devices {
            self.active.push((role, member));
            return;
        }
        if superblock.events == newest.events && denies(superblock, newest) {
            self.contradicts(format!(
                "{path} and {} were each used without the other, and which is newer cannot be told",
                self.newest.path
            ));
            return;
        }
        self.notes.push(format!(
            "{path} is left out: by {}, which is newer, it is no longer a part of the array",
            self.newest.path
        ));
    }

    fn contradicts(&mut self, reason: String) {
        self.contradiction.get_or_insert(reason);
    }

    fn claimed_twice(&self) -> Option<String> {
        let pairs = self.active.iter().zip(self.active.iter().skip(1));
        let ((role, first), (_, second)) = pairs
            .into_iter()
            .find(|((first, _), (second, _))| first == second)?;
        Some(format!(
            "{} and {} both claim to be device {role}",
            first.path, second.path
        ))
    }
}

/// The member with the most events, of those that are in use by their own words if there are any:
/// a spare's count may be anything.
fn newest<'a>(found: &[&'a FoundMember]) -> Option<&'a FoundMember> {
    let is_active = |member: &FoundMember| matches!(member.superblock.role(), Role::Active(_));
    // The first of several: `max_by_key` takes the last.
    found.iter().copied().rev().max_by_key(|member| {
        let superblock = &member.superblock;
        (is_active(member), superblock.events)
    })
}

/// Whether the one no longer counts the other among the array's devices.
fn denies(own: &Superblock, other: &Superblock) -> bool {
    own.role_of(other.number) != other.role()
}

fn idle(member: &FoundMember) -> String {
    let what = match member.superblock.role() {
        Role::Faulty => "it failed",
        Role::Journal => "it holds the journal",
        Role::Spare | Role::Active(_) => "it is a spare",
    };
    format!("{} holds nothing of the array: {what}", member.path)
}
