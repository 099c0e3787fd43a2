//! Runs the tests of a binary that has `harness = false`, and ignores tests whose requirements the machine does not
//! meet.
//!
//! libtest cannot ignore a test at run time, so a test that returns early because a program is missing would count as
//! passed. Here such a test is reported as ignored, with the reason; if `CI` is set, it fails.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use libtest_mimic::{Arguments, Completion, Trial};

/// Something that a test needs and that a machine may lack.
#[derive(Debug)]
pub(crate) enum Requirement {
    /// A program on the `PATH`.
    Program {
        /// File name of the program.
        name: &'static str,
        /// How to install it.
        remedy: &'static str,
    },
    /// Any other condition that can be checked.
    Condition {
        /// Returns whether the machine meets the condition.
        is_met: fn() -> bool,
        /// Reason that is reported if the condition is not met.
        reason: &'static str,
        /// How to meet the condition.
        remedy: &'static str,
    },
}

impl Requirement {
    /// Returns the path of the required program.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Program { name, remedy } => {
                find_program(name).unwrap_or_else(|| panic!("{name} is not on the path: {remedy}"))
            }
            Self::Condition { reason, .. } => panic!("not a program: {reason}"),
        }
    }

    /// Returns why the requirement is not met and how to meet it, or `None` if it is met.
    fn unmet(&self) -> Option<(String, &'static str)> {
        match *self {
            Self::Program { name, remedy } => {
                let is_missing = find_program(name).is_none();
                is_missing.then(|| (format!("{name} is not on the path"), remedy))
            }
            Self::Condition { is_met, reason, remedy } => (!is_met()).then(|| (reason.to_owned(), remedy)),
        }
    }
}

/// Returns the first file with this name in the folders of `PATH`.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut files = env::split_paths(&path).map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}

/// Defines the function `tests`, which lists the tests of a module. The compiler reports a test that is missing from
/// its list as dead code.
///
/// Each test is an `async fn`, which gets a runtime of its own with one thread. After its name, `(parallel)` gives it a
/// runtime with two worker threads, and `(sync)` marks a plain `fn`. The requirements of the test follow.
macro_rules! tests {
    ($($name:ident $(($kind:ident))? $(needs $requirement:ident)*),+ $(,)?) => {
        pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
            vec![$(
                $crate::runner::test(
                    concat!(module_path!(), "::", stringify!($name)),
                    &[$(&$requirement),*],
                    || tests!(@run $name $($kind)?),
                )
            ),+]
        }
    };
    (@run $name:ident) => {
        $crate::runner::block_on(&mut tokio::runtime::Builder::new_current_thread(), $name())
    };
    (@run $name:ident parallel) => {
        $crate::runner::block_on(tokio::runtime::Builder::new_multi_thread().worker_threads(2), $name())
    };
    (@run $name:ident sync) => { $name() };
}

/// Runs a test on a runtime of its own.
pub(crate) fn block_on(runtime: &mut tokio::runtime::Builder, test: impl Future<Output = ()>) {
    runtime.enable_all().build().unwrap().block_on(test);
}

/// Creates a test from its path, whose first segment is the name of the binary.
pub(crate) fn test(path: &str, requirements: &'static [&Requirement], run: impl FnOnce() + Send + 'static) -> Trial {
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    Trial::ignorable_test(name, move || {
        let unmet = requirements.iter().find_map(|requirement| requirement.unmet());
        match unmet {
            None => run(),
            Some((reason, remedy)) if env::var_os("CI").is_some() => return Err(format!("{reason}: {remedy}").into()),
            Some((reason, _)) => return Ok(Completion::ignored_with(reason)),
        }
        Ok(Completion::Completed)
    })
}

/// Runs the tests that the command line selects. `folder` holds the source of the binary.
pub(crate) fn run(folder: &Path, tests: Vec<Trial>) -> ExitCode {
    // Without libtest the compiler removes a function with `#[test]` without a warning.
    let stray = find_attribute(folder).unwrap();
    assert!(
        stray.is_none(),
        "{stray:?} has `#[test]` or `#[tokio::test]`: list the test in `tests!` instead, or it never runs"
    );
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

/// Returns a source file in `folder` that has a test which would never run.
fn find_attribute(folder: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            find_attribute(&path)?
        } else {
            let is_source = path.extension().is_some_and(|extension| extension == "rs");
            let is_attribute = |line: &str| line.starts_with("#[test") || line.starts_with("#[tokio::test");
            let is_stray = is_source
                && fs::read_to_string(&path)?
                    .lines()
                    .any(|line| is_attribute(line.trim_start()));
            is_stray.then_some(path)
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
