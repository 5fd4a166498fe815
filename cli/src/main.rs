//! The `gprxy` command.

fn main() {}
