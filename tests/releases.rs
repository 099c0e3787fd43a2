//! The releases and their commits, in a file, because a tag may not travel with the repository. Tests of upgrades take the
//! program of an earlier release from its commit.

use std::collections::BTreeSet;

const RELEASES: &str = include_str!("releases.txt");
const CHANGELOG: &str = include_str!("../CHANGELOG.md");

/// Version and commit of each release, the newest first.
fn releases() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = RELEASES.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' '))
}

#[test]
fn every_dated_version_of_the_changelog_has_its_commit() {
    let sections = CHANGELOG.lines().filter_map(|line| line.strip_prefix("## ["));
    let dated: BTreeSet<&str> = sections
        .filter_map(|section| section.split_once("] - "))
        .map(|(version, _date)| version)
        .collect();
    let recorded: BTreeSet<&str> = releases().map(|(version, _commit)| version).collect();
    assert_eq!(recorded, dated, "tests/releases.txt, and CHANGELOG.md");
    for (version, commit) in releases() {
        let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(is_commit, "{version}: {commit}");
    }
}
