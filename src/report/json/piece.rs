//! An element of `extents`.

use serde::Serialize;

use crate::layers::extent::{self, Extent};
use crate::report::model::DomainReport;

/// One contiguous run of bytes, or bytes that lie in turns over several places.
#[derive(Debug, Serialize)]
pub(super) struct Piece<'a> {
    /// The target of the disk; null for stripes.
    disk: Option<&'a str>,
    /// The first byte; null for stripes.
    offset_bytes: Option<u64>,
    /// How many bytes.
    length_bytes: u64,
    /// Only of stripes: the first so many bytes lie in the first column, the next in the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    stripe_bytes: Option<u64>,
    /// Only of stripes: the places that take turns, as contiguous runs of one length.
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<Piece<'a>>>,
}

impl<'a> Piece<'a> {
    /// The piece; its images are counted as the disks of the report are.
    pub(super) fn of(piece: &extent::Piece, report: &'a DomainReport) -> Self {
        match piece {
            extent::Piece::Run(extent) => Self::run(*extent, report),
            extent::Piece::Striped(striped) => Self {
                disk: None,
                offset_bytes: None,
                length_bytes: striped.length().get(),
                stripe_bytes: Some(striped.stripe_size().get()),
                columns: Some(
                    striped
                        .columns()
                        .map(|column| Self::run(column, report))
                        .collect(),
                ),
            },
        }
    }

    fn run(extent: Extent, report: &'a DomainReport) -> Self {
        let disk = report.disks.get(extent.image.0);
        Self {
            disk: disk.map(|disk| disk.target.as_str()),
            offset_bytes: disk.map(|_| extent.offset.get()),
            length_bytes: extent.length.get(),
            stripe_bytes: None,
            columns: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::layers::extent::{ImageIndex, Striped};
    use crate::report::samples::everyday;
    use crate::units::Bytes;

    #[test]
    fn a_run_and_stripes() {
        let run = |image, offset, length| Extent {
            image: ImageIndex(image),
            offset: Bytes::new(offset),
            length: Bytes::new(length),
        };
        let columns = [run(1, 1_048_576, 131_072), run(7, 0, 131_072)];
        let striped = Striped::new(&columns, Bytes::kib(64)).unwrap();
        for (piece, expected) in [
            (
                extent::Piece::Run(run(0, 512, 1024)),
                json!({"disk": "vda", "offset_bytes": 512, "length_bytes": 1024}),
            ),
            (
                extent::Piece::Striped(striped),
                json!({
                    "disk": null,
                    "offset_bytes": null,
                    "length_bytes": 262_144,
                    "stripe_bytes": 65_536,
                    "columns": [
                        {"disk": "vdb", "offset_bytes": 1_048_576, "length_bytes": 131_072},
                        {"disk": null, "offset_bytes": null, "length_bytes": 131_072},
                    ],
                }),
            ),
        ] {
            let report = everyday();
            let value = serde_json::to_value(Piece::of(&piece, &report)).unwrap();
            assert_eq!(value, expected);
        }
    }
}
