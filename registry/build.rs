//! Has the crate rebuilt when a migration is added: the compiler cannot see a new file in a folder.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
