//! The passphrases that libvirt keeps.

use virt_fsck::domain::libvirt::Libvirt;
use virt_fsck::domain::model::SecretName;
use virt_fsck::domain::secrets::SecretError;

use crate::site::Site;

/// Defines a secret; `value` is in base64. Gives its UUID.
pub fn define(site: &Site, usage: &str, private: &str, value: Option<&str>) -> SecretName {
    let uuid = site.lab.sh("cat /proc/sys/kernel/random/uuid");
    let uuid = uuid.trim();
    site.lab.write(
        "secret.xml",
        format!(
            "<secret ephemeral='yes' private='{private}'><uuid>{uuid}</uuid>\
             <usage type='volume'><volume>{usage}</volume></usage></secret>"
        ),
    );
    site.virsh("secret-define secret.xml");
    if let Some(value) = value {
        site.virsh(&format!("secret-set-value {uuid} --base64 {value}"));
    }
    SecretName::Uuid(uuid.parse().unwrap())
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_secret_is_read_by_either_name_or_it_is_said_why_not() {
    let Some(site) = Site::new() else {
        return;
    };
    let libvirt = Libvirt::connect("qemu:///system").unwrap();
    // "a\0b\n", which is no text and no line.
    let open = define(&site, "/images/open", "no", Some("YQBiCg=="));
    let private = define(&site, "/images/private", "yes", Some("YQ=="));
    let empty = define(&site, "/images/empty", "no", None);
    let by_usage = |usage: &str| SecretName::Usage(usage.to_owned());
    for name in [&open, &by_usage("/images/open")] {
        let value = libvirt.secret_value(name).unwrap();
        assert_eq!(value.bytes(), b"a\0b\n", "{name}");
    }
    for name in [&private, &by_usage("/images/private")] {
        let error = libvirt.secret_value(name).unwrap_err();
        assert!(matches!(error, SecretError::Private), "{error}");
        let said = error.to_string();
        for words in ["reveals a private secret to nobody", "--key", "[[key]]"] {
            assert!(said.contains(words), "{said}");
        }
    }
    for name in [&empty, &by_usage("/images/empty")] {
        let error = libvirt.secret_value(name).unwrap_err();
        assert!(matches!(error, SecretError::NoValue(_)), "{error}");
    }
    for name in [&SecretName::Uuid(uuid::Uuid::nil()), &by_usage("/images")] {
        let error = libvirt.secret_value(name).unwrap_err();
        assert!(matches!(error, SecretError::Unknown(_)), "{error}");
    }
    for name in [open, private, empty] {
        site.virsh(&format!("secret-undefine {name}"));
    }
    let none = Libvirt::connect("test:///default").unwrap();
    let error = none.secret_value(&by_usage("a")).unwrap_err();
    assert!(matches!(error, SecretError::Asked { .. }), "{error}");
}
