//! libvirt: which domains there are, what state they are in, and their XML.
//!
//! Calls block; they are made from the runtime's only thread, one at a time, before or between
//! checks, so nothing waits for them.

use uuid::Uuid;
use virt::connect::Connect;
use virt::error::ErrorNumber;
use virt::storage_pool::StoragePool;
use virt::storage_vol::StorageVol;
use virt::sys;

use crate::domain::model::{Domain, Source};
use crate::domain::xml::{self, XmlError};

/// libvirt could not be asked, or its answer not be used.
#[derive(Debug, thiserror::Error)]
pub enum LibvirtError {
    /// No connection.
    #[error("connecting to libvirt at {uri}: {words}")]
    Connect {
        /// The URI.
        uri: String,
        /// libvirt's words.
        words: String,
    },
    /// The domains of another host: their disks are not here, though their paths may be.
    #[error("{uri} is another host's libvirt, and its disks are there: run virt-fsck on that host")]
    Remote {
        /// The URI.
        uri: String,
    },
    /// No such domain.
    #[error("there is no domain {name} at {uri}; virsh -c {uri} list --all lists the domains")]
    NoDomain {
        /// The name or UUID asked for.
        name: String,
        /// The URI.
        uri: String,
    },
    /// A question was not answered.
    #[error("libvirt does not tell {what}: {words}")]
    Asked {
        /// What was asked.
        what: String,
        /// libvirt's words.
        words: String,
    },
    /// A pool that nobody started.
    #[error(
        "storage pool {pool} is not active, so where its volume {volume} lies is not known; \
         start it: virsh pool-start {pool}"
    )]
    PoolInactive {
        /// The pool.
        pool: String,
        /// The volume.
        volume: String,
    },
    /// The XML cannot be used.
    #[error("the XML of domain {name} cannot be used")]
    Xml {
        /// The domain.
        name: String,
        /// The cause.
        #[source]
        source: XmlError,
    },
}

/// A connection to a libvirt driver, read-only.
#[derive(Debug)]
pub struct Libvirt {
    connection: Connect,
    uri: String,
}

/// A domain that libvirt knows.
#[derive(Debug)]
pub struct KnownDomain {
    handle: virt::domain::Domain,
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
}

/// What a domain is doing, in libvirt's numbers (include/libvirt/libvirt-domain.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `virDomainState`.
    pub state: u32,
    /// The reason for the state; its meaning depends on the state.
    pub reason: i32,
    /// A memory image waits for the next start.
    pub has_managed_save: bool,
}

impl Condition {
    /// It is about to start, and may yet fail to: libvirt has not come to open its disks, or QEMU is
    /// at it.
    pub fn is_starting(&self) -> bool {
        self.state == sys::VIR_DOMAIN_PAUSED
            && u32::try_from(self.reason) == Ok(sys::VIR_DOMAIN_PAUSED_STARTING_UP)
    }
}

impl KnownDomain {
    /// The number it has for as long as it is active, another at each start; 0 if it is off.
    pub fn number(&self) -> u32 {
        self.handle.get_id().unwrap_or_default()
    }
}

impl Libvirt {
    /// Connects.
    ///
    /// # Errors
    /// When the URI names another host, or libvirt does not answer there.
    pub fn connect(uri: &str) -> Result<Self, LibvirtError> {
        if is_remote(uri) {
            return Err(LibvirtError::Remote {
                uri: uri.to_owned(),
            });
        }
        // libvirt would print every error to stderr by itself.
        virt::error::clear_error_callback();
        match Connect::open_read_only(Some(uri)) {
            Ok(connection) => Ok(Self {
                connection,
                uri: uri.to_owned(),
            }),
            Err(error) => Err(LibvirtError::Connect {
                uri: uri.to_owned(),
                words: error.message().to_owned(),
            }),
        }
    }

    /// The URI.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The domain of this name, else of this UUID.
    ///
    /// # Errors
    /// [`LibvirtError::NoDomain`], or when libvirt fails.
    pub fn find(&self, name: &str) -> Result<KnownDomain, LibvirtError> {
        let by_name = virt::domain::Domain::lookup_by_name(&self.connection, name);
        let found = match (by_name, Uuid::parse_str(name)) {
            (Ok(domain), _) => Ok(domain),
            (Err(_), Ok(uuid)) => virt::domain::Domain::lookup_by_uuid(&self.connection, uuid),
            (Err(error), Err(_)) => Err(error),
        };
        match found {
            Ok(handle) => known(handle),
            Err(error) if error.code() == ErrorNumber::NoDomain => Err(LibvirtError::NoDomain {
                name: name.to_owned(),
                uri: self.uri.clone(),
            }),
            Err(error) => Err(asked(&format!("domain {name}"), &error)),
        }
    }

    /// All domains that are not active, by name.
    ///
    /// # Errors
    /// When libvirt fails.
    pub fn inactive(&self) -> Result<Vec<KnownDomain>, LibvirtError> {
        self.list(
            sys::VIR_CONNECT_LIST_DOMAINS_INACTIVE,
            "the inactive domains",
        )
    }

    /// All active domains, by name.
    ///
    /// # Errors
    /// When libvirt fails.
    pub fn active(&self) -> Result<Vec<KnownDomain>, LibvirtError> {
        self.list(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE, "the active domains")
    }

    fn list(&self, flags: u32, what: &str) -> Result<Vec<KnownDomain>, LibvirtError> {
        let handles = self
            .connection
            .list_all_domains(flags)
            .map_err(|error| asked(what, &error))?;
        let mut domains: Vec<KnownDomain> =
            handles.into_iter().map(known).collect::<Result<_, _>>()?;
        domains.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(domains)
    }

