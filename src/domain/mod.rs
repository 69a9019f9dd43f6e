//! WHAT: a domain and its disks, from libvirt's XML.

pub mod libvirt;
pub mod model;
pub mod secrets;
pub mod xml;
