//! Reading domain XML (libvirt's docs/formatdomain.rst) into [`Domain`].
//!
//! Three steps: `scan` proves the text well-formed and bounded and cuts out each disk as a `fragment`,
//! `schema` gives a disk's elements types, `convert` gives them the meaning libvirt's own reader does
//! (src/conf/domain_conf.c).

mod convert;
mod error;
mod fragment;
mod scan;
mod schema;
#[cfg(test)]
mod tests;

use crate::domain::model::Domain;

pub use error::{DiskProblem, Place, XmlError};

/// Reads one `<domain>`, as `virsh dumpxml --inactive` prints it.
///
/// Every `<disk>` becomes a [`Disk`](crate::domain::model::Disk), in the order of the text; elements and
/// attributes that say nothing about disks are passed over, as are those of foreign namespaces.
///
/// # Errors
///
/// The text is not well-formed, is of another kind than a domain, passes a bound, or says something about
/// a disk that cannot be understood.
pub fn parse(xml: &str) -> Result<Domain, XmlError> {
    convert::domain(scan::scan(xml)?)
}
