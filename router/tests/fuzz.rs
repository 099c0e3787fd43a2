//! Runs the fuzz bodies over the fuzzer's corpora, so that no defect found by fuzzing comes back.
#![expect(clippy::unwrap_used, reason = "the corpora exist")]

mod bodies;

use std::{fs, panic::catch_unwind, path::PathBuf};

use bodies::ALL;
use proptest::prelude::*;

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(name);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.map(|path| (path.display().to_string(), fs::read(&path).unwrap()));
    files.collect()
}

#[test]
fn every_corpus_passes() {
    for (name, body) in ALL {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        for (file, bytes) in corpus {
            let passed = catch_unwind(|| body(&bytes));
            assert!(passed.is_ok(), "{file} violates a property");
        }
    }
}

#[test]
fn every_body_has_a_fuzz_target() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    let mut programs: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().display().to_string())
        .collect();
    programs.sort_unstable();
    let mut names = ALL.map(|(name, _)| name);
    names.sort_unstable();
    assert_eq!(programs, names);
}

proptest! {
    #[test]
    fn no_mutation_of_a_corpus_violates_a_property(
        which in any::<prop::sample::Index>(),
        file in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..3, any::<u8>()), 0..6),
    ) {
        let (name, body) = ALL[which.index(ALL.len())];
        let corpus = corpus(name);
        let mut bytes = corpus[file.index(corpus.len())].1.clone();
        for (index, change, byte) in changes {
            let index = index.index(bytes.len() + 1);
            match change {
                0 => bytes.insert(index, byte),
                1 => bytes.truncate(index),
                _ if index < bytes.len() => bytes[index] = byte,
                _ => {}
            }
        }
        body(&bytes);
    }
}
