//! placeholder
/// A seed.
pub struct Seed {
    pub target: &'static str,
    pub name: &'static str,
    pub data: Vec<u8>,
}
/// All.
pub fn all() -> Vec<Seed> {
    Vec::new()
}
