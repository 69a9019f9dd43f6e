//! The ciphers of encrypted disks against the LUKS1 that QEMU reads and writes, and the volume keys
//! that cryptsetup finds in it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use sha2::{Digest, Sha256};
use virt_fsck::crypt::{CipherSpec, SectorCipher, VolumeKey};
use virt_fsck::layers::luks::header::{self, Header, LUKS1_LENGTH};
use virt_fsck::units::SectorSize;

use support::lab::Lab;

const PASSPHRASE: &str = "secret";

/// How many bytes are encrypted.
const LENGTH: usize = 256 * 1024;

/// QEMU's names of a LUKS1 disk.
const DISK: &str = "--object secret,id=s,data=secret --image-opts \
                    driver=luks,key-secret=s,file.driver=file,file.filename=disk.luks";

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut pad = [with; 64];
        pad.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        Sha256::new_with_prefix(pad)
    };
    let inner = parts
        .iter()
        .fold(pad(0x36), |hash, part| hash.chain_update(part));
    pad(0x5c).chain_update(inner.finalize()).finalize().into()
}

fn pbkdf2(passphrase: &[u8], salt: &[u8], iterations: u32, length: usize) -> Vec<u8> {
    let mut key = Vec::new();
    for index in 1.. {
        if key.len() >= length {
            break;
        }
        let mut block = hmac(passphrase, &[salt, &u32::to_be_bytes(index)]);
        let mut sum = block;
        for _ in 1..iterations {
            block = hmac(passphrase, &[&block]);
            sum.iter_mut()
                .zip(block)
                .for_each(|(sum, byte)| *sum ^= byte);
        }
        key.extend(sum);
    }
    key.truncate(length);
    key
}

/// The key out of the stripes of a key slot (on-disk-format.pdf, 2.4).
fn merged(stripes: &[u8], length: usize) -> Vec<u8> {
    let mut key = vec![0; length];
    let last = stripes.len() / length - 1;
    for (number, stripe) in stripes.chunks(length).enumerate() {
        key.iter_mut()
            .zip(stripe)
            .for_each(|(key, byte)| *key ^= byte);
        if number < last {
            let parts = key.chunks(32).zip(0_u32..).map(|(part, index)| {
                let hash = Sha256::new_with_prefix(index.to_be_bytes());
                hash.chain_update(part).finalize()[..part.len()].to_vec()
            });
            key = parts.collect::<Vec<_>>().concat();
        }
    }
    key
}

/// The volume key out of the first key slot of a LUKS1 disk, whose digest says that it is right.
fn volume_key(disk: &[u8], spec: CipherSpec) -> Vec<u8> {
    let number = |at: usize| u32::from_be_bytes(disk[at..at + 4].try_into().unwrap());
    let length = spec.key_length();
    assert!(disk[72..].starts_with(b"sha256\0"));
    let slot_key = pbkdf2(PASSPHRASE.as_bytes(), &disk[216..248], number(212), length);
    let start = usize::try_from(number(248)).unwrap() * 512;
    let split = usize::try_from(number(252)).unwrap() * length;
    let mut stripes = disk[start..start + split.next_multiple_of(512)].to_vec();
    cipher(spec, &slot_key).decrypt(0, &mut stripes).unwrap();
    let key = merged(&stripes[..split], length);
    assert_eq!(
        pbkdf2(&key, &disk[132..164], number(164), 20),
        disk[112..132]
    );
    key
}

fn cipher(spec: CipherSpec, key: &[u8]) -> SectorCipher {
    let key = VolumeKey::new(key.to_vec().into());
    SectorCipher::new(spec, &key, SectorSize::S512, 0).unwrap()
}

fn header(disk: &[u8]) -> (Header, usize) {
    let header = header::luks1(&disk[..LUKS1_LENGTH], false).unwrap();
    let payload = usize::try_from(header.offset.get()).unwrap();
    (header, payload)
}

