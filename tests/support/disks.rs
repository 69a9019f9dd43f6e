//! Disks to look into: made with the tools that everybody makes them with.

use super::lab::{Lab, Loop};

/// The time that e2fsck writes into superblocks, in seconds since 1970, so that two repairs of the
/// same bytes give the same bytes.
pub const NOW: &str = "1700000000";

/// The UUID of the ext4 filesystems made here.
pub const EXT4_UUID: &str = "6a7e1b5e-1c2d-4e3f-8a9b-0c1d2e3f4a5b";

impl Lab {
    /// A sound ext4 of 16 MiB with some files.
    pub fn ext4(&self, name: &str) {
        self.ext4_with(name, "");
    }

    /// The same with options for `mke2fs`.
    pub fn ext4_with(&self, name: &str, options: &str) {
        self.sh(&format!(
            "mkdir -p tree/d; for i in {{1..40}}; do echo \"hello $i\" >tree/d/f$i; done\n\
             head -c 100000 /dev/urandom >tree/big\n\
             mke2fs -q -F -t ext4 {options} -d tree -U {EXT4_UUID} -L root {name} 16M; rm -r tree"
        ));
    }

    /// The same with errors that only `-y` repairs, and `NAME.repaired`: what the checker alone
    /// makes of it.
    pub fn damaged_ext4(&self, name: &str) {
        self.damaged_ext4_with(name, "");
    }

    /// The same with options for `mke2fs`.
    pub fn damaged_ext4_with(&self, name: &str, options: &str) {
        self.ext4_with(name, options);
        self.sh(&format!(
            "debugfs -w -f - {name} <<'END'\n\
             clri /d/f7\n\
             sif /d/f9 links_count 4\n\
             sif /d/f8 mode 0\n\
             END\n\
             cp {name} {name}.repaired\n\
             e2fsck -fy {name}.repaired && exit 1 || test $? = 1\n\
             e2fsck -fn {name}.repaired"
        ));
    }

    /// A sound ext4 whose journal must be replayed, and which is not sound before that.
    pub fn ext4_with_a_full_journal(&self, name: &str, blocks: &[u32]) {
        self.ext4(name);
        let list = blocks.iter().map(u32::to_string).collect::<Vec<_>>();
        let saved: String = list
            .iter()
            .map(|block| format!("dd if={name} bs=1k skip={block} count=1 status=none\n"))
            .collect();
        self.sh(&format!(
            "{{\n{saved}}} >blocks\n\
             printf '%s\\n' jo 'jw -b {list} blocks' jc | debugfs -w -f - {name}\n\
             rm blocks\n\
             dumpe2fs -h {name} | grep -q needs_recovery",
            list = list.join(","),
        ));
    }

    /// Block numbers of an ext4 made here: where the inode of `/d/f1` lies.
    pub fn block_of_inode(&self, name: &str, file: &str) -> u32 {
        let text = self.sh(&format!("debugfs -R 'imap {file}' {name}"));
        let words: Vec<_> = text.split_whitespace().collect();
        let at = words.iter().rposition(|word| *word == "block").unwrap();
        words[at + 1].trim_end_matches(',').parse().unwrap()
    }

    /// Puts a file into another, at a sector.
    pub fn put(&self, what: &str, into: &str, sector: u64) {
        self.sh(&format!(
            "dd if={what} of={into} bs=512 seek={sector} conv=notrunc,sparse status=none"
        ));
    }

    /// LVM that sees only these devices, and activates nothing.
    pub fn lvm(&self, devices: &[&Loop], lines: &[&str]) {
        let accepted: String = devices
            .iter()
            .map(|device| format!("\"a|^{}$|\",", device.device))
            .collect();
        let folder = self.path().display();
        std::fs::create_dir_all(self.file("lvm")).unwrap();
        self.write(
            "lvm/lvm.conf",
            format!(
                "devices {{ use_devicesfile=0 hints=\"none\" obtain_device_list_from_udev=0 \
                 external_device_info_source=\"none\" global_filter=[{accepted}\"r|.*|\"] }}\n\
                 global {{ activation=0 use_lvmpolld=0 event_activation=0 \
                 locking_dir=\"{folder}/lvm\" }}\n\
                 activation {{ udev_sync=0 udev_rules=0 monitoring=0 }}\n\
                 backup {{ backup=0 archive=0 }}\n"
            ),
        );
        for line in lines {
            let mut line = (*line).to_owned();
            for (index, device) in devices.iter().enumerate() {
                line = line.replace(&format!("@{index}"), &device.device);
            }
            self.sh(&format!("LVM_SYSTEM_DIR=$PWD/lvm lvm {line}"));
        }
        for device in devices {
            self.sh(&format!("blockdev --flushbufs {}", device.device));
        }
        self.sh("rm -r lvm");
    }
}
