//! The storage daemon's nodes for a disk, as plain data (qapi/block-core.json of QEMU).

use serde_json::{Value, json};

use crate::domain::model::{Format, Slice};
use crate::keys::Passphrase;
use crate::layers::extent::{Extent, ImageIndex};
use crate::names::NodeName;
use crate::reach::chain::{self, Chain, Link};
use crate::reach::identity::Kind;
use crate::units::Bytes;

/// Whether an image is opened for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Never written.
    ReadOnly,
    /// Repairs go to it.
    Write,
}

impl Access {
    /// For writing, or not.
    pub const fn of(writes: bool) -> Self {
        if writes { Self::Write } else { Self::ReadOnly }
    }

    const fn is_read_only(self) -> bool {
        matches!(self, Self::ReadOnly)
    }
}

/// The nodes of a disk in the order they must be added: the bottom of the chain first, the node
/// that shows the disk as the guest sees it last. No format is left for QEMU to guess, and each
/// image is given what lies under it, so that no header can name another file.
///
/// A chain with a file that ends within a sector is read without io_uring: QEMU 10.0 resubmits a read
/// that comes out short there, and may forget to tell the kernel (block/io_uring.c,
/// `luring_resubmit_short_read`); it then never ends.
pub fn disk(image: ImageIndex, chain: &Chain, access: Access) -> Vec<Value> {
    let mut nodes = Vec::new();
    let mut under = None;
    for (depth, link) in chain.under.iter().enumerate().rev() {
        let name = NodeName::backing(image, depth + 1);
        nodes.push(format_node(&name, link, Access::ReadOnly, under.as_ref()));
        under = Some(name);
    }
    let name = NodeName::disk(image);
    nodes.push(format_node(&name, &chain.top, access, under.as_ref()));
    match chain.ends_within_a_sector() {
        true => nodes.into_iter().map(without_io_uring).collect(),
        false => nodes,
    }
}

/// The same as one node that holds the others, for qemu-nbd.
pub fn nested(chain: &Chain, access: Access) -> Value {
    let mut under: Option<Value> = None;
    let links: Vec<_> = chain.links().enumerate().collect();
    for (depth, link) in links.into_iter().rev() {
        let (name, access) = match depth {
            0 => (NodeName::disk(ImageIndex(0)), access),
            depth => (NodeName::backing(ImageIndex(0), depth), Access::ReadOnly),
        };
        let mut node = format_node(&name, link, access, None);
        if let Some(options) = node.as_object_mut() {
            options.remove("node-name");
            if chain::records_backing(&link.format) {
                options.insert("backing".to_owned(), json!(under));
            }
        }
        under = Some(node);
    }
    without_io_uring(under.unwrap_or_default())
}

/// One image of a chain on its own, as an argument of qemu-img.
pub fn alone_argument(link: &Link, access: Access) -> String {
    format!("json:{}", alone(link, access))
}

/// The same as a node: nothing is named, nothing lies under it.
fn alone(link: &Link, access: Access) -> Value {
    let mut node = format_node(&NodeName::disk(ImageIndex(0)), link, access, None);
    if let Some(options) = node.as_object_mut() {
        options.remove("node-name");
    }
    without_io_uring(node)
}

fn format_node(name: &NodeName, link: &Link, access: Access, under: Option<&NodeName>) -> Value {
    let mut node = json!({
        "driver": driver(link),
        "node-name": name,
        "read-only": access.is_read_only(),
        "file": sliced(locked(&link.path, link.kind, access), link.slice, access),
    });
    if let Some(options) = node.as_object_mut() {
        if chain::records_backing(&link.format) {
            options.insert("backing".to_owned(), json!(under));
        }
        if let Some(encryption) = &link.encryption {
            let secret = name.key();
            match link.format {
                Format::Raw => options.insert("key-secret".to_owned(), json!(secret)),
                _ => options.insert(
                    "encrypt".to_owned(),
                    json!({ "format": encryption.method.name(), "key-secret": secret }),
                ),
            };
        }
        if let (Format::Qcow2, Some(file)) = (&link.format, &link.data_file) {
            options.insert(
                "data-file".to_owned(),
                locked(&file.path, file.kind, access),
            );
        }
    }
    node
}

/// QEMU calls a raw image that it encrypts a format of its own.
fn driver(link: &Link) -> &str {
    match (&link.format, &link.encryption) {
        (Format::Raw, Some(encryption)) => encryption.method.name(),
        (format, _) => format.name(),
    }
}

/// The keys that the nodes of a chain need before they are added, under the names by which the nodes
/// call them.
pub fn keys(image: ImageIndex, chain: &Chain) -> Vec<(NodeName, &Passphrase)> {
    let top = std::iter::once(NodeName::disk(image));
    let under = (1..).map(|depth| NodeName::backing(image, depth));
    let named = top.chain(under).zip(chain.links());
    let keys = named.filter_map(|(name, link)| Some((name.key(), link.key()?)));
    keys.collect()
}

