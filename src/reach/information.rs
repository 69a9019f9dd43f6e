//! What `qemu-img info --output=json` tells of an image (`ImageInfo` in qapi/block-core.json).

use serde::Deserialize;

/// One image, by its own header.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ImageInformation {
    pub filename: String,
    pub format: String,
    pub backing_filename: Option<String>,
    pub full_backing_filename: Option<String>,
    pub backing_filename_format: Option<String>,
    #[serde(default)]
    pub encrypted: bool,
    format_specific: Option<FormatSpecific>,
}

#[derive(Debug, Deserialize)]
struct FormatSpecific {
    data: serde_json::Value,
}

impl ImageInformation {
    /// qcow2's external data file, as the header names it.
    pub fn data_file(&self) -> Option<&str> {
        self.format_specific
            .as_ref()?
            .data
            .get("data-file")?
            .as_str()
    }

    /// How it is encrypted: `luks`, `aes`.
    pub fn encryption(&self) -> Option<&str> {
        self.encryption_field("format")
    }

    /// The UUID of the LUKS header that it has.
    pub fn encryption_uuid(&self) -> Option<&str> {
        self.encryption_field("uuid")
    }

    fn encryption_field(&self, name: &str) -> Option<&str> {
        let data = &self.format_specific.as_ref()?.data;
        data.get("encrypt")?.get(name)?.as_str()
    }

    /// Whether reading the image means reading other files.
    pub fn names_other_files(&self) -> bool {
        self.backing_filename.is_some() || self.data_file().is_some()
    }
}
