use std::os::unix::fs::OpenOptionsExt as _;

use super::*;

const PLACE: &[u8] = b"place";

/// A key with the bytes 00, 01, … 1f, in hexadecimal.
fn counting() -> String {
    (0..32).map(|byte| format!("{byte:02x}")).collect()
}

fn sealer(lines: &[(&str, &str)]) -> Sealer {
    let text: String = lines.iter().map(|(id, key)| format!("{id}:{key}\n")).collect();
    Sealer::parse(&text).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The expected bytes come from another implementation: AES-256-GCM-SIV of OpenSSL, with header and context as
/// additional authenticated data.
#[test]
fn sealed_bytes_match_the_test_vector_of_format_1() {
    let sealer = sealer(&[("k1", &counting())]);
    let nonce = std::array::from_fn(|index| 100 + u8::try_from(index).unwrap());
    let sealed = sealer.active.seal(nonce, PLACE, b"hello").unwrap();
    assert_eq!(
        hex(&sealed),
        "737762207365616c01026b316465666768696a6b6c6d6e6f2cf50a8b02c4e9bce0f89dba230a6b1c3a33faccfa"
    );
    assert_eq!(**sealer.open(PLACE, &sealed).unwrap(), *b"hello");
}

#[test]
fn sealed_bytes_open_unchanged_and_two_seals_of_the_same_bytes_differ() {
    let sealer = sealer(&[("k1", &counting())]);
    for bytes in [&b""[..], b"x", &[7; 100_000]] {
        let sealed = sealer.seal(PLACE, bytes).unwrap();
        assert_eq!(**sealer.open(PLACE, &sealed).unwrap(), *bytes);
        assert_ne!(sealed, sealer.seal(PLACE, bytes).unwrap());
    }
}

#[test]
fn changed_bytes_truncated_bytes_and_another_context_do_not_open() {
    let sealer = sealer(&[("k1", &counting())]);
    let sealed = sealer.seal(PLACE, b"hello").unwrap();
    for index in 0..sealed.len() {
        for bit in 0..8 {
            let mut changed = sealed.clone();
            changed[index] ^= 1 << bit;
            assert!(sealer.open(PLACE, &changed).is_err(), "byte {index}, bit {bit}");
        }
        assert!(sealer.open(PLACE, &sealed[..index]).is_err(), "the first {index} bytes");
    }
    assert_eq!(sealer.open(b"elsewhere", &sealed).unwrap_err(), UnsealError::Refused);
    assert_eq!(sealer.open(b"", &sealed).unwrap_err(), UnsealError::Refused);
    let longer = [&sealed[..], &[0]].concat();
    assert_eq!(sealer.open(PLACE, &longer).unwrap_err(), UnsealError::Refused);
}

#[test]
fn an_error_of_open_has_its_cause() {
    let sealer = sealer(&[("k1", &counting())]);
    let sealed = sealer.seal(PLACE, b"hello").unwrap();
    let mut newer = sealed.clone();
    newer[MAGIC.len()] = 2;
    assert_eq!(sealer.open(PLACE, &newer).unwrap_err(), UnsealError::UnknownFormat(2));
    for other in [&b""[..], b"swb sea", b"not sealed at all", &sealed[..10]] {
        assert_eq!(sealer.open(PLACE, other).unwrap_err(), UnsealError::NotSealed);
    }
    let another = self::sealer(&[("k2", &counting())]);
    let error = another.open(PLACE, &sealed).unwrap_err();
    assert!(error.to_string().contains("`k1`"), "{error}");
    let same_id = self::sealer(&[("k1", &"0".repeat(64))]);
    assert_eq!(same_id.open(PLACE, &sealed).unwrap_err(), UnsealError::Refused);
}

#[test]
fn after_a_rotation_the_new_key_seals_and_both_keys_open() {
    let new = "ab".repeat(32);
    let before = sealer(&[("old", &counting())]);
    let rotated = sealer(&[("new", &new), ("old", &counting())]);
    let after = sealer(&[("new", &new)]);
    let sealed = before.seal(PLACE, b"hello").unwrap();
    assert_eq!(**rotated.open(PLACE, &sealed).unwrap(), *b"hello");
    let sealed = rotated.seal(PLACE, b"hello").unwrap();
    assert_eq!(**after.open(PLACE, &sealed).unwrap(), *b"hello");
    assert!(matches!(before.open(PLACE, &sealed), Err(UnsealError::UnknownKey(_))));
}

#[test]
fn an_error_of_a_key_file_names_the_line_and_never_shows_its_text() {
    let key = counting();
    for (text, said) in [
        (String::new(), "contains no key"),
        ("# nothing\n\n".to_owned(), "contains no key"),
        (key.clone(), "line 1 is not a key"),
        (format!(":{key}"), "line 1 is not a key"),
        (format!("a b:{key}"), "line 1 is not a key"),
        (format!("{}:{key}", "i".repeat(33)), "line 1 is not a key"),
        (format!("# first\nk1:{}", &key[2..]), "line 2 is not a key"),
        (format!("k1:{key}00"), "line 1 is not a key"),
        (format!("k1:+{}", &key[1..]), "line 1 is not a key"),
        (format!("k1:{key}\nk1:{}", "0".repeat(64)), "line 2 repeats the id"),
    ] {
        let error = Sealer::parse(&text).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert!(!error.contains(&key[2..20]), "{error}");
    }
    assert!(Sealer::parse(&format!("\n# ours\n k1:{} \n", key.to_uppercase())).is_ok());
}

#[test]
fn a_key_file_must_be_accessible_to_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, mode: u32, text: &[u8]| {
        let path = folder.path().join(name);
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path);
        io::Write::write_all(&mut file.unwrap(), text).unwrap();
        path
    };
    let key = format!("k1:{}", counting());
    for mode in [0o600, 0o400] {
        assert!(Sealer::read(&write(&format!("{mode:o}"), mode, key.as_bytes())).is_ok());
    }
    for mode in [0o640, 0o604, 0o644] {
        let path = write(&format!("{mode:o}"), mode, key.as_bytes());
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Sealer::read(&path).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Exposed { mode: told } if told == mode),
            "{error}"
        );
    }
    let long = vec![b'#'; 65 * 1024];
    for text in [&long[..], b"\xff\xfe"] {
        let path = write(&format!("{}", text.len()), 0o600, text);
        assert!(matches!(Sealer::read(&path), Err(KeyFileError::NotText)));
    }
    assert!(matches!(Sealer::read(folder.path()), Err(KeyFileError::NotAFile)));
    let nowhere = folder.path().join("nowhere");
    assert!(matches!(Sealer::read(&nowhere), Err(KeyFileError::Unreadable(_))));
}

#[test]
fn keys_are_never_printed() {
    let printed = format!("{:?}", sealer(&[("k1", &counting()), ("k0", &"ab".repeat(32))]));
    assert_eq!(printed, "Sealer { active: SealKey(k1), retired: [SealKey(k0)] }");
}