/// The same for [`nested`].
pub fn nested_keys(chain: &Chain) -> Vec<(String, &Passphrase)> {
    let keys = keys(ImageIndex(0), chain).into_iter();
    keys.map(|(name, key)| (name.as_str().to_owned(), key))
        .collect()
}

/// The same for [`alone_argument`].
pub fn alone_key(link: &Link) -> Option<(String, &Passphrase)> {
    let name = NodeName::disk(ImageIndex(0)).key();
    Some((name.as_str().to_owned(), link.key()?))
}

/// A file or device under QEMU's locks from the moment it is opened until it is closed.
///
/// QEMU locks what a node's users ask for, and for a raw image nobody asks as long as it is not
/// shown, and nobody minds other writers while it is. The blkdebug driver asks for it: nobody else
/// may write, and what is to be written is claimed at once (block/blkdebug.c,
/// `blkdebug_child_perm`).
fn locked(path: &std::path::Path, kind: Kind, access: Access) -> Value {
    let taken: &[&str] = match access {
        Access::ReadOnly => &["consistent-read"],
        Access::Write => &["consistent-read", "write", "resize"],
    };
    json!({
        "driver": "blkdebug",
        "read-only": access.is_read_only(),
        "take-child-perms": taken,
        "unshare-child-perms": ["write", "resize"],
        "image": protocol_node(path, kind, access),
    })
}

fn protocol_node(path: &std::path::Path, kind: Kind, access: Access) -> Value {
    let (driver, locking) = match kind {
        Kind::File => ("file", "on"),
        Kind::BlockDevice => ("host_device", "auto"),
    };
    json!({
        "driver": driver,
        "filename": path.to_string_lossy(),
        "aio": "io_uring",
        "locking": locking,
        "read-only": access.is_read_only(),
    })
}

fn sliced(file: Value, slice: Option<Slice>, access: Access) -> Value {
    match slice {
        None => file,
        Some(slice) => json!({
            "driver": "raw",
            "offset": slice.offset,
            "size": slice.size,
            "read-only": access.is_read_only(),
            "file": file,
        }),
    }
}

/// The file of a throw-away overlay. It does not outlive the run, so nothing of it needs to be
/// flushed.
pub fn overlay_file(image: ImageIndex, file: &std::path::Path) -> Value {
    json!({
        "driver": "file",
        "node-name": NodeName::overlay_file(image),
        "filename": file.to_string_lossy(),
        "cache": { "direct": false, "no-flush": true },
    })
}

/// What the daemon makes of that file: an empty overlay over a disk of `disk_size` bytes. With a
/// `key`, the name of a secret that the daemon has, it is encrypted; the key is as random as keys
/// get and lives no longer than the run, so it is not strengthened.
pub fn overlay_format(image: ImageIndex, disk_size: Bytes, key: Option<&NodeName>) -> Value {
    let format = json!({
        "driver": "qcow2",
        "file": NodeName::overlay_file(image),
        "size": disk_size.get(),
    });
    let encryption = key.map(|key| json!({ "format": "luks", "key-secret": key, "iter-time": 1 }));
    encrypted(format, encryption)
}

/// The overlay in that file, with the same `key`.
pub fn overlay(image: ImageIndex, key: Option<&NodeName>) -> Value {
    let node = json!({
        "driver": "qcow2",
        "node-name": NodeName::overlay(image),
        "cache": { "direct": false, "no-flush": true },
        "file": NodeName::overlay_file(image),
        "backing": NodeName::disk(image),
    });
    let encryption = key.map(|key| json!({ "format": "luks", "key-secret": key }));
    encrypted(node, encryption)
}

fn encrypted(mut node: Value, encryption: Option<Value>) -> Value {
    if let (Some(options), Some(encryption)) = (node.as_object_mut(), encryption) {
        options.insert("encrypt".to_owned(), encryption);
    }
    node
}

/// A filesystem that lies in one extent of a disk, or of the overlay over it.
pub fn filesystem(name: &NodeName, below: &NodeName, extent: Extent, access: Access) -> Value {
    json!({
        "driver": "raw",
        "node-name": name,
        "offset": extent.offset,
        "size": extent.length,
        "read-only": access.is_read_only(),
        "file": below,
    })
}

/// The same node with QEMU's own threads instead of io_uring, which a kernel or an administrator may
/// forbid (`kernel.io_uring_disabled`) and a build of QEMU may lack. It is some 10 % slower.
pub fn without_io_uring(mut node: Value) -> Value {
    if let Some(options) = node.as_object_mut() {
        options.retain(|name, _| name != "aio");
        for inner in options.values_mut() {
            *inner = without_io_uring(inner.take());
        }
    }
    node
}