    /// What the domain is doing now.
    ///
    /// # Errors
    /// When libvirt fails.
    pub fn condition(&self, domain: &KnownDomain) -> Result<Condition, LibvirtError> {
        let what = format!("the state of domain {}", domain.name);
        let (state, reason) = domain
            .handle
            .get_state()
            .map_err(|error| asked(&what, &error))?;
        let has_managed_save = match domain.handle.has_managed_save(0) {
            Ok(has) => has,
            // A driver that knows no managed save has none.
            Err(error) if error.code() == ErrorNumber::NoSupport => false,
            Err(error) => return Err(asked(&what, &error)),
        };
        Ok(Condition {
            state,
            reason,
            has_managed_save,
        })
    }

    /// How many of its snapshots lie in its images and hold the guest's memory too.
    ///
    /// # Errors
    /// When libvirt fails.
    pub fn snapshots_with_memory(&self, domain: &KnownDomain) -> Result<usize, LibvirtError> {
        let wanted = sys::VIR_DOMAIN_SNAPSHOT_LIST_ACTIVE | sys::VIR_DOMAIN_SNAPSHOT_LIST_INTERNAL;
        match domain.handle.list_all_snapshots(wanted) {
            Ok(snapshots) => Ok(snapshots.len()),
            // A driver that knows no snapshots has none.
            Err(error) if error.code() == ErrorNumber::NoSupport => Ok(0),
            Err(error) => Err(asked(
                &format!("the snapshots of domain {}", domain.name),
                &error,
            )),
        }
    }

    /// Reads the domain's XML: of an active domain what it runs with.
    ///
    /// # Errors
    /// When libvirt fails or the XML cannot be used.
    pub fn describe(&self, domain: &KnownDomain) -> Result<Domain, LibvirtError> {
        let text = domain
            .handle
            .get_xml_desc(0)
            .map_err(|error| asked(&format!("the XML of domain {}", domain.name), &error))?;
        xml::parse(&text).map_err(|source| LibvirtError::Xml {
            name: domain.name.clone(),
            source,
        })
    }

    /// What a volume of a storage pool is: a file or device of this host, or a network disk.
    ///
    /// # Errors
    /// When there is no such pool or volume, or the pool is not active.
    pub fn volume(&self, pool: &str, volume: &str) -> Result<Source, LibvirtError> {
        let what = format!("volume {volume} of pool {pool}");
        let asked = |error| asked(&what, &error);
        let found = StoragePool::lookup_by_name(&self.connection, pool).map_err(asked)?;
        if !found.is_active().map_err(asked)? {
            return Err(LibvirtError::PoolInactive {
                pool: pool.to_owned(),
                volume: volume.to_owned(),
            });
        }
        let volume = StorageVol::lookup_by_name(&found, volume).map_err(asked)?;
        let path = volume.get_path().map_err(asked)?;
        let kind = volume.get_info().map_err(asked)?.kind;
        if matches!(
            kind,
            sys::VIR_STORAGE_VOL_NETWORK | sys::VIR_STORAGE_VOL_NETDIR
        ) {
            let xml = found.get_xml_desc(0).map_err(asked)?;
            return Ok(Source::Network {
                protocol: pool_type(&xml).to_owned(),
                name: Some(path),
            });
        }
        Ok(Source::File(path.into()))
    }
}

/// `type=` of a pool's XML, as libvirt writes it.
fn pool_type(xml: &str) -> &str {
    let value = xml.split_once("<pool type='").map(|(_, rest)| rest);
    value
        .and_then(|rest| rest.split('\'').next())
        .unwrap_or("unknown")
}

/// Whether a URI has a host: `driver[+transport]://[user@][host][:port]/path`
/// (<https://libvirt.org/uri.html>).
fn is_remote(uri: &str) -> bool {
    let authority = uri.split_once("://").map(|(_, rest)| rest);
    let authority = authority.and_then(|rest| rest.split(['/', '?']).next());
    authority.is_some_and(|host| !matches!(host, "" | "localhost" | "127.0.0.1" | "[::1]"))
}

fn known(handle: virt::domain::Domain) -> Result<KnownDomain, LibvirtError> {
    let what = "a domain's name";
    Ok(KnownDomain {
        name: handle.get_name().map_err(|error| asked(what, &error))?,
        uuid: handle.get_uuid().map_err(|error| asked(what, &error))?,
        handle,
    })
}

fn asked(what: &str, error: &virt::error::Error) -> LibvirtError {
    LibvirtError::Asked {
        what: what.to_owned(),
        words: error.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_a_pool() {
        let xml = "<pool type='rbd' xmlns:rbd='x'>\n  <name>it's</name>\n</pool>";
        assert_eq!(pool_type(xml), "rbd");
        assert_eq!(pool_type("<pool/>"), "unknown");
    }

    #[test]
    fn a_host_in_the_uri_is_another_host() {
        for (uri, remote) in [
            ("qemu:///system", false),
            ("qemu+unix:///system?socket=/run/x", false),
            ("test:///default", false),
            ("test:///tmp/node.xml", false),
            ("qemu+ssh://root@kvm2/system", true),
            ("qemu+tls://kvm2.example.org:16514/system", true),
            ("qemu://localhost/system", false),
            ("xen", false),
        ] {
            assert_eq!(is_remote(uri), remote, "{uri}");
        }
        let error = Libvirt::connect("qemu+ssh://kvm2/system").unwrap_err();
        assert!(matches!(error, LibvirtError::Remote { .. }), "{error}");
    }
}
