//! `--header LAYER:FILE`: a container of a guest whose header does not lie in front of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::str::FromStr;

use crate::layers::dormant::GivenHeader;
use crate::layers::luks::header::LONGEST_HEADER_AREA;

/// Which layer has its header in which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachedHeader {
    /// The layer's path in the tree.
    pub layer: String,
    /// The file.
    pub file: PathBuf,
}

/// It is of another form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be LAYER:FILE, where LAYER is a path in the tree, such as vda/p3")]
pub struct NotDetachedHeader;

impl FromStr for DetachedHeader {
    type Err = NotDetachedHeader;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (layer, file) = text.split_once(':').ok_or(NotDetachedHeader)?;
        if layer.is_empty() || layer.starts_with('/') || file.is_empty() {
            return Err(NotDetachedHeader);
        }
        let (layer, file) = (layer.to_owned(), file.into());
        Ok(Self { layer, file })
    }
}

impl DetachedHeader {
    /// What the file holds, as much of it as a header can be.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&self) -> io::Result<GivenHeader> {
        let mut bytes = Vec::new();
        let opened = File::open(&self.file)?;
        opened
            .take(LONGEST_HEADER_AREA.get())
            .read_to_end(&mut bytes)?;
        let file = self.file.clone();
        Ok(GivenHeader { file, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_and_a_file() {
        let header: DetachedHeader = "vda/p3:/root/a:b".parse().unwrap();
        assert_eq!(header.layer, "vda/p3");
        assert_eq!(header.file, PathBuf::from("/root/a:b"));
        for wrong in ["vda", "vda:", ":/x", "/dev/vda:/x", ""] {
            assert_eq!(wrong.parse::<DetachedHeader>(), Err(NotDetachedHeader));
        }
    }
}
