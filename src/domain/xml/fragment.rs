//! One `<disk>`, cut out of its domain.

/// A disk as small documents with neither text nor foreign namespaces: its backing chain, which nests in
/// the XML, lies flat here, so that no reader has to follow it down the stack.
#[derive(Debug, Default)]
pub(super) struct Fragment {
    /// `<disk>` without its `<backingStore>`.
    pub(super) disk: String,
    /// Each `<backingStore>` without the one inside it, the one next to the disk first.
    pub(super) backing: Vec<String>,
    /// Some image has more than one `<backingStore>`.
    pub(super) is_forked: bool,
    /// The line of the whole text where the disk begins.
    pub(super) line: usize,
    /// How many `<backingStore>` of the chain are open.
    level: usize,
}

impl Fragment {
    /// A disk that begins on `line`.
    pub(super) fn new(line: usize) -> Self {
        Self {
            line,
            ..Self::default()
        }
    }

    /// A start tag; `depth` counts the open elements from the disk on, 0 for the disk itself.
    pub(super) fn begin(&mut self, name: &str, attributes: &str, depth: usize) {
        if self.is_of_chain(name, depth) {
            if self.backing.len() > self.level {
                self.is_forked = true;
            } else {
                self.backing.push(String::new());
            }
            self.level = self.level.saturating_add(1);
        }
        self.current().extend(["<", name, attributes, ">"]);
    }

    /// The end tag that belongs to the start tag at the same `depth`.
    pub(super) fn end(&mut self, name: &str, depth: usize) {
        self.current().extend(["</", name, ">"]);
        if depth > 0 && depth == self.level && name == "backingStore" {
            self.level = self.level.saturating_sub(1);
        }
    }

    /// Whether all that is open here is the disk and its chain, and this continues the chain: one under
    /// `<mirror>` does not.
    fn is_of_chain(&self, name: &str, depth: usize) -> bool {
        name == "backingStore" && depth == self.level.saturating_add(1)
    }

    fn current(&mut self) -> &mut String {
        let index = self.level.checked_sub(1);
        match index.and_then(|index| self.backing.get_mut(index)) {
            Some(image) => image,
            None => &mut self.disk,
        }
    }
}
