use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::*;

/// What the kernel's dm-crypt (Linux 6.1) made of [`plain`]: the cipher, the length of the key, the
/// length of the sectors, the offset of the initialisation vectors, and the SHA-256 of the encrypted
/// bytes. The key is the bytes 1, 2, 3, ... For each line, as root:
///
/// ```sh
/// key=$(printf %02x $(seq 1 $length))
/// dmsetup create v --table "0 32 crypt $cipher $key $offset $device 0 1 sector_size:$sectors"
/// seq 1 10000 | head -c 16384 | dd of=/dev/mapper/v bs=16384 iflag=fullblock oflag=direct
/// dmsetup remove v
/// dd if=$device bs=16384 count=1 iflag=direct | sha256sum
/// ```
///
/// Volumes that cryptsetup made (`cryptsetup luksFormat --type luks2 --volume-key-file ...`) gave the
/// same for `aes-xts-plain64` with all four lengths of sectors, and for Serpent and Twofish with
/// sectors of 4096 bytes: it does not ask for `iv_large_sectors`. `aes-cbc-essiv:sha256` with such
/// sectors and the offset 0 is from one of these alone.
const BY_DM_CRYPT: &str = "\
aes-cbc-essiv:sha256 16 512 0 4c198c323e346b27863aaec3f4b2d031b44182033a86dd0d9c9b45ba740d2cae
aes-cbc-essiv:sha256 24 512 0 c99d3fab5ec7566ad3cc38c456e2026fd5d2f6f4bcdbd4b4c1f1c87555326eb5
aes-cbc-essiv:sha256 32 512 0 2315457c09488f2423929f2d531fa0b77ad5b4240ba3f665c1e9298e447f4abb
aes-cbc-essiv:sha256 32 4096 0 726847033d3ac78d284ed6e9bfa9a6e52ac60d4fcbd9414b88a700690abea045
aes-cbc-essiv:sha256 32 4096 4294967280 4534b69ba6e2d0b0a8e417c47f7080f2dbf0a8dae3b71adc54b80f2b52b216bc
aes-cbc-null 32 4096 4294967280 cc75e5995dce8adb5244fe67071edbe8c61742af8ff77b11535846be2d16e98b
aes-cbc-plain 32 4096 4294967280 d93f03ed4349c5fb7c3c3aea288f5d7229c6ddf320b5d363c023ef2f02e77b87
aes-cbc-plain64 32 4096 4294967280 77aee99cdd133fceceda350d43e3c6fc32bff25d3214545719dbfff28a95ac1d
aes-cbc-plain64be 32 4096 4294967280 32eba884f3f11bf0660cdf86f076f787f2acfb09b67f9d5e646dfc5904914632
aes-xts-essiv:sha256 64 512 4294967290 248a3cd7d5f571bb41d4a247a1c21085556268c8e76f521bd0ac279d90217d18
aes-xts-null 64 512 4294967290 4a36bbcf98e7191b9166daaa57ea33ac69527b11a050b4ecf1957bb0e6762c35
aes-xts-plain 64 512 4294967290 b35a27c97da6274b6af4833f5efb8873f5320650ce1cbe85e31e9e901925e2a6
aes-xts-plain 64 4096 4294967280 41d6c3ac273607cc5ed0e5f777dd751c5c19ff88ca215b038dc224ff36eb23ab
aes-xts-plain64 32 512 0 f7ab38e8f978f9a6a602e9eefb08c9186159d08b6724f7549bf0b202d384e9e8
aes-xts-plain64 48 512 0 8fcc54bb91f9a9da9bf8b1622c165aa6cb2cbbf523790cab3e8fc2cab729096b
aes-xts-plain64 64 512 0 c8851e8571ec18ae08b66053f7eac229e783b8a30c88ade54ba8843055bc32a3
aes-xts-plain64 64 512 4294967290 3ed804df4b66437315d035328b89f0333f847b17abc59bed90a69a8050d1c5e6
aes-xts-plain64 64 512 18446744073709551608 9bd1f73274493c3716e340253f44c9373dd9de6cbe54fed266d2705a39f8b201
aes-xts-plain64 64 1024 0 a345dd85ee479a19980d3704480c91920fc3a818e42d4b0f4ff0145389f87dd1
aes-xts-plain64 64 2048 0 b7f103a6a232e276318daccb938ce10c85c5ade7df914906ff85924ab7bae49c
aes-xts-plain64 64 4096 0 99e479cdd90d8bda7aacff86bdeb7d302509b699b97bf01ab31f767965c767e6
aes-xts-plain64be 64 512 4294967290 a56c1be1f56fd93fba818a526ff37f2b257489fcadcd63e74c0a4ab060919826
serpent-cbc-essiv:sha256 16 512 7 f08ee5475e7949d50a275cfe31b325d75caa3a340b05c7f364f19fcd8498af6f
serpent-cbc-essiv:sha256 24 512 7 4783307afa01ad3c9ed3e5cc7eca2bba4b6f2d3bc054183613485208f8ed6648
serpent-cbc-essiv:sha256 32 512 7 f6f0f0d4d75553aa0e7b5ba2a4b9bf4deadec3f2b52891664bbd0816cb186d5c
serpent-cbc-plain64 32 4096 0 904a4698da635a9993eeae56a76ee1aa2678d910ad5410d66183ff9990a41413
serpent-xts-essiv:sha256 32 1024 0 c079fc8d9f74da9feba559efde4f73aeeba95643f7540f49460003a61ad5cb8b
serpent-xts-plain64 32 512 0 ea2a6f78a142b709f65c9db5fe34665e9b306e8e720e3b1c73498acff3f54d56
serpent-xts-plain64 48 512 0 1c87eec20a0c3ca525b180dfc2cc115e94d79c4e54be386ecb47fb23d72d1db3
serpent-xts-plain64 64 512 0 627b3869dea6c9257c764517b820efd31beb8130cca00bca175dd8421a21e82c
serpent-xts-plain64 64 4096 0 3a6ac5a00f7d80762889025f546f96e4eeafc9839090a33b2c73edc6e074ea86
twofish-cbc-essiv:sha256 16 512 7 d4a8ec05be7f1ec7807966d9faf57d6f0f7183eee123a53dbcee8849f62c7636
twofish-cbc-essiv:sha256 24 512 7 de126088f5d91aec83bcab5d410326335d34888ce22b84d155db94541b90ca32
twofish-cbc-essiv:sha256 32 512 7 be8bdac29a2d7b068e22fb0aecabe28442f86402989e2da3084fd3155e660dc0
twofish-cbc-plain64 32 4096 0 0ebd35d0ed72176fffc5814815dda4fac6f4e6aa84aa9e2644aab1d9c1192fbf
twofish-xts-essiv:sha256 32 1024 0 70062594e66f3fd62d1ff139464e733df963bffa4496d0ca2a705449a7f8bb99
twofish-xts-plain64 32 512 0 86d2e6bbd6e288cd2943afeda7ca6ee6fa9cb95bf11f1fb0bcf9781362e7723d
twofish-xts-plain64 48 512 0 1df638aa58dc8395b070be1f693e3ced75e9b72eda50f023403ff4914a06e37f
twofish-xts-plain64 64 512 0 00161e04c87387ad01e4e1635ae9504589b2d54a7495f80630cc8ce37c83c0e6
twofish-xts-plain64 64 4096 0 3a043ece9b6749a805ae4167ce85ac88c42a41fa1c46135d8536b0ceb3ea04c9
camellia-cbc-essiv:sha256 16 512 7 35621fd3dd1356c6dd0a4efeadb9e896e3e7e9651e69ae45754189c6a6695ef0
camellia-cbc-essiv:sha256 24 512 7 579f38c768bc014acaee15589d43052ff6160717ad6b7de220a542d187f6ad9c
camellia-cbc-essiv:sha256 32 512 7 52ebcc40688856bcb88094d7a32415287137e2a7e409d2bdcadec7f9dede26c7
camellia-cbc-plain64 32 4096 0 934be98afe177f88a9e01b130ea52128796c8e5e0f9e095607bed4f4815a2ec3
camellia-xts-essiv:sha256 32 1024 0 f508ca7bca688e4264722acb1096e33640ad17ae6648efc0fdb3f6449aa22fb9
camellia-xts-plain64 32 512 0 9b09f1789888ed910aec8ac6b60c4b365c4bc336077de8811a77399727eb6da2
camellia-xts-plain64 48 512 0 e61b1bc1b334c1aa3c1b7b826f4e662b7fa7383f140fa2a14d8bf16e5f2842fc
camellia-xts-plain64 64 512 0 9be5dc019776f0baf2be4dc92b8308d713ed126334c3e7a9935aa50e53f5c527
camellia-xts-plain64 64 4096 0 431c6dc819ca5df82f7422383a34448eeab4962646994912649bbfc3a2d77805";

