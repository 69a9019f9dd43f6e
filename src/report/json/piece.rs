//! An element of `extents`.

use serde::Serialize;

use crate::layers::extent::{self, Extent};
use crate::report::model::DomainReport;
use crate::units::Bytes;

/// One contiguous run of bytes, bytes that lie in turns over several places, or bytes that several
/// places have.
#[derive(Debug, Serialize)]
pub(super) struct Piece<'a> {
    /// The target of the disk; null for stripes and copies.
    disk: Option<&'a str>,
    /// The first byte; null for stripes and copies.
    offset_bytes: Option<u64>,
    /// How many bytes.
    length_bytes: u64,
    /// Only of stripes: the first so many bytes lie in the first column, the next in the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    stripe_bytes: Option<u64>,
    /// Only of stripes: the places that take turns, as contiguous runs of one length.
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<Piece<'a>>>,
    /// Only of copies: the places that each have all of these bytes, as contiguous runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    copies: Option<Vec<Piece<'a>>>,
}

impl<'a> Piece<'a> {
    /// The piece; its images are counted as the disks of the report are.
    pub(super) fn of(piece: &extent::Piece, report: &'a DomainReport) -> Self {
        match piece {
            extent::Piece::Run(extent) => Self::run(*extent, report),
            extent::Piece::Striped(striped) => Self {
                stripe_bytes: Some(striped.stripe_size().get()),
                columns: Some(
                    striped
                        .columns()
                        .map(|column| Self::run(column, report))
                        .collect(),
                ),
                ..Self::nowhere(piece.length())
            },
            extent::Piece::Mirrored(mirrored) => Self {
                copies: Some(
                    mirrored
                        .legs()
                        .iter()
                        .map(|leg| Self::run(*leg, report))
                        .collect(),
                ),
                ..Self::nowhere(piece.length())
            },
        }
    }

    /// In no place of its own.
    fn nowhere(length: Bytes) -> Self {
        Self {
            disk: None,
            offset_bytes: None,
            length_bytes: length.get(),
            stripe_bytes: None,
            columns: None,
            copies: None,
        }
    }

    fn run(extent: Extent, report: &'a DomainReport) -> Self {
        let disk = report.disks.get(extent.image.0);
        Self {
            disk: disk.map(|disk| disk.target.as_str()),
            offset_bytes: disk.map(|_| extent.offset.get()),
            ..Self::nowhere(extent.length)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::layers::extent::{ExtentMap, ImageIndex, Striped};
    use crate::report::samples::everyday;

    #[test]
    fn a_run_stripes_and_copies() {
        let run = |image, offset, length| Extent {
            image: ImageIndex(image),
            offset: Bytes::new(offset),
            length: Bytes::new(length),
        };
        let columns = [run(1, 1_048_576, 131_072), run(7, 0, 131_072)];
        let striped = Striped::new(&columns, Bytes::kib(64)).unwrap();
        let mut mirror = ExtentMap::default();
        let legs = columns.map(|leg| {
            let mut map = ExtentMap::default();
            map.push(leg);
            map
        });
        mirror.push_mirrored(&[&legs[0], &legs[1]]).unwrap();
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
            (
                mirror.pieces()[0].clone(),
                json!({
                    "disk": null,
                    "offset_bytes": null,
                    "length_bytes": 131_072,
                    "copies": [
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
