//! Memory for secrets: pages of their own, which are not swapped out, not dumped, and overwritten when
//! they are given back.

use std::alloc::{Layout, handle_alloc_error};
use std::ops::Deref;

use memmap2::{Advice, MmapMut};
use zeroize::Zeroize;

/// Bytes in memory of their own, and room for more of them.
pub(super) struct SecretMemory {
    pages: MmapMut,
    length: usize,
}

impl SecretMemory {
    /// No bytes yet, and room for so many.
    pub(super) fn with_room(room: usize) -> Self {
        let Ok(pages) = MmapMut::map_anon(room) else {
            // As the heap does when there is none left.
            handle_alloc_error(Layout::array::<u8>(room).unwrap_or(Layout::new::<u8>()));
        };
        // A plain user may lock only so much (RLIMIT_MEMLOCK); what is beyond it serves all the same.
        let _best_effort = pages.lock();
        let _best_effort = pages.advise(Advice::DontDump);
        Self { pages, length: 0 }
    }

    /// A copy of these bytes.
    pub(super) fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::with_room(bytes.len());
        copy.pages.copy_from_slice(bytes);
        copy.length = bytes.len();
        copy
    }

    /// The room that is left, for a reader to write to.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.pages.get_mut(self.length..).unwrap_or_default()
    }

    /// So many bytes of the room have been written to.
    pub(super) fn wrote(&mut self, count: usize) {
        self.length = self.length.saturating_add(count).min(self.pages.len());
    }

    /// Makes room for twice as much, elsewhere.
    pub(super) fn grow(&mut self) {
        let mut larger = Self::with_room(self.pages.len().saturating_mul(2).max(1));
        for (to, from) in larger.room().iter_mut().zip(self.iter()) {
            *to = *from;
        }
        larger.wrote(self.length);
        *self = larger;
    }

    /// Lets go of the last bytes, so that only so many are left.
    pub(super) fn shorten(&mut self, length: usize) {
        self.length = self.length.min(length);
        self.room().zeroize();
    }
}

impl Deref for SecretMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.pages.get(..self.length).unwrap_or_default()
    }
}

impl Drop for SecretMemory {
    fn drop(&mut self) {
        self.pages.as_mut().zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The `VmFlags` of the mapping with this address (proc_pid_smaps(5)).
    fn flags(address: usize) -> Vec<String> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut found = false;
        for line in smaps.lines() {
            let first = line.split(' ').next().unwrap();
            if let Some((from, to)) = first.split_once('-') {
                let number = |text| usize::from_str_radix(text, 16).unwrap();
                found = (number(from)..number(to)).contains(&address);
            } else if found && let Some(flags) = line.strip_prefix("VmFlags: ") {
                return flags.split_whitespace().map(str::to_owned).collect();
            }
        }
        panic!("{address:x} is mapped nowhere");
    }

    #[test]
    fn it_is_locked_and_left_out_of_dumps() {
        let memory = SecretMemory::copy_of(b"secret");
        let flags = flags(memory.as_ptr().addr());
        for flag in ["lo", "dd"] {
            assert!(flags.iter().any(|known| known == flag), "{flag}: {flags:?}");
        }
        let heap = Box::new(0_u8);
        let flags = super::tests::flags(std::ptr::from_ref(&*heap).addr());
        assert!(!flags.iter().any(|flag| flag == "dd"), "{flags:?}");
    }

    #[test]
    fn it_grows_and_shrinks() {
        let mut memory = SecretMemory::with_room(0);
        assert_eq!(*memory, *b"");
        assert!(memory.room().is_empty());
        for byte in b"a secret" {
            if memory.room().is_empty() {
                memory.grow();
            }
            memory.room()[0] = *byte;
            memory.wrote(1);
        }
        assert_eq!(*memory, *b"a secret");
        memory.shorten(3);
        assert_eq!(*memory, *b"a s");
        assert!(memory.room().iter().all(|byte| *byte == 0));
        memory.shorten(100);
        memory.wrote(100);
        assert_eq!(memory.len(), 8);
        assert_eq!(*SecretMemory::copy_of(b""), *b"");
    }
}