fn plain() -> Vec<u8> {
    let mut text = String::new();
    for number in 1..=10_000 {
        writeln!(text, "{number}").unwrap();
    }
    text.truncate(16_384);
    text.into_bytes()
}

fn cipher(encryption: &str, length: u8, sector_size: u32, iv_offset: u64) -> SectorCipher {
    let key = VolumeKey::new((1..=length).collect::<Vec<u8>>().into());
    let spec = CipherSpec::parse(encryption, length.into()).unwrap();
    let sector_size = SectorSize::new(sector_size).unwrap();
    SectorCipher::new(spec, &key, sector_size, iv_offset).unwrap()
}

#[test]
fn as_dm_crypt_has_it() {
    let plain = plain();
    for line in BY_DM_CRYPT.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let sector_size = fields[2].parse().unwrap();
        let cipher = cipher(
            fields[0],
            fields[1].parse().unwrap(),
            sector_size,
            fields[3].parse().unwrap(),
        );
        let mut data = plain.clone();
        cipher.encrypt(0, &mut data).unwrap();
        let hash = Sha256::digest(&data);
        let mut digits = String::new();
        for byte in hash {
            write!(digits, "{byte:02x}").unwrap();
        }
        assert_eq!(digits, fields[4], "{line}");

        let mut parts = data.clone();
        let length = usize::try_from(sector_size).unwrap();
        for (sector, first) in parts.chunks_mut(length).zip((0..).step_by(length / UNIT)) {
            cipher.decrypt(first, sector).unwrap();
        }
        assert!(parts == plain, "{line}: each sector by itself");
        cipher.decrypt(0, &mut data).unwrap();
        assert!(data == plain, "{line}");
    }
}

