//! What `qemu-img check` said, line by line. Its exit status tells that an image has errors, only its
//! lines tell which.

use std::collections::VecDeque;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// How many lines are kept from the beginning, and as many again from the end.
const KEPT_LINES: usize = 200;
/// A longer line is taken for several.
const LONGEST_LINE: u64 = 4096;

/// The lines for errors that are of the reference counts alone: which clusters are used, and whether
/// only once. The tables that say where the guest's data lies are read without them (QEMU,
/// block/qcow2-refcount.c).
const OF_REFERENCE_COUNTS: [&str; 9] = [
    "Leaked cluster ",
    "ERROR cluster ",
    "ERROR OFLAG_COPIED ",
    "ERROR refcount block ",
    "ERROR need to rebuild refcount structures",
    "Rebuilding refcount structure",
    "Repairing cluster ",
    "Repairing OFLAG_COPIED ",
    "Repairing refcount block ",
];

/// All that was said.
#[derive(Clone, Debug, Default)]
pub struct Words {
    first: Vec<String>,
    last: VecDeque<String>,
    left_out: u64,
    is_of_more: bool,
    shared: u64,
}

impl Words {
    /// Reads to the end.
    pub async fn read(reader: impl AsyncRead + Unpin) -> Self {
        let mut words = Self::default();
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut limited = (&mut reader).take(LONGEST_LINE);
            match limited.read_until(b'\n', &mut line).await {
                Ok(1..) => words.add(String::from_utf8_lossy(&line).trim_end()),
                Ok(0) | Err(_) => return words,
            }
        }
    }

    fn add(&mut self, line: &str) {
        if line.is_empty() {
            return;
        }
        self.is_of_more |= !OF_REFERENCE_COUNTS
            .iter()
            .any(|known| line.starts_with(known));
        if is_shared(line) {
            self.shared = self.shared.saturating_add(1);
        }
        if self.first.len() < KEPT_LINES {
            self.first.push(line.to_owned());
            return;
        }
        self.last.push_back(line.to_owned());
        if self.last.len() > KEPT_LINES {
            self.last.pop_front();
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    /// Every line is of reference counts; a line that is not known is not.
    pub const fn are_of_reference_counts(&self) -> bool {
        !self.is_of_more
    }

    /// How many clusters are used at more than one place and are counted for fewer.
    pub const fn shared(&self) -> u64 {
        self.shared
    }

    /// The text, with what qemu-img calls the image cut out.
    pub fn text(&self) -> String {
        let gap =
            (self.left_out > 0).then(|| format!("[... {} lines left out ...]", self.left_out));
        let first = self.first.iter().map(|line| bare(line));
        let last = self.last.iter().map(|line| bare(line));
        let lines: Vec<&str> = first.chain(gap.as_deref()).chain(last).collect();
        lines.join("\n")
    }

    /// The same as one sentence.
    pub fn sentence(&self) -> String {
        self.text().replace('\n', "; ")
    }
}

/// `ERROR cluster 6 refcount=1 reference=2`.
fn is_shared(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("ERROR cluster ") else {
        return false;
    };
    let value = |name: &str| -> Option<u64> {
        let word = rest.split(' ').find_map(|word| word.strip_prefix(name));
        word?.parse().ok()
    };
    match (value("refcount="), value("reference=")) {
        (Some(counted), Some(used)) => used > 1 && used > counted,
        _ => false,
    }
}

/// Without the tool's name and the long name it was called with.
fn bare(line: &str) -> &str {
    let line = line.strip_prefix("qemu-img: ").unwrap_or(line);
    match (
        line.starts_with("Could not open 'json:"),
        line.rfind("}': "),
    ) {
        (true, Some(end)) => line.get(end.saturating_add(4)..).unwrap_or(line),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn words(text: &str) -> Words {
        Words::read(text.as_bytes()).await
    }

    #[tokio::test]
    async fn only_reference_counts_are_told_apart() {
        // As QEMU 10.0 says it of images damaged in these ways.
        for (said, are_counts, shared) in [
            ("", true, 0),
            ("Leaked cluster 7 refcount=1 reference=0\n", true, 0),
            (
                "ERROR cluster 6 refcount=0 reference=1\n\
                 ERROR OFLAG_COPIED data cluster: l2_entry=8000000000060000 refcount=0\n",
                true,
                0,
            ),
            ("ERROR cluster 6 refcount=1 reference=2\n", true, 1),
            ("ERROR cluster 6 refcount=3 reference=2\n", true, 0),
            (
                "ERROR offset=50200: Data cluster is not properly aligned; L2 entry corrupted.\n\
                 ERROR cluster 6 refcount=1 reference=2\n",
                false,
                1,
            ),
            (
                "ERROR: counting reference for region exceeding the end of the file by one \
                 cluster or more: offset 0x50000 size 0x10000\n",
                false,
                0,
            ),
            ("something new", false, 0),
        ] {
            let words = words(said).await;
            assert_eq!(words.are_of_reference_counts(), are_counts, "{said}");
            assert_eq!(words.shared(), shared, "{said}");
        }
    }

    #[tokio::test]
    async fn many_lines_are_all_looked_at_and_few_are_kept() {
        let mut said = "Leaked cluster 7 refcount=1 reference=0\n".repeat(KEPT_LINES + 5);
        said += "ERROR found L1 entry with reserved bits set: 7\n";
        said += &"Leaked cluster 8 refcount=1 reference=0\n".repeat(KEPT_LINES + 5);
        let words = words(&said).await;
        assert!(!words.are_of_reference_counts());
        let text = words.text();
        assert_eq!(text.lines().count(), 2 * KEPT_LINES + 1);
        assert!(text.contains("[... 11 lines left out ...]"));
    }

    #[tokio::test]
    async fn the_long_name_of_the_image_is_cut_out() {
        let said = "qemu-img: Could not open 'json:{\"driver\":\"qcow2\"}': Image is not in qcow2 format\n";
        assert_eq!(words(said).await.sentence(), "Image is not in qcow2 format");
    }
}