/// A FUSE export that shows a node as a plain file.
pub fn export(node: &NodeName, mount_point: &std::path::Path, access: Access) -> Value {
    json!({
        "type": "fuse",
        "id": node,
        "node-name": node,
        "mountpoint": mount_point.to_string_lossy(),
        "writable": !access.is_read_only(),
        "growable": false,
        "allow-other": "off",
    })
}

/// An NBD server at a socket, for as many connections as we want. They may be several to one export:
/// all of them go through the same node, with no cache between (nbd/server.c, `nbd_export_create`).
pub fn nbd_server(socket: &std::path::Path) -> Value {
    json!({
        "addr": { "type": "unix", "data": { "path": socket.to_string_lossy() } },
        "max-connections": 0,
    })
}

/// An NBD export of a node, under its name.
pub fn nbd_export(node: &NodeName, access: Access) -> Value {
    json!({
        "type": "nbd",
        "id": node,
        "node-name": node,
        "name": node,
        "writable": !access.is_read_only(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::chain::Link;
    use crate::reach::identity::Identity;
    use crate::units::Bytes;

    fn link(path: &str, format: Format) -> Link {
        Link {
            path: path.into(),
            kind: Kind::File,
            identity: Identity::File {
                device: 0,
                inode: 0,
            },
            format,
            slice: None,
            data_file: None,
            encryption: None,
        }
    }

    #[test]
    fn a_chain_is_added_bottom_first_and_only_its_top_is_writable() {
        let chain = Chain {
            top: link("/i/top", Format::Qcow2),
            under: vec![
                link("/i/middle", Format::Qcow2),
                link("/i/base", Format::Raw),
            ],
        };
        let nodes = disk(ImageIndex(0), &chain, Access::Write);
        let names: Vec<_> = nodes.iter().map(|node| node["node-name"].clone()).collect();
        assert_eq!(names, ["disk0-under2", "disk0-under1", "disk0"]);
        let read_only: Vec<_> = nodes.iter().map(|node| node["read-only"].clone()).collect();
        assert_eq!(read_only, [true, true, false]);
        assert_eq!(nodes[0].get("backing"), None, "raw has no backing");
        assert_eq!(nodes[1]["backing"], "disk0-under2");
        assert_eq!(nodes[2]["backing"], "disk0-under1");
    }

    #[test]
    fn io_uring_is_taken_out_wherever_it_stands() {
        let chain = Chain {
            top: link("/i/top", Format::Qcow2),
            under: Vec::new(),
        };
        for node in disk(ImageIndex(0), &chain, Access::Write) {
            assert!(node.to_string().contains("io_uring"));
            let without = without_io_uring(node);
            assert!(!without.to_string().contains("io_uring"), "{without}");
            assert_eq!(without["node-name"], "disk0");
        }
    }

    #[test]
    fn a_nested_chain_names_no_nodes_and_only_its_top_is_writable() {
        let chain = Chain {
            top: link("/i/top", Format::Qcow2),
            under: vec![
                link("/i/middle", Format::Qcow2),
                link("/i/base", Format::Raw),
            ],
        };
        let node = nested(&chain, Access::Write);
        assert_eq!(node["file"]["image"]["filename"], "/i/top");
        assert_eq!(node["read-only"], false);
        let middle = &node["backing"];
        assert_eq!(middle["file"]["image"]["filename"], "/i/middle");
        assert_eq!(middle["read-only"], true);
        assert_eq!(middle["backing"]["file"]["image"]["filename"], "/i/base");
        assert_eq!(middle["backing"].get("backing"), None, "raw has no backing");
        assert!(!node.to_string().contains("node-name"));
    }

    #[test]
    fn an_image_without_backing_is_told_so() {
        let chain = Chain {
            top: link("/i/top", Format::Qcow2),
            under: Vec::new(),
        };
        let nodes = disk(ImageIndex(3), &chain, Access::ReadOnly);
        assert_eq!(nodes[0]["backing"], Value::Null);
        assert!(nodes[0].as_object().unwrap().contains_key("backing"));
        let file = &nodes[0]["file"];
        assert_eq!(file["image"]["locking"], "on");
        assert_eq!(file["take-child-perms"], json!(["consistent-read"]));
    }

    #[test]
    fn a_slice_lies_under_the_format() {
        let mut sliced = link("/i/top", Format::Qcow2);
        sliced.slice = Some(Slice {
            offset: Bytes::mib(1),
            size: Bytes::mib(2),
        });
        let chain = Chain {
            top: sliced,
            under: Vec::new(),
        };
        let nodes = disk(ImageIndex(0), &chain, Access::Write);
        assert_eq!(nodes[0]["driver"], "qcow2");
        assert_eq!(nodes[0]["file"]["driver"], "raw");
        assert_eq!(nodes[0]["file"]["offset"], 1024 * 1024);
        assert_eq!(nodes[0]["file"]["file"]["image"]["filename"], "/i/top");
    }
}