/// QEMU writes a disk that is read here; some sectors are written here, and read by QEMU.
fn both_ways(algorithm: &str, mode: &str, iv: &str, encryption: &str) {
    let lab = Lab::new();
    let mut text: Vec<u8> = (0_u64..)
        .take(LENGTH / 8)
        .flat_map(u64::to_le_bytes)
        .collect();
    lab.write("plain", &text);
    lab.sh(&format!(
        "qemu-img create -q -f luks --object secret,id=s,data={PASSPHRASE} \
         -o key-secret=s,cipher-alg={algorithm},cipher-mode={mode},{iv},iter-time=10 disk.luks {LENGTH}
         qemu-img convert -n -f raw --target-image-opts plain {}",
        DISK.replace("--image-opts ", "")
    ));
    let mut disk = std::fs::read(lab.file("disk.luks")).unwrap();
    let (header, payload) = header(&disk);
    assert_eq!(header.encryption, encryption);
    let spec = CipherSpec::parse(&header.encryption, header.key_sizes[0]).unwrap();
    let key = volume_key(&disk, spec);
    if algorithm.starts_with("aes") {
        lab.write("passphrase", PASSPHRASE);
        lab.sh(
            "cryptsetup luksDump --batch-mode --dump-volume-key --key-file passphrase \
                --volume-key-file key disk.luks",
        );
        assert!(std::fs::read(lab.file("key")).unwrap() == key);
    }

    let cipher = cipher(spec, &key);
    let data = &mut disk[payload..payload + LENGTH];
    let encrypted = data.to_vec();
    cipher.decrypt(0, data).unwrap();
    assert!(data == text, "{encryption}: what QEMU has written");
    cipher.encrypt(0, data).unwrap();
    assert!(data == encrypted, "{encryption}: there and back");

    let (sector, place) = (77, 77 * 512..80 * 512);
    text[place.clone()].fill(b'x');
    let mut written = text[place.clone()].to_vec();
    cipher.encrypt(sector, &mut written).unwrap();
    lab.patch("disk.luks", (payload + place.start) as u64, &written);
    lab.sh(&format!("qemu-img convert -O raw {DISK} plain"));
    assert!(
        std::fs::read(lab.file("plain")).unwrap() == text,
        "{encryption}: what QEMU reads"
    );
}

const ESSIV: &str = "ivgen-alg=essiv,ivgen-hash-alg=sha256";

// Keys of 192 bits are none that QEMU can make disks with: it aborts.

#[test]
fn aes_as_qemu_has_it() {
    for (algorithm, mode, iv, encryption) in [
        ("aes-256", "xts", "ivgen-alg=plain64", "aes-xts-plain64"),
        ("aes-128", "xts", ESSIV, "aes-xts-essiv:sha256"),
        ("aes-256", "cbc", ESSIV, "aes-cbc-essiv:sha256"),
        ("aes-128", "cbc", "ivgen-alg=plain", "aes-cbc-plain"),
    ] {
        both_ways(algorithm, mode, iv, encryption);
    }
}

#[test]
fn serpent_as_qemu_has_it() {
    let plain64 = "ivgen-alg=plain64";
    both_ways("serpent-256", "xts", plain64, "serpent-xts-plain64");
    both_ways("serpent-128", "cbc", ESSIV, "serpent-cbc-essiv:sha256");
}

#[test]
fn twofish_as_qemu_has_it() {
    let plain64 = "ivgen-alg=plain64";
    both_ways("twofish-256", "xts", plain64, "twofish-xts-plain64");
    both_ways("twofish-128", "cbc", ESSIV, "twofish-cbc-essiv:sha256");
}

#[test]
fn what_no_cipher_is_for() {
    let lab = Lab::new();
    lab.sh(&format!(
        "qemu-img create -q -f luks --object secret,id=s,data={PASSPHRASE} \
         -o key-secret=s,cipher-alg=aes-256,cipher-mode=ecb,iter-time=10 disk.luks {LENGTH}"
    ));
    let disk = std::fs::read(lab.file("disk.luks")).unwrap();
    let (header, _) = header(&disk);
    let error = CipherSpec::parse(&header.encryption, header.key_sizes[0]).unwrap_err();
    assert_eq!(error.to_string(), "the cipher mode ecb is not known here");
}
