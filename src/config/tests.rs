use std::time::Duration;

use super::*;
use crate::reach::crypttab::{CryptOptions, KeySource};

fn parsed(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/virt-fsck.toml")).map_err(|error| error.to_string())
}

#[test]
fn all_that_can_be_said() {
    let config = parsed(
        "# comment\n\
             askpass = [\"systemd-ask-password\", \"--timeout=60\"]\n\
         [[crypt]]\n\
         name = \"cr_hd0\"\n\
         device = \"/dev/lvg2/lvhd0\"\n\
         key-file = \"/etc/keys/hd0\"\n\
         header = \"/etc/keys/hd0.header\"\n\
         options = \"discard,key-slot=2\"\n\
         \n\
         [[crypt]]\n\
         name = \"cr_pv\"\n\
         device = \"UUID=77\"\n\
         [[mount]]\n\
         target = \"/kvm/os\"\n\
         device = \"/dev/mapper/cr_kvmos\"\n\
         type = \"ext4\"\n\
         options = \"noatime\"\n\
         [[volume-group]]\n\
         name = \"lvg2\"\n\
         devices = [\"/dev/mapper/cr_pv\"]\n\
         [[key]]\n\
         for = \"vda/p3\"\n\
         file = \"/etc/keys/vm1\"\n",
    )
    .unwrap();
    let [first, second] = config.crypts.as_slice() else {
        panic!("{config:?}");
    };
    assert_eq!(first.key, KeySource::File("/etc/keys/hd0".into()));
    assert_eq!(
        first.options,
        CryptOptions {
            discard: true,
            key_slot: Some(2),
            header: Some("/etc/keys/hd0.header".into()),
            ..CryptOptions::default()
        }
    );
    assert_eq!(first.origin.to_string(), "/etc/virt-fsck.toml, line 3");
    assert_eq!(second.key, KeySource::Ask);
    assert_eq!(second.origin.line, 10);
    assert_eq!(config.mounts[0].target, Path::new("/kvm/os"));
    assert_eq!(config.mounts[0].filesystem.as_deref(), Some("ext4"));
    assert_eq!(config.groups[0].devices, ["/dev/mapper/cr_pv"]);
    let [key] = config.keys.as_slice() else {
        panic!("{config:?}");
    };
    assert_eq!(key.id, "vda/p3");
    assert_eq!(key.file, Path::new("/etc/keys/vm1"));
    assert_eq!(key.origin.to_string(), "/etc/virt-fsck.toml, line 21");
    assert_eq!(config.askpass, ["systemd-ask-password", "--timeout=60"]);
    assert_eq!(parsed("").unwrap(), Config::default());
}

#[test]
fn what_the_hook_does() {
    let hook = |text: &str| parsed(text).unwrap().hook;
    let nothing = HookSettings {
        check_before_start: CheckBeforeStart::Never,
        check_after_stop: false,
        time_budget: Duration::from_secs(60),
        max_age: None,
    };
    assert_eq!(hook(""), nothing);
    assert_eq!(hook("[hook]\n"), nothing);
    let all = HookSettings {
        check_before_start: CheckBeforeStart::Due,
        check_after_stop: true,
        time_budget: Duration::from_secs(300),
        max_age: Some(Duration::from_secs(30 * 86400)),
    };
    for text in [
        "[hook]\ncheck-before-start = \"due\"\ncheck-after-stop = true\ntime-budget = \"5m\"\n\
         max-age = \"30d\"\n",
        "[hook]\ncheck_before_start = \"due\"\ncheck_after_stop = true\ntime_budget = \"5m\"\n\
         max_age = \"30d\"\n",
    ] {
        assert_eq!(hook(text), all, "{text}");
    }
    let always = hook("[hook]\ncheck-before-start = \"always\"\n");
    assert_eq!(always.check_before_start, CheckBeforeStart::Always);
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, line, part) in [
        (
            "[hook]\n\ncheck-before-start = \"sometimes\"\n",
            3,
            "sometimes",
        ),
        ("[hook]\ncheck-after-stop = 1\n", 2, "invalid type"),
        (
            "[hook]\n\ntime-budget = \"60\"\n",
            3,
            "\"60\" is no duration",
        ),
        ("[hook]\nmax-age = \"0d\"\n", 2, "no time at all"),
        ("[hook]\nbudget = \"60s\"\n", 2, "budget"),
        ("\n\ncrypt = 1\n", 3, "invalid type"),
        ("[[crypt]]\nname = \"a\"\n", 1, "device"),
        (
            "[[crypt]]\nname = \"a\"\ndevice = \"b\"\nkeyfile = \"c\"\n",
            4,
            "keyfile",
        ),
        ("[[crypts]]\n", 1, "crypts"),
        ("[[crypt]\n", 1, ""),
        ("\n[[crypt]]\nname = \"a/b\"\ndevice = \"b\"\n", 2, "a/b"),
        (
            "[[mount]]\ntarget = \"kvm\"\ndevice = \"b\"\n",
            1,
            "no absolute path",
        ),
        (
            "[[volume-group]]\nname = \"v\"\ndevices = []\n",
            1,
            "no devices",
        ),
        ("\n[[key]]\nfor = \"all\"\n", 2, "file"),
        ("[[key]]\nfor = \"\"\nfile = \"/k\"\n", 1, "for nothing"),
        (
            "[[key]]\nfor = \"all\"\nfile = \"k\"\n",
            1,
            "no absolute path",
        ),
        (
            "[[key]]\nfor = \"all\"\nfile = \"/k\"\nkey = \"k\"\n",
            4,
            "key",
        ),
        ("\naskpass = []\n", 2, "names no program"),
        ("askpass = [\"\", \"a\"]\n", 1, "names no program"),
        ("askpass = [\"./ask\"]\n", 1, "no absolute path"),
        ("askpass = \"ask\"\n", 1, "invalid type"),
    ] {
        let error = parsed(text).unwrap_err();
        let wanted = format!("/etc/virt-fsck.toml, line {line}: ");
        assert!(error.starts_with(&wanted), "{text:?}: {error}");
        assert!(
            error.contains(part) && !error.contains('\n'),
            "{text:?}: {error}"
        );
    }
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.toml");
    let error = Config::named(&path).unwrap_err();
    let sentence = crate::cause::sentence(&error);
    assert!(
        sentence.ends_with("none.toml cannot be read: No such file or directory"),
        "{sentence}"
    );
    std::fs::write(&path, b"# \xff\n").unwrap();
    assert!(Config::named(&path).is_err());
}