#[test]
fn any_part_is_the_same_as_in_the_whole() {
    for (encryption, length, sector_size) in [
        ("aes-xts-plain64", 64, 1024),
        ("aes-cbc-essiv:sha256", 32, 2048),
    ] {
        let cipher = cipher(encryption, length, sector_size, 8);
        let mut whole = plain();
        cipher.encrypt(64, &mut whole).unwrap();
        let step = usize::try_from(sector_size).unwrap();
        for start in (0..whole.len()).step_by(step) {
            for end in (start..=whole.len()).step_by(step) {
                let mut part = plain()[start..end].to_vec();
                let first = 64 + (start / UNIT) as u64;
                cipher.encrypt(first, &mut part).unwrap();
                assert!(part == whole[start..end], "{encryption}: {start}..{end}");
            }
        }
    }
}

#[test]
fn several_threads_use_it() {
    let cipher = cipher("aes-xts-plain64", 64, 512, 0);
    let mut data = plain();
    std::thread::scope(|scope| {
        for (part, first) in data.chunks_mut(4096).zip((0..).step_by(8)) {
            let cipher = &cipher;
            scope.spawn(move || cipher.encrypt(first, part).unwrap());
        }
    });
    cipher.decrypt(0, &mut data).unwrap();
    assert!(data == plain());
}

#[test]
fn nothing_but_whole_sectors() {
    let cipher = cipher("aes-xts-plain64", 64, 4096, 0);
    let before = plain();
    for (first, length) in [(0, 512), (0, 4095), (1, 4096), (4, 4096), (u64::MAX, 4096)] {
        let mut data = before[..length].to_vec();
        let error = cipher.encrypt(first, &mut data).unwrap_err();
        assert_eq!(cipher.decrypt(first, &mut data), Err(error));
        assert!(data == before[..length]);
        assert_eq!(
            error.to_string(),
            format!("{length} bytes at sector {first} are no whole sectors of 4096 bytes")
        );
    }
    assert_eq!(cipher.decrypt(8, &mut []), Ok(()));
    let mut last = before[..8192].to_vec();
    assert_eq!(cipher.decrypt(u64::MAX - 7, &mut last), Ok(()));
}

#[test]
fn what_the_kernel_refuses() {
    let spec = CipherSpec::parse("aes-xts-plain64", 64).unwrap();
    let new = |length, sector_size, iv_offset| {
        let key = VolumeKey::new(vec![0; length].into());
        let sector_size = SectorSize::new(sector_size).unwrap();
        SectorCipher::new(spec, &key, sector_size, iv_offset)
    };
    for (length, sector_size, iv_offset, says) in [
        (32, 512, 0, "the volume key has 32 bytes instead of 64"),
        (65, 512, 0, "the volume key has 65 bytes instead of 64"),
        (64, 8192, 0, "no sector of 8192 bytes can be encrypted"),
        (
            64,
            4096,
            4,
            "4 sectors of 512 bytes are no whole sectors of 4096 bytes",
        ),
    ] {
        let error = new(length, sector_size, iv_offset).unwrap_err();
        assert_eq!(error.to_string(), says);
    }
    assert_eq!(
        format!("{:?}", new(64, 512, 4).unwrap()),
        "SectorCipher { spec: CipherSpec { algorithm: Aes, mode: Xts, iv: Plain64, key_length: 64 }, \
         sector_size: SectorSize(512), iv_offset: 4, .. }"
    );
}
