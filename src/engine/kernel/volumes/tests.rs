use super::*;

fn group(folder: &Path) -> GuestGroup {
    GuestGroup {
        devices: vec!["/dev/mapper/virt-fsck-a-pv0".into()],
        uuid: VolumeGroupId::parse("FC33RB-Q60H-uyYb-RtyW-J88P-adqe-PX2lPd").unwrap(),
        name: "lvg1".to_owned(),
        folder: folder.to_owned(),
    }
}

#[test]
fn a_group_survives_the_ledger() {
    let before = group(Path::new("/run/virt-fsck/virt-fsck-a/lvm0"));
    let text = serde_json::to_string(&before).unwrap();
    assert!(
        text.contains(r#""uuid":"FC33RB-Q60H-uyYb-RtyW-J88P-adqe-PX2lPd""#),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<GuestGroup>(&text).unwrap(), before);
    let damaged = text.replace("FC33RB", "FC33R/");
    let error = serde_json::from_str::<GuestGroup>(&damaged).unwrap_err();
    assert!(error.to_string().contains("not the UUID"), "{error}");
}

#[tokio::test]
async fn nothing_to_deactivate_is_no_error() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("lvm0");
    fs::create_dir_all(folder.join("lock")).unwrap();
    fs::write(folder.join("lock/V_lvg1"), "").unwrap();
    let group = group(&folder);
    group.deactivate().await.unwrap();
    assert!(!folder.exists());
    group.deactivate().await.unwrap();
}

/// `GROUP_UUID GROUP FOLDER DEVICES...` from the environment, then `VOLUME_UUID NAME ...` on a machine
/// that may be changed: activates each, runs `COMMAND` with the device, and deactivates.
#[tokio::test]
#[ignore = "needs root, device-mapper and a guest's volume group"]
async fn volumes_of_a_real_group() {
    let variable = |name| std::env::var(name).unwrap();
    let group = GuestGroup {
        devices: variable("DEVICES").split(' ').map(PathBuf::from).collect(),
        uuid: VolumeGroupId::parse(&variable("GROUP_UUID")).unwrap(),
        name: variable("GROUP"),
        folder: variable("FOLDER").into(),
    };
    let volumes = variable("VOLUMES");
    let mut words = volumes.split(' ');
    while let (Some(uuid), Some(name)) = (words.next(), words.next()) {
        let uuid = LogicalVolumeId::parse(uuid).unwrap();
        match group.activate(&uuid, name).await {
            Err(error) => println!("{name}: {}", crate::cause::sentence(&error)),
            Ok(active) => {
                println!("{name}: {} {:?}", active.device.display(), active.notes);
                let ended = std::process::Command::new("sh")
                    .args(["-c", &variable("COMMAND")])
                    .env("DEVICE", &active.device)
                    .env("NAME", name)
                    .status();
                println!("{name}: the command {ended:?}");
            }
        }
    }
    println!(
        "deactivate: {:?}",
        group
            .deactivate()
            .await
            .map_err(|e| crate::cause::sentence(&e))
    );
}
